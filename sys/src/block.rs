//! Block devices: sizes, partitions, and writes that are on the disk when they return.

use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl, opcode};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::{ptr, slice};

/// Size in bytes of a [`Block`]: a multiple of every sector size in use.
pub const BLOCK: usize = 4096;

/// A block aligned as direct I/O needs it.
#[repr(C, align(4096))]
#[derive(Clone)]
pub struct Block(pub [u8; BLOCK]);

impl Block {
    /// All zeros.
    pub const ZERO: Block = Block([0; BLOCK]);
}

/// Bytes that lie in memory as direct I/O needs them, so that [`Direct`] reads and writes them
/// without a copy. Zeros at first.
pub struct Buffer(Vec<Block>);

impl Buffer {
    /// Room for `len` bytes, rounded up to whole blocks.
    pub fn new(len: usize) -> Buffer {
        Buffer(vec![Block::ZERO; len.div_ceil(BLOCK)])
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `Block` is 4096 bytes without padding, and blocks of a slice follow each other;
        // the result borrows the buffer.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&*self.0)) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any value of the bytes is a valid block.
        unsafe { slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), size_of_val(&*self.0)) }
    }
}

/// What updates are written through: a block device, or something in its place that a test can
/// cut the power of.
///
/// Offsets and lengths are multiples of [`BLOCK`] and lie within the device.
pub trait BlockDevice: Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Reads what the device holds, not what some cache of the kernel does.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Hands bytes to the device. They are durable after the next [`BlockDevice::flush`]; before
    /// it, any of them may be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written to this device is durable.
    fn flush(&self) -> io::Result<()>;
}

impl<D: BlockDevice + ?Sized> BlockDevice for &D {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, bytes)
    }
    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
}

/// A block device, or a file in its place, opened so that reads see the disk and not the page
/// cache.
#[derive(Debug)]
pub struct Direct {
    file: File,
    size: u64,
}

/// Bytes that are copied at once to where the kernel takes them from, unless they lie right.
const BOUNCE: usize = 256 << 10;

thread_local! {
    static BOUNCED: RefCell<Buffer> = RefCell::new(Buffer::new(0));
}

/// Lends what bytes are copied through, of `len` bytes or [`BOUNCE`].
fn bounced<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let len = len.min(BOUNCE);
    BOUNCED.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            *buffer = Buffer::new(len);
        }
        work(buffer)
    })
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(BLOCK)
}

impl Direct {
    /// Opens `path`. Where direct I/O is not to be had, reads may come from the page cache.
    pub fn open(path: &Path, writable: bool) -> io::Result<Direct> {
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(writable)
                .custom_flags(flags.bits() as i32)
                .open(path)
        };
        let mut file = match open(OFlags::DIRECT) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => open(OFlags::empty())?,
            other => other?,
        };
        let size = size(&mut file)?;
        Ok(Direct { file, size })
    }

    /// Reads the block at byte `offset`, a multiple of [`BLOCK`].
    pub fn read(&self, offset: u64) -> io::Result<Block> {
        let mut block = Block::ZERO;
        self.file.read_exact_at(&mut block.0, offset)?;
        Ok(block)
    }
}

impl BlockDevice for Direct {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if is_aligned(buffer) {
            return self.file.read_exact_at(buffer, offset);
        }
        bounced(buffer.len(), |bounce| {
            for (at, piece) in (offset..).step_by(BOUNCE).zip(buffer.chunks_mut(BOUNCE)) {
                let aligned = &mut bounce[..piece.len()];
                self.file.read_exact_at(aligned, at)?;
                piece.copy_from_slice(aligned);
            }
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if is_aligned(bytes) {
            return self.file.write_all_at(bytes, offset);
        }
        bounced(bytes.len(), |bounce| {
            for (at, piece) in (offset..).step_by(BOUNCE).zip(bytes.chunks(BOUNCE)) {
                let aligned = &mut bounce[..piece.len()];
                aligned.copy_from_slice(piece);
                self.file.write_all_at(aligned, at)?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Size in bytes of an open block device or file.
pub fn size(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Writes `bytes` at `offset` of a block device and flushes its write cache.
pub fn write_durably(device: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    device.write_all_at(bytes, offset)?;
    device.sync_all()
}

/// Tells the kernel that partition `number` of the disk lies at these bytes. Unlike reading the
/// table again this works while other partitions of the disk are in use.
pub fn add_partition(disk: &File, number: i32, start: u64, len: u64) -> io::Result<()> {
    partition_ioctl(disk, ADD_PARTITION, number, start, len)
}

/// Tells the kernel that partition `number`, which lies at `start`, is now `len` bytes long.
pub fn resize_partition(disk: &File, number: i32, start: u64, len: u64) -> io::Result<()> {
    partition_ioctl(disk, RESIZE_PARTITION, number, start, len)
}

// linux/blkpg.h
const ADD_PARTITION: i32 = 1;
const RESIZE_PARTITION: i32 = 3;

/// `struct blkpg_partition`.
#[repr(C)]
struct PartitionArgument {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut PartitionArgument,
}

fn partition_ioctl(
    disk: &File,
    operation: i32,
    number: i32,
    start: u64,
    len: u64,
) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = PartitionArgument {
        start: i64::try_from(start).map_err(too_large)?,
        length: i64::try_from(len).map_err(too_large)?,
        number,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = Argument {
        operation,
        flags: 0,
        length: size_of::<PartitionArgument>() as i32,
        data: ptr::from_mut(&mut partition),
    };
    // SAFETY: BLKPG takes a `struct blkpg_ioctl_arg` that points to a `struct blkpg_partition`;
    // `partition` outlives the call.
    let request = unsafe { Setter::<{ opcode::none(0x12, 105) }, Argument>::new(argument) };
    // SAFETY: the same.
    Ok(unsafe { ioctl(disk, request) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_block_is_read_back_and_its_neighbours_stay() {
        let path = std::env::temp_dir().join(format!("berth-block-{}", std::process::id()));
        std::fs::write(&path, [7; 3 * BLOCK]).expect("a file");
        let device = Direct::open(&path, true).expect("open");
        device.write_at(BLOCK as u64, &[9; BLOCK]).expect("write");
        device.flush().expect("flush");
        let firsts = [0, 1, 2].map(|i| device.read(i * BLOCK as u64).expect("read").0[0]);
        assert_eq!((firsts, device.size()), ([7, 9, 7], 3 * BLOCK as u64));
        let many: Vec<u8> = (0..BOUNCE + 3 * BLOCK).map(|i| (i / 100) as u8).collect();
        std::fs::write(&path, vec![0; many.len()]).expect("a larger file");
        let device = Direct::open(&path, true).expect("open");
        device.write_at(0, &many).expect("write");
        // Whether the bytes lie right for direct I/O or not.
        let mut aligned = Buffer::new(many.len() + BLOCK);
        for start in [0, 1] {
            let read = &mut aligned[start..][..many.len()];
            device.read_at(0, read).expect("read");
            assert!(read == many);
            read.reverse();
            device.write_at(0, read).expect("write");
            device.read_at(0, read).expect("read");
            assert!(read.iter().rev().eq(&many));
            device.write_at(0, &many).expect("write");
        }
        std::fs::write(&path, [7; 3 * BLOCK]).expect("a file");
        assert_eq!(size(&mut File::open(&path).expect("open")).expect("size"), 3 * BLOCK as u64);
        std::fs::remove_file(&path).expect("remove");
    }

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<PartitionArgument>(), 152);
        assert_eq!(size_of::<Argument>(), 24);
    }
}
