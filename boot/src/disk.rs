//! The disk that this program was loaded from, and no other.

use crate::firmware::{Firmware, PAGE, call, check};
use contract::gpt::Guid;
use core::fmt;
use core::ptr::NonNull;
use picker::device_path::{self, END, Partition};
use picker::machine::Fault;
use uefi_raw::protocol::block::{BlockIoMedia, BlockIoProtocol};
use uefi_raw::protocol::device_path::DevicePathProtocol;

/// No firmware has a longer device path.
const MAX_PATH: usize = 2048;

/// The disk that holds the partition that this program was loaded from.
pub struct OwnDisk {
    io: NonNull<BlockIoProtocol>,
    media: BlockIoMedia,
    partition: Option<Guid>,
}

/// Why the disk was not found.
pub enum NoDisk {
    /// Firmware does not tell where this program comes from.
    Origin(Fault),
    /// It comes from something else than a partition of a disk.
    NotAPartition,
    /// The partition is there and its disk is not.
    Disk(Fault),
    /// The disk wants buffers that lie on larger boundaries than pages.
    Alignment(u32),
}

impl fmt::Display for NoDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoDisk::Origin(fault) => {
                write!(f, "firmware does not tell where it loaded from: {fault}")
            }
            NoDisk::NotAPartition => f.write_str("not loaded from a partition of a disk"),
            NoDisk::Disk(fault) => write!(f, "disk of the own partition: {fault}"),
            NoDisk::Alignment(bytes) => write!(f, "disk wants buffers aligned to {bytes} bytes"),
        }
    }
}

impl OwnDisk {
    /// Finds it by the device path of the own partition.
    pub fn find(firmware: Firmware) -> Result<OwnDisk, NoDisk> {
        let device = firmware.own_device().map_err(NoDisk::Origin)?;
        let path = firmware
            .protocol::<DevicePathProtocol>(device, &DevicePathProtocol::GUID)
            .map_err(NoDisk::Origin)?;
        let mut copy = [0; MAX_PATH];
        // SAFETY: firmware keeps the path of a handle, and ends it with an end node.
        let path = unsafe { read_path(path, &mut copy) }.ok_or(NoDisk::NotAPartition)?;
        let Partition { disk, guid } = device_path::partition(path).ok_or(NoDisk::NotAPartition)?;
        let mut of_disk = [0; MAX_PATH];
        of_disk[..disk.len()].copy_from_slice(disk);
        // A partition's path is longer than its disk's by more than an end node.
        of_disk[disk.len()..disk.len() + END.len()].copy_from_slice(&END);
        // SAFETY: it ends with the end node above.
        let (handle, rest) =
            unsafe { firmware.locate(&BlockIoProtocol::GUID, of_disk.as_ptr().cast()) }
                .map_err(NoDisk::Disk)?;
        // SAFETY: the rest is a part of our own path, and begins with a node.
        if !device_path::is_end(&[unsafe { rest.cast::<u8>().read() }]) {
            // Only something further up the path, like a controller, has block I/O.
            return Err(NoDisk::Disk(Fault::NOT_FOUND));
        }
        let io = firmware
            .protocol::<BlockIoProtocol>(handle, &BlockIoProtocol::GUID)
            .map_err(NoDisk::Disk)?;
        // SAFETY: that GUID stands for that type, which firmware keeps as long as the disk.
        let media = unsafe { *io.as_ref().media };
        if media.io_align > PAGE as u32 {
            return Err(NoDisk::Alignment(media.io_align));
        }
        Ok(OwnDisk { io, media, partition: guid })
    }

    /// Identity of the partition that this program was loaded from.
    pub const fn partition(&self) -> Option<Guid> {
        self.partition
    }

    pub const fn sector_size(&self) -> u32 {
        self.media.block_size
    }

    pub const fn sectors(&self) -> u64 {
        self.media.last_block.saturating_add(1)
    }

    pub fn read(&mut self, lba: u64, out: &mut [u8]) -> Result<(), Fault> {
        let (io, id) = (self.io.as_ptr(), self.media.media_id);
        let (len, out) = (out.len(), out.as_mut_ptr().cast());
        // SAFETY: the protocol is valid, the buffer has that length. Firmware refuses what is
        // outside of the disk, not whole sectors or not aligned.
        check(call(|| unsafe { ((*io).read_blocks)(io, id, lba, len, out) }))
    }

    pub fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), Fault> {
        let (io, id) = (self.io.as_ptr(), self.media.media_id);
        let (len, bytes) = (bytes.len(), bytes.as_ptr().cast());
        // SAFETY: as above.
        check(call(|| unsafe { ((*io).write_blocks)(io, id, lba, len, bytes) }))
    }

    pub fn flush(&mut self) -> Result<(), Fault> {
        let io = self.io.as_ptr();
        // SAFETY: as above.
        check(call(|| unsafe { ((*io).flush_blocks)(io) }))
    }
}

/// Copies a device path, its end node included; `None` when it is too long.
///
/// # Safety
///
/// `path` is a device path that ends with an end node.
unsafe fn read_path(path: NonNull<DevicePathProtocol>, copy: &mut [u8]) -> Option<&[u8]> {
    let path: NonNull<u8> = path.cast();
    let mut at = 0;
    loop {
        // SAFETY: a node is at `at`, and a node has at least these four bytes.
        let head: [u8; 4] = unsafe { path.byte_add(at).cast().read_unaligned() };
        let len = usize::from(u16::from_le_bytes([head[2], head[3]])).max(head.len());
        let node = copy.get_mut(at..at + len)?;
        // SAFETY: the node has that length.
        unsafe { path.byte_add(at).copy_to_nonoverlapping(NonNull::from(&mut *node).cast(), len) };
        at += len;
        if device_path::is_end(&head) {
            return copy.get(..at);
        }
    }
}
