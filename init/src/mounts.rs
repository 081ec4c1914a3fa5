//! The filesystems of the kernel that every program expects.

use crate::error::{Error, On};
use crate::log;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};
use sys::mount::{Limits, make_shared, mount, move_mount};

struct Mount {
    kind: &'static str,
    target: &'static str,
    limits: Limits,
    data: &'static str,
    /// Kernels may be built without it.
    optional: bool,
}

const fn required(
    kind: &'static str,
    target: &'static str,
    limits: Limits,
    data: &'static str,
) -> Mount {
    Mount { kind, target, limits, data, optional: false }
}

const fn optional(kind: &'static str, target: &'static str, data: &'static str) -> Mount {
    Mount { kind, target, limits: Limits::KERNEL, data, optional: true }
}

/// Device nodes are what it is for.
const DEV: Limits = Limits { no_dev: false, ..Limits::KERNEL };
/// Memory for files, none of which is a program.
const MEMORY: Limits = Limits::KERNEL;

/// In the initramfs; they move on to the real root.
const FIRST: [Mount; 4] = [
    required("proc", "/proc", Limits::KERNEL, ""),
    required("sysfs", "/sys", Limits::KERNEL, ""),
    required("devtmpfs", "/dev", DEV, "mode=755"),
    required("tmpfs", "/run", MEMORY, "mode=755,size=20%,nr_inodes=800k"),
];

/// In the real root. cgroup2 is mounted where cgroups are set up.
const SECOND: [Mount; 9] = [
    required("devpts", "/dev/pts", DEV, "gid=5,mode=620,ptmxmode=666"),
    required("tmpfs", "/dev/shm", MEMORY, "mode=1777"),
    required("tmpfs", "/tmp", MEMORY, "mode=1777,size=50%"),
    optional("mqueue", "/dev/mqueue", ""),
    optional("pstore", "/sys/fs/pstore", ""),
    optional("securityfs", "/sys/kernel/security", ""),
    optional("tracefs", "/sys/kernel/tracing", "mode=700"),
    optional("bpf", "/sys/fs/bpf", "mode=700"),
    optional("fusectl", "/sys/fs/fuse/connections", ""),
];

const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// Mounts what the initramfs needs.
pub fn first() -> Result<(), Error> {
    mount_all(&FIRST)
}

/// Mounts what only the real root needs.
pub fn second() -> Result<(), Error> {
    // Containers may ask to see what is mounted later (`-v /mnt:/mnt:rslave`), volume plugins and
    // kubelets mount for others.
    make_shared("/").on("share the mounts below", "/")?;
    mount_all(&SECOND)?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/core", "/proc/kcore"),
    ] {
        if !Path::new(link).exists() {
            std::os::unix::fs::symlink(target, link).on("link", link)?;
        }
    }
    fs::create_dir_all("/run/lock").on("make", "/run/lock")
}

/// Mounts the variables of the firmware, where there is UEFI firmware.
pub fn firmware_variables() -> Result<(), Error> {
    if !Path::new("/sys/firmware/efi").exists() {
        return Ok(());
    }
    mount_all(&[optional("efivarfs", EFIVARS, "")])
}

/// Moves what [`first`] mounted below `root`, the next root.
pub fn move_to(root: &str) -> Result<(), Error> {
    for Mount { target, .. } in &FIRST {
        move_mount(target, &format!("{root}{target}")).on("move the mount", target)?;
    }
    Ok(())
}

/// Another thread may start a program at any time, and until that has begun it holds every file that was
/// open then.
const FREE_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Unmounts what nobody holds for long. What is held all the same is taken out of sight, and unmounted
/// when it is let go of.
pub fn unmount(target: &str) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        match sys::mount::unmount(target) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < FREE_WITHIN => {
                thread::sleep(LOOK);
            }
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                log::warning(&format!("{target} is still in use"));
                return sys::mount::detach(target).on("detach", target);
            }
            other => return other.on("unmount", target),
        }
    }
}

fn mount_all(mounts: &[Mount]) -> Result<(), Error> {
    for Mount { kind, target, limits, data, optional } in mounts {
        // Below sysfs and on a read-only root the folder is there already, or cannot be made.
        let _ = fs::create_dir_all(target);
        match mount(kind, target, kind, *limits, data).on("mount", target) {
            Err(e) if *optional => log::detail(&crate::error::chain(&e)),
            other => other?,
        }
    }
    Ok(())
}
