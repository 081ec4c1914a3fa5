//! First boots, from QEMU's start, by this machine's clock, and memory.

use e2e::published::{Published, release};
use e2e::*;
use std::path::Path;

const BOOTS: usize = 3;

pub fn figures() {
    let init = berth().with_file_name("guest").join("init");
    println!("  init: {} bytes", std::fs::metadata(init).expect("init").len());
    for (name, image) in [("containerd", containerd_image()), ("docker", demo_image())] {
        boots(name, image);
    }
    idle_agent();
}

/// The memory of the agent that follows a repository: when it has looked and found nothing newer, and
/// when it has installed a release by a patch and waits until somebody restarts the host.
fn idle_agent() {
    let repository = Published::new();
    let image = release("1.0.0", &[]);
    repository.add(&image);
    let disk = repository.disk(&image, "interval = 5\nreboot = \"manual\"");
    let (mut host, _) = boot(&qemu::Config { cpus: 2, ..disk.config() });
    let memory = "busybox grep -E 'VmRSS|VmHWM' /proc/$(busybox pidof berth-updater)/status";
    let mut show = |what: &str, state: &str| {
        sh_until(&mut host, "berth-updater status", |text| text.contains(state));
        let memory = sh(&mut host, memory);
        println!("  updater, {what}: {}", memory.split_whitespace().collect::<Vec<_>>().join(" "));
    };
    show("nothing newer", "names 1.0.0, looked at 2");
    repository.add_with(&release("2.0.0", &[]), &["--channel", "stable"]);
    show("2.0.0 installed", "waiting 2.0.0");
}

fn boots(name: &str, image: &Path) {
    let mut times = Vec::new();
    let mut memory = String::new();
    for _ in 0..BOOTS {
        let disk = Disk::copy_of(image);
        let (mut host, _) = boot(&qemu::Config { cpus: 2, ..disk.config() });
        times.push(host.elapsed());
        memory = sh(
            &mut host,
            "busybox grep VmRSS /proc/1/status; busybox free -m | busybox grep Mem; \
             busybox grep VmRSS /proc/$(busybox pidof berth-updater)/status",
        );
    }
    times.sort();
    println!("  {name}: ready {:.1} s after QEMU's start", times[BOOTS / 2].as_secs_f64());
    for (what, line) in ["init", "guest", "updater"].iter().zip(memory.lines()) {
        println!("    {what}: {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
