//! Mounting, and changing to another root.

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a mount forbids. `Default` forbids nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// No writes.
    pub read_only: bool,
    /// Set-user-ID bits do nothing.
    pub no_suid: bool,
    /// Device nodes do nothing.
    pub no_dev: bool,
    /// No programs are started from it.
    pub no_exec: bool,
    /// Reading does not write access times.
    pub no_atime: bool,
}

impl Limits {
    /// For filesystems of the kernel itself, which hold no programs and no device nodes.
    pub const KERNEL: Limits =
        Limits { read_only: false, no_suid: true, no_dev: true, no_exec: true, no_atime: false };

    fn flags(self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, self.no_suid);
        flags.set(MountFlags::NODEV, self.no_dev);
        flags.set(MountFlags::NOEXEC, self.no_exec);
        flags.set(MountFlags::NOATIME, self.no_atime);
        flags
    }
}

/// Mounts `source` of type `kind` on the existing directory `target`. `data` are the options of
/// that filesystem, separated by commas.
pub fn mount(source: &str, target: &str, kind: &str, limits: Limits, data: &str) -> io::Result<()> {
    let data = CString::new(data)?;
    Ok(rustix::mount::mount(source, target, kind, limits.flags(), data.as_c_str())?)
}

/// Gives the folder `target` a mount of its own with other limits than those of the filesystem that
/// it lies on.
pub fn bind_with(target: &str, limits: Limits) -> io::Result<()> {
    rustix::mount::mount_bind(target, target)?;
    // The kernel takes limits of a bind mount in a second step only.
    Ok(rustix::mount::mount_remount(target, MountFlags::BIND | limits.flags(), c"")?)
}

/// Unmounts `target`, at once and for good. `Busy` when something still uses it.
pub fn unmount(target: &str) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Takes `target` out of sight; it is unmounted when its last user is gone.
pub fn detach(target: &str) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

/// Forbids writing to the filesystem mounted at `target`, upon which it is clean on its disk.
/// `Busy` when a file of it is open for writing.
pub fn make_read_only(target: &str) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(target, MountFlags::RDONLY, c"")?)
}

/// Makes what is mounted at `target` and below appear wherever it is bound to, with what will be
/// mounted there later. The kernel's own default is that each mount keeps to itself.
pub fn make_shared(target: &str) -> io::Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(target, flags)?)
}

/// Moves the mount at `from` to the directory `to`.
pub fn move_mount(from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::mount::mount_move(from, to)?)
}

/// Makes the mount at `new_root` the root of this process, deletes what the old root held (the
/// memory of an initramfs) and goes to `/`. Mounts to keep are moved below `new_root` before.
///
/// Only for PID 1 on an initramfs: it refuses when the old root is not a `rootfs`.
pub fn switch_root(new_root: &str) -> io::Result<()> {
    // RAMFS_MAGIC and TMPFS_MAGIC of linux/magic.h: deleting anything else would be a disaster.
    let kind = rustix::fs::statfs("/")?.f_type;
    if kind != 0x8584_58f6 && kind != 0x0102_1994 {
        return Err(io::Error::other("the root is not an initramfs"));
    }
    rustix::process::chdir(new_root)?;
    let device = fs::metadata("/")?.dev();
    delete_contents(Path::new("/"), device);
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Deletes what lies below `folder` on `device`. What cannot be deleted only costs memory.
fn delete_contents(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            delete_contents(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
