//! Building an image, packages cached.

use crate::cost::{self, Cost};
use e2e::*;
use std::path::Path;
use std::process::Command;

const RUNS: usize = 5;

pub fn figures() {
    println!("  packages cached, median of {RUNS}");
    let images = "images=[\"containers/nginx.toml\",\"containers/postgres.toml\"]";
    for (name, sets) in [("docker", vec![]), ("demo", vec!["name=demo", images])] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = vec!["build", "configs/docker.toml", "--timings", "-o"];
        args.push(folder.path().to_str().expect("a plain path"));
        sets.iter().for_each(|set| args.extend(["--set", set]));
        run(&args);
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            clear(folder.path());
            runs.push(run(&args));
        }
        show(name, &mut runs);
        for line in runs[RUNS / 2].said.lines().filter(|line| line.ends_with(" s")) {
            println!("    {line}");
        }
        let mut runs: Vec<Cost> = (0..RUNS).map(|_| run(&args)).collect();
        show(&format!("{name}, nothing changed"), &mut runs);
    }
}

fn run(args: &[&str]) -> Cost {
    cost::of(Command::new(berth()).args(args).current_dir(project()))
}

fn show(what: &str, runs: &mut [Cost]) {
    runs.sort_by_key(|run| run.took);
    let [low, middle, high] = [0, runs.len() / 2, runs.len() - 1].map(|at| runs[at].took);
    let [low, middle, high] = [low, middle, high].map(|took| took.as_secs_f64());
    let cpu = runs[runs.len() / 2].cpu.as_secs_f64();
    let peak = runs.iter().map(|run| run.peak_kib).max().unwrap_or(0) / 1000;
    println!("  {what}: {middle:.2} s ({low:.2} to {high:.2}), CPU {cpu:.2} s, peak {peak} MB");
}

fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the folder").flatten() {
        std::fs::remove_file(entry.path()).expect("removed");
    }
}
