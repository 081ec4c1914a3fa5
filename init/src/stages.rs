//! The boot, top to bottom. Each stage is named; what fails says in which one.

use crate::boot_state::{self, BootState};
use crate::cmdline::Cmdline;
use crate::disk::{self, Disk};
use crate::error::{Error, On, chain};
use crate::handover::Boot;
use crate::modules::{self, Modules};
use crate::runtime::Runtime;
use crate::serve::{self, Care};
use crate::supervisor::{Supervisor, TaskId};
use crate::uefi::Picked;
use crate::var::{self, Var};
use crate::{
    boot_log, cgroup, clock, failure, host_config, identity, log, mounts, panic_record, root,
    watchdog, writable,
};
use contract::Slot;
use contract::handover::LAST_PANIC;
use contract::host_config::HostConfig;
use contract::layout::{CMDLINE_DEBUG_SHELL, CMDLINE_ROOT_HASH, CMDLINE_VERSION, Partition};
use contract::trailer::Trailer;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use sys::uevent::{Uevent, Uevents};

/// This program in the real root.
const NEXT: &str = "/usr/lib/berth/init";

/// What the initramfs cannot do without, where it is not built in.
const FIRST_MODULES: [&str; 3] = ["efivarfs", "dm-verity", "ext4"];

/// What the network's settings cannot do without, where it is not built in; the rest of the modules
/// may still be on their way then.
const NETWORK_MODULES: [&str; 1] = ["br_netfilter"];

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
    stage("arm the watchdog", || {
        modules.coldplug();
        watchdog::arm();
        Ok(())
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
        let mut next = Command::new(NEXT);
        watchdog::hand_over(&mut next)?;
        // Blocks of it that do not match the root hash fail to be read, now and at each restart.
        Err(Error::NoStart { program: NEXT, source: next.exec() })
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
    watchdog::take_over();
    // Before there is a second thread, which would take signals away from the first.
    let mut supervisor = stage("listen to signals", Supervisor::new)?;
    let boot = stage("take over from the initramfs", Boot::load)?;
    let state = stage("open the boot state", || {
        let state = BootState::at(Path::new(boot.disk.device(Partition::State)?));
        failure::know(&state, boot.slot);
        Ok(state)
    })?;
    let cmdline = stage("read the kernel command line", Cmdline::read)?;
    stage("mount the kernel's other filesystems", mounts::second)?;
    stage("set up control groups", cgroup::set_up)?;
    let modules = stage("begin to load modules for this machine", || {
        load_modules(&boot, &state, &mut supervisor)
    })?;
    stage("load modules that the host configuration needs", || {
        modules::load_now(&host_config::MODULES)
    })?;
    let heard = stage("read the host configuration", || Ok(host_config::hear(&boot.disk)))?;
    let var =
        stage("prepare /var", || var::mount_var(&boot.disk, heard.data(), &state, boot.slot))?;
    let var_keeps = matches!(var, Var::Ready { .. });
    if var_keeps {
        stage("let containers bring programs", || var::bring(&Runtime::detect()?.folders()?))?;
        if let Err(e) = begin_log(&cmdline, boot.slot) {
            log::warning(&chain(&e));
        }
    }
    stage("ask how the last boot ended", || tell_of_panic(&state, var_keeps))?;
    stage("load modules that the network needs", || modules::load_now(&NETWORK_MODULES))?;
    let config = stage("settle the host configuration", || Ok(heard.settle(var_keeps)))?;
    let named: Vec<&str> = config.kernel.modules.iter().map(String::as_str).collect();
    if !named.is_empty() {
        stage("load modules that the host configuration names", || {
            modules::load_named(&named);
            Ok(())
        })?;
    }
    stage("make folders of the root writable", || {
        if var_keeps { writable::mount_all() } else { Ok(()) }
    })?;
    stage("take an identity", || {
        identity::set_machine_id(var_keeps)?;
        identity::set_hostname(config.hostname.as_deref().unwrap_or(identity::DEFAULT_HOSTNAME))
    })?;
    serve(Host { boot, cmdline, state, var, config }, modules, supervisor)
}

/// Network, clock, runtime, workloads: everything at once, until told to stop.
fn serve(host: Host, modules: Option<TaskId>, supervisor: Supervisor) -> Result<Infallible, Error> {
    stage("set the clock forward", clock::apply_floor)?;
    if let Err(e) = host_config::hand_to_updater(&host.config) {
        log::warning(&chain(&e));
    }
    let version = host.cmdline.value(CMDLINE_VERSION).unwrap_or("unknown").to_owned();
    let asked = serve::Host {
        slot: host.boot.slot,
        image: host.cmdline.value(CMDLINE_ROOT_HASH).unwrap_or(&version).to_owned(),
        version,
        config: host.config.clone(),
        var_problem: match &host.var {
            Var::Ready { .. } => None,
            Var::Unusable(why) => Some(why.clone()),
        },
        debug_shell: host.cmdline.has(CMDLINE_DEBUG_SHELL),
    };
    serve::run(&asked, modules, supervisor, &mut Keeper { host })
}

/// Who is told how the boot goes: the watchdog and the boot record.
struct Keeper {
    host: Host,
}

impl Care for Keeper {
    fn modules_loaded(&mut self) {
        // One whose driver is not in the initramfs.
        watchdog::arm();
    }

    fn alive(&mut self) {
        watchdog::alive();
    }

    fn is_on_trial(&self) -> bool {
        let on_trial = self.host.boot.slot.map(|slot| self.host.state.is_on_trial(slot));
        matches!(on_trial, Some(Ok(true)))
    }

    fn healthy(&mut self) {
        if let Err(e) = self.host.mark_healthy() {
            log::warning(&chain(&e));
        }
    }

    /// A slot on trial has failed it; one that was healthy before goes on trying.
    fn overdue(&mut self, why: &str) {
        if self.is_on_trial() {
            failure::fail(&Error::Overdue(why.to_owned()));
        }
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
        if self.state.rebuild(slot, || trailers(&self.boot.disk))? {
            log::line("the boot record was lost and is written anew");
            self.state.journal(Some(slot), "healthy; the boot record was lost and written anew")?;
        }
        Ok(())
    }
}

fn begin_log(cmdline: &Cmdline, slot: Option<Slot>) -> Result<(), Error> {
    let version = cmdline.value(CMDLINE_VERSION).unwrap_or("unknown");
    let slot = slot.map_or("-", Slot::name);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    boot_log::begin(&format!("version {version} in slot {slot}; seconds since 1970 UTC: {time}"))
}

/// Makes known, and keeps for the updater, what the firmware kept of a kernel that panicked.
fn tell_of_panic(state: &BootState, var_keeps: bool) -> Result<(), Error> {
    let taken = panic_record::take().unwrap_or_else(|e| {
        log::warning(&chain(&e));
        None
    });
    let Some(lines) = taken else { return Ok(()) };
    let text = format!("the kernel panicked: {}", panic_record::reason(&lines));
    log::warning(&text);
    if let Err(e) = state.journal(None, &text) {
        log::warning(&chain(&e));
    }
    if var_keeps {
        let words = (lines.join("\n") + "\n").into_bytes();
        sys::file::replace(Path::new(LAST_PANIC), &words, 0o600).on("write", LAST_PANIC)?;
    }
    Ok(())
}

/// What the boot partitions say of themselves.
fn trailers(disk: &Disk) -> [Option<Trailer>; 2] {
    Slot::ALL.map(|slot| match boot_state::trailer(disk.device(Partition::Boot(slot)).ok()?) {
        Ok(trailer) => trailer,
        Err(e) => {
            log::warning(&chain(&e));
            None
        }
    })
}

/// Starts what loads the modules for this machine. The boot goes on beside it; dockerd waits for its
/// end.
fn load_modules(
    boot: &Boot,
    state: &BootState,
    supervisor: &mut Supervisor,
) -> Result<Option<TaskId>, Error> {
    // Opened before the first look, so that no device is missed between look and listening.
    let uevents = Uevents::open().on("listen to", "the kernel's device events")?;
    let all = modules::all()?;
    let task = supervisor.run("modules", &all, modules::BOUND).inspect_err(|e| {
        log::warning(&chain(e));
    });
    let (state, slot) = (state.clone(), boot.slot);
    let mut noted = Vec::new();
    modules::follow(uevents, move |event| note_corruption(event, &mut noted, &state, slot));
    Ok(task.ok())
}

/// A block of the root that does not match its hash: the program that needed it gets an I/O error
/// and is started again; here it is only made known.
fn note_corruption(event: &Uevent, noted: &mut Vec<String>, state: &BootState, slot: Option<Slot>) {
    /// Enough to know; the journal is a ring that holds other things too.
    const MOST: usize = 8;
    let Some(block) = event.get("DM_VERITY_ERR_BLOCK_NR") else { return };
    if noted.len() == MOST || noted.iter().any(|known| known == block) {
        return;
    }
    noted.push(block.to_owned());
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
