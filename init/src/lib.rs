//! PID 1 of a Berth host.
//!
//! One static program with three roles: `/init` of the initramfs, PID 1 of the real root, and
//! `modprobe` for the kernel. It is a library for its fuzz targets alone: [`untrusted`].

mod boot_log;
mod boot_state;
mod cgroup;
mod clock;
mod cmdline;
mod data_disk;
mod debug_shell;
mod disk;
mod error;
mod ext4;
mod failure;
mod handover;
mod host_config;
mod identity;
mod layers;
mod log;
mod modules;
mod mounts;
mod network;
mod panic_record;
mod power;
mod preload;
mod random;
mod registry;
mod root;
mod runtime;
mod screen;
mod serve;
mod shutdown;
mod stages;
mod supervisor;
mod sysctl;
mod table;
mod tool;
mod trial;
mod trim;
mod uefi;
pub mod untrusted;
mod var;
mod verity;
mod watchdog;
mod workload;
mod writable;

use std::process::ExitCode;
use std::time::Duration;

/// How late timers may be where the processor is emulated: a tick of Debian's kernel. Programs in Go wake
/// their own threads after 20 us, over and over, and an interrupt costs an emulator as much as a thousand
/// instructions.
const EMULATED_SLACK: Duration = Duration::from_millis(4);

/// Does what its name and its number ask for.
pub fn run() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    match (name.rsplit('/').next().unwrap_or_default(), std::process::id()) {
        ("modprobe", _) => modules::modprobe(&arguments.collect::<Vec<_>>()).into(),
        (_, 1) => boot(&name),
        _ => {
            eprintln!("error: {name} is PID 1 of a Berth host and does nothing else");
            ExitCode::from(2)
        }
    }
}

fn boot(name: &str) -> ! {
    failure::catch_panics();
    if sys::processor::is_emulated() {
        // If not, timers are as precise as they are elsewhere, and all is slower.
        let _ = sys::clock::set_timer_slack(EMULATED_SLACK);
    }
    // The kernel starts `/init` of an initramfs by this name; the real root's lies elsewhere.
    let Err(error) = if name == "/init" { stages::initramfs() } else { stages::real_root() };
    failure::fail(&error)
}
