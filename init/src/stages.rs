//! The boot, top to bottom. Each stage is named; what fails says in which one.

use crate::boot_state::BootState;
use crate::cmdline::Cmdline;
use crate::disk;
use crate::error::{Error, On};
use crate::handover::Boot;
use crate::modules::{self, Modules};
use crate::uefi::Picked;
use crate::var::{self, Var};
use crate::{failure, host_config, identity, log, mounts, root};
use contract::host_config::HostConfig;
use contract::layout::Partition;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use sys::uevent::{Uevent, Uevents};

/// This program in the real root.
const NEXT: &str = "/usr/lib/berth/init";

/// What the initramfs cannot do without, where it is not built in.
const FIRST_MODULES: [&str; 3] = ["efivarfs", "dm-verity", "ext4"];

/// PID 1 in the initramfs: from nothing to the verified root.
pub fn initramfs() -> Result<Infallible, Error> {
    stage("mount the kernel's filesystems", mounts::first)?;
    log::unlimited();
    let cmdline = stage("read the kernel command line", Cmdline::read)?;
    let mut modules = stage("load modules", || {
        let mut modules = Modules::open()?;
        modules.load_always(&FIRST_MODULES)?;
        Ok(modules)
    })?;
    let picked = stage("read what the slot picker says", || {
        mounts::firmware_variables()?;
        Ok(Picked::read())
    })?;
    let disk = stage("find the disk", || disk::find(&mut modules, picked.esp))?;
    stage("open the boot state", || {
        failure::know(&BootState::at(Path::new(disk.device(Partition::State)?)), picked.slot);
        Ok(())
    })?;
    let root_slot = stage("mount the root filesystem", || {
        root::mount_root(&disk, &cmdline.root_hash()?, picked.slot)
    })?;
    stage("enter the root filesystem", || {
        Boot { slot: picked.slot, root_slot, disk }.store()?;
        drop(modules);
        mounts::move_to(root::MOUNT_POINT)?;
        sys::mount::switch_root(root::MOUNT_POINT).on("change to", root::MOUNT_POINT)?;
        Err(Command::new(NEXT).exec()).on("start", NEXT)
    })
}

/// A host whose disks and configuration are ready.
pub struct Host {
    /// How it was started.
    pub boot: Boot,
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// Boot record and boot journal.
    pub state: BootState,
    /// What became of `/var`. Nothing that keeps anything may start unless it is ready.
    pub var: Var,
    /// What this host is told.
    pub config: HostConfig,
}

/// PID 1 in the real root.
pub fn real_root() -> Result<Infallible, Error> {
    let boot = stage("take over from the initramfs", Boot::load)?;
    let state = stage("open the boot state", || {
        let state = BootState::at(Path::new(boot.disk.device(Partition::State)?));
        failure::know(&state, boot.slot);
        Ok(state)
    })?;
    let cmdline = stage("read the kernel command line", Cmdline::read)?;
    stage("mount the kernel's other filesystems", mounts::second)?;
    stage("load modules for this machine", || load_modules(&boot, &state))?;
    let var = stage("prepare /var", || var::mount_var(&boot.disk, &state, boot.slot))?;
    let var_keeps = matches!(var, Var::Ready { .. });
    let config =
        stage("read the host configuration", || Ok(host_config::load(&boot.disk, var_keeps)))?;
    stage("take an identity", || {
        identity::set_machine_id(var_keeps)?;
        identity::set_hostname(config.hostname.as_deref().unwrap_or(identity::DEFAULT_HOSTNAME))
    })?;
    serve(Host { boot, cmdline, state, var, config })
}

/// Network, clock, runtime, workloads, supervision.
fn serve(host: Host) -> Result<Infallible, Error> {
    let slot = host.boot.slot.map_or("-", contract::Slot::name);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory: String = status.lines().filter(|line| line.starts_with("VmRSS")).collect();
    log::line(&format!(
        "storage is ready: slot={slot} root={} var={:?} shell={} hostname={:?} {memory}",
        host.boot.root_slot,
        host.var,
        host.cmdline.has(contract::layout::CMDLINE_DEBUG_SHELL),
        host.config.hostname,
    ));
    host.mark_healthy()?;
    loop {
        std::thread::park();
    }
}

impl Host {
    /// Everything that was asked for runs: ends the trial of the slot that was started.
    pub fn mark_healthy(&self) -> Result<(), Error> {
        let Some(slot) = self.boot.slot else { return Ok(()) };
        if self.state.mark_healthy(slot)? {
            log::line(&format!("slot {slot} is healthy"));
            self.state.journal(Some(slot), "healthy")?;
        }
        Ok(())
    }
}

fn load_modules(boot: &Boot, state: &BootState) -> Result<(), Error> {
    let path = "/proc/sys/kernel/modprobe";
    std::fs::write(path, "/usr/sbin/modprobe").on("write", path)?;
    // Opened before the first look, so that no device is missed between look and listening.
    let uevents = Uevents::open().on("listen to", "the kernel's device events")?;
    let mut modules = Modules::open()?;
    modules.load_always(&host_config::MODULES)?;
    modules.coldplug();
    let (state, slot) = (state.clone(), boot.slot);
    modules::follow(uevents, move |event| note_corruption(event, &state, slot));
    Ok(())
}

/// A block of the root that does not match its hash: the program that needed it gets an I/O error
/// and is started again; here it is only made known.
fn note_corruption(event: &Uevent, state: &BootState, slot: Option<contract::Slot>) {
    /// Enough to know; the journal is a ring that holds other things too.
    const MOST: u32 = 8;
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let Some(block) = event.get("DM_VERITY_ERR_BLOCK_NR") else { return };
    if SEEN.fetch_add(1, Ordering::Relaxed) >= MOST {
        return;
    }
    // `0,17` is data block 17, `1,3` is block 3 of the hash tree.
    let text = format!("the root filesystem is corrupt: block {block}");
    log::warning(&text);
    if let Err(e) = state.journal(slot, &text) {
        log::warning(&crate::error::chain(&e));
    }
}

fn stage<T>(name: &'static str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let result = work().map_err(|source| Error::Stage { stage: name, source: Box::new(source) })?;
    // Seconds since the kernel started.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    log::detail(&format!("{name}: done at {}", uptime.split(' ').next().unwrap_or("?")));
    Ok(result)
}
