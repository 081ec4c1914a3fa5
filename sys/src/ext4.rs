//! The one thing that ext4 is asked to do while it is mounted.

use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::File;
use std::io;

/// Grows the mounted filesystem that `folder` lies on to `blocks` blocks of its own block size.
pub fn grow(folder: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS is _IOW('f', 16, __u64) and takes a number of blocks.
    let request = unsafe { Setter::<{ opcode::write::<u64>(b'f', 16) }, u64>::new(blocks) };
    // SAFETY: the same; another filesystem answers ENOTTY.
    Ok(unsafe { ioctl(folder, request) }?)
}
