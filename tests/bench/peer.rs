//! First boots of the Docker image beside those of a peer, in turns, in the same machine. `PEER` in
//! the environment names the peer's disk image; `bench/peer` is what it is built from.

use crate::cost::median;
use e2e::*;
use qemu::{Config, Machine};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PAIRS: usize = 3;
/// On a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(1200);

/// What both run: see there.
const SCRIPT: &str = include_str!("peer/mkosi.extra/usr/lib/peer/figures");

/// The figure that is shown for each pair.
const TIME: &str = "kernel to docker info, s";

/// By name.
type Figures = BTreeMap<String, f64>;

pub fn figures() {
    let Some(peer) = std::env::var_os("PEER").map(PathBuf::from).filter(|p| p.is_file()) else {
        println!("  not measured: PEER names no disk image (docs/performance.md)");
        return;
    };
    let ours = build("configs/docker.toml", &["name=e2e-peer", "debug.shell=true"]);
    let mut runs = Vec::new();
    for _ in 0..PAIRS {
        let pair = (of_berth(&ours), of_peer(&peer));
        let [berth, peer] = [&pair.0, &pair.1].map(|figures| figures[TIME]);
        println!("    {TIME}: {berth:.1} and {peer:.1}");
        runs.push(pair);
    }
    let names: Vec<String> = runs[0].0.keys().cloned().collect();
    for name in names {
        let of = |figures: &Figures| figures.get(&name).copied().unwrap_or(f64::NAN);
        let mut berths: Vec<f64> = runs.iter().map(|(berth, _)| of(berth)).collect();
        let mut peers: Vec<f64> = runs.iter().map(|(_, peer)| of(peer)).collect();
        let mut ratios: Vec<f64> = runs.iter().map(|(berth, peer)| of(berth) / of(peer)).collect();
        let (ratio, low, high) = median(&mut ratios);
        let (berth, peer) = (median(&mut berths).0, median(&mut peers).0);
        match peer == 0.0 {
            true => println!("  {name}: {berth:.1} to {peer:.1}"),
            false => println!(
                "  {name}: {berth:.1} to {peer:.1}, ratio {ratio:.2} ({low:.2} to {high:.2})"
            ),
        }
    }
}

fn of_berth(image: &Path) -> Figures {
    let disk = Disk::copy_of(image);
    let (mut host, _) = boot(&Config { cpus: 2, ..disk.config() });
    let to_console = "while read line; do echo \"$line\" > /dev/ttyS0; done";
    sh(&mut host, &format!("( {SCRIPT} ) | {to_console} &"));
    read(&mut host, image)
}

fn of_peer(image: &Path) -> Figures {
    let disk = Disk::copy_of(image);
    let mut host = start(&Config { cpus: 2, debug_console: false, ..disk.config() });
    read(&mut host, image)
}

/// What the script says on the console. Guests have wrong clocks under emulation: what lies between
/// its two lines tells how wrong.
fn read(host: &mut Machine, image: &Path) -> Figures {
    let first = host.wait_for_line("figures: docker", PATIENCE).expect("docker answers");
    let processor = processor_seconds(host.pid());
    let second = host.wait_for_line("figures: host", PATIENCE).expect("the host's figures");
    let [docker, mut all] = [&first.text, &second.text].map(|line| numbers(line));
    let uptimes = (docker["uptime"], all.remove("uptime").expect("its uptime"));
    let clock = (second.at - first.at).as_secs_f64() / (uptimes.1 - uptimes.0);
    all.insert(TIME.to_owned(), uptimes.0 * clock);
    all.insert("QEMU to docker info, CPU s".to_owned(), processor);
    let memory = all.remove("memory-kib").expect("its memory") * 1024.0 / 1e6;
    all.insert("memory used, MB".to_owned(), memory);
    let disk = std::fs::metadata(image).expect("the image").blocks() as f64 * 512.0 / 1e6;
    all.insert("disk image, MB".to_owned(), disk);
    all
}

/// The `name=number` of a line.
fn numbers(line: &str) -> Figures {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// Of a process that still runs: proc_pid_stat(5), fields 14 and 15.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("QEMU runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
