//! `make bench`: the figures of `docs/performance.md`, each the median of some runs.

use e2e::*;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 5;
const BOOTS: usize = 3;

fn main() {
    let images = "images=[\"containers/nginx.toml\",\"containers/postgres.toml\"]";
    println!("build, packages cached (median of {RUNS})");
    for (name, sets) in [("docker", vec![]), ("demo", vec!["name=demo", images])] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = vec!["build", "configs/docker.toml", "--timings", "-o"];
        args.push(folder.path().to_str().expect("a plain path"));
        sets.iter().for_each(|set| args.extend(["--set", set]));
        measure(&args);
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            clear(folder.path());
            runs.push(measure(&args));
        }
        show(&format!("  {name}"), &mut runs);
        for line in runs[RUNS / 2].said.lines().filter(|line| line.ends_with(" s")) {
            println!("    {line}");
        }
        let mut runs: Vec<Run> = (0..RUNS).map(|_| measure(&args)).collect();
        show(&format!("  {name}, nothing changed"), &mut runs);
    }
    println!("host");
    let init = berth().with_file_name("guest").join("init");
    println!("  init: {} bytes", std::fs::metadata(init).expect("init").len());
    for (name, image) in [("containerd", containerd_image()), ("docker", demo_image())] {
        boots(name, image);
    }
}

struct Run {
    took: Duration,
    peak_kib: u64,
    said: String,
}

/// Runs `berth`, and looks at its memory until it ends. The kernel's high-water mark only rises,
/// so looking often enough misses nothing but the last instant.
fn measure(args: &[&str]) -> Run {
    let started = Instant::now();
    let mut child = Command::new(berth())
        .args(args)
        .current_dir(project())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("berth starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    while child.try_wait().expect("its state").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = started.elapsed();
    let output = child.wait_with_output().expect("what it said");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    Run { took, peak_kib, said }
}

fn show(what: &str, runs: &mut [Run]) {
    runs.sort_by_key(|run| run.took);
    let (low, high) = (runs[0].took, runs[runs.len() - 1].took);
    let peak = runs.iter().map(|run| run.peak_kib).max().unwrap_or(0);
    println!(
        "{what}: {:.2} s ({:.2} to {:.2}), peak {} MB",
        runs[runs.len() / 2].took.as_secs_f64(),
        low.as_secs_f64(),
        high.as_secs_f64(),
        peak / 1000
    );
}

fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the folder").flatten() {
        std::fs::remove_file(entry.path()).expect("removed");
    }
}

/// First boots, from QEMU's start, by this machine's clock.
fn boots(name: &str, image: &Path) {
    let mut times = Vec::new();
    let mut memory = String::new();
    for _ in 0..BOOTS {
        let disk = Disk::copy_of(image);
        let (mut host, _) = boot(&disk.config());
        times.push(host.elapsed());
        memory =
            sh(&mut host, "busybox grep VmRSS /proc/1/status; busybox free -m | busybox grep Mem");
    }
    times.sort();
    println!("  {name}: ready {:.1} s after QEMU's start", times[BOOTS / 2].as_secs_f64());
    for line in memory.lines() {
        println!("    {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
