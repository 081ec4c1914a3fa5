//! First boots, from QEMU's start, by this machine's clock.

use e2e::*;
use std::path::Path;

const BOOTS: usize = 3;

pub fn figures() {
    let init = berth().with_file_name("guest").join("init");
    println!("  init: {} bytes", std::fs::metadata(init).expect("init").len());
    for (name, image) in [("containerd", containerd_image()), ("docker", demo_image())] {
        boots(name, image);
    }
}

fn boots(name: &str, image: &Path) {
    let mut times = Vec::new();
    let mut memory = String::new();
    for _ in 0..BOOTS {
        let disk = Disk::copy_of(image);
        let (mut host, _) = boot(&disk.config());
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
