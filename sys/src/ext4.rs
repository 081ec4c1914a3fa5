//! What ext4 is asked to do while it is mounted.

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::ioctl::{Setter, Updater, ioctl, opcode};
use std::fs::File;
use std::io;

/// Grows the mounted filesystem that `folder` lies on to `blocks` blocks of its own block size.
pub fn grow(folder: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS is _IOW('f', 16, __u64) and takes a number of blocks.
    let request = unsafe { Setter::<{ opcode::write::<u64>(b'f', 16) }, u64>::new(blocks) };
    // SAFETY: the same; another filesystem answers ENOTTY.
    Ok(unsafe { ioctl(folder, request) }?)
}

/// Has the filesystem's journal hold the content of `file` as well: it is on the disk before all that is
/// done to files later. What is made in a folder gets it from there.
pub fn journal_content(file: &File) -> io::Result<()> {
    let flags = ioctl_getflags(file)?;
    if !flags.contains(IFlags::JOURNALING) {
        ioctl_setflags(file, flags | IFlags::JOURNALING)?;
    }
    Ok(())
}

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
    min_len: u64,
}

/// Tells the disk below the mounted filesystem that `folder` lies on which of these bytes hold
/// nothing. Returns how many that were. `Unsupported` where the disk does not want to know.
pub fn trim(folder: &File, start: u64, len: u64) -> io::Result<u64> {
    let mut range = Range { start, len, min_len: 0 };
    // SAFETY: FITRIM is _IOWR('X', 121, struct fstrim_range); `range` outlives the call.
    let request =
        unsafe { Updater::<{ opcode::read_write::<Range>(b'X', 121) }, Range>::new(&mut range) };
    // SAFETY: the same.
    unsafe { ioctl(folder, request) }?;
    Ok(range.len)
}
