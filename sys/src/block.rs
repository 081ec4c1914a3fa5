//! Block devices: sizes, partitions, and writes that are on the disk when they return.

use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr;

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

/// A block device, or a file in its place, opened so that reads see the disk and not the page
/// cache, and writes are durable when they return.
#[derive(Debug)]
pub struct Direct {
    file: File,
}

impl Direct {
    /// Opens `path`. Where direct I/O is not to be had, reads may come from the page cache; writes
    /// are durable all the same.
    pub fn open(path: &Path, writable: bool) -> io::Result<Direct> {
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(writable)
                .custom_flags(flags.bits() as i32)
                .open(path)
        };
        let file = match open(OFlags::DIRECT) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => open(OFlags::empty()),
            other => other,
        };
        Ok(Direct { file: file? })
    }

    /// Reads the block at byte `offset`, a multiple of [`BLOCK`].
    pub fn read(&self, offset: u64) -> io::Result<Block> {
        let mut block = Block::ZERO;
        self.file.read_exact_at(&mut block.0, offset)?;
        Ok(block)
    }

    /// Writes the block at byte `offset`, a multiple of [`BLOCK`], and flushes the device's write
    /// cache.
    pub fn write(&self, offset: u64, block: &Block) -> io::Result<()> {
        self.file.write_all_at(&block.0, offset)?;
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
        device.write(BLOCK as u64, &Block([9; BLOCK])).expect("write");
        let firsts = [0, 1, 2].map(|i| device.read(i * BLOCK as u64).expect("read").0[0]);
        assert_eq!(firsts, [7, 9, 7]);
        assert_eq!(size(&mut File::open(&path).expect("open")).expect("size"), 3 * BLOCK as u64);
        std::fs::remove_file(&path).expect("remove");
    }

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<PartitionArgument>(), 152);
        assert_eq!(size_of::<Argument>(), 24);
    }
}
