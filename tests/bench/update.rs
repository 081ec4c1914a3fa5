//! An update of the Docker image from the point release of Debian to its security updates: bytes,
//! requests, processor time and memory, beside plain compressors on the same pair.

#[path = "../../updater/tests/client/server.rs"]
mod server;

use crate::cost::{self, Cost, median};
use contract::Slot;
use contract::layout::Partition;
use contract::manifest::Manifest;
use e2e::*;
use image_builder::debian::version::compare;
use server::Server;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const RUNS: usize = 5;

/// Both releases, as images and as the files that compressors are given: UKI and root, one behind
/// the other.
struct Pair {
    folder: tempfile::TempDir,
    old: (PathBuf, Manifest),
    new: (PathBuf, Manifest),
}

pub fn figures() {
    let pair = Pair::build();
    let content = fs::metadata(pair.path("new")).expect("the content").len();
    println!("  content of UKI and root: {:.1} MB", mb(content));
    let whole = pair.zstd(&["-19", "-T0"], "whole.zst");
    let patch = format!("--patch-from={}", pair.path("old").display());
    let patched = pair.zstd(&["-19", &patch], "patch.zst");
    for (what, size) in [("zstd -19", whole), ("zstd -19 --patch-from", patched)] {
        match size {
            Some(size) => println!("  {what}: {:.2} MB", mb(size)),
            None => println!("  {what}: not measured, there is no zstd on the PATH"),
        }
    }
    pair.publish();
    pair.install(whole.is_some());
}

/// Packages of the image that have updates since the point release, as the point release has them.
/// The largest index that the builder has cached is that of the suite itself.
fn pins(manifest: &Manifest) -> Vec<String> {
    let mut indexes: Vec<PathBuf> = Vec::new();
    let folders = fs::read_dir(cache().root().join("index")).expect("indexes");
    for folder in folders.flatten() {
        indexes.extend(fs::read_dir(folder.path()).expect("a folder").flatten().map(|e| e.path()));
    }
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
    let largest = indexes.iter().map(size).max().unwrap_or(0);
    let of_suites = indexes.iter().filter(|path| size(path) > largest / 2);
    let newest = of_suites.max_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
    let bytes = fs::read(newest.expect("an index")).expect("readable");
    let text = String::from_utf8_lossy(&bytes);
    let versions: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, rest)| (name, rest.split('\t').next().unwrap_or_default()))
        .collect();
    let older = manifest.packages.iter().filter_map(|package| {
        let version = versions.get(package.name.as_str())?;
        compare(version, &package.version).is_lt().then(|| format!("{}={version}", package.name))
    });
    older.collect()
}

impl Pair {
    fn build() -> Pair {
        let new = release("2.0.0", &[]);
        let pins = pins(&new.1);
        println!("  from the release with {}", pins.join(", "));
        let packages = format!("packages={pins:?}");
        let old = release("1.0.0", &[&packages]);
        let pair = Pair { folder: tempfile::tempdir().expect("a folder"), old, new };
        for (name, (image, manifest)) in [("old", &pair.old), ("new", &pair.new)] {
            let out = File::create(pair.path(name)).expect("a file");
            let image_file = File::open(image).expect("the image");
            let uki = place(image, Partition::Boot(Slot::A)).offset;
            let root = place(image, Partition::Root(Slot::A)).offset;
            out.set_len(manifest.uki.size + manifest.root_size).expect("room");
            copy_data(&image_file, uki, manifest.uki.size, &out, 0);
            copy_data(&image_file, root, manifest.root_size, &out, manifest.uki.size);
        }
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a plain path").to_owned()
    }

    /// Compresses the new content and returns the size of the result.
    fn zstd(&self, args: &[&str], to: &str) -> Option<u64> {
        let mut command = Command::new("zstd");
        command.args(["-q", "-f"]).args(args).arg(self.path("new")).arg("-o").arg(self.path(to));
        let status = command.status().ok()?;
        assert!(status.success(), "{command:?}");
        Some(fs::metadata(self.path(to)).expect("the result").len())
    }

    /// Both releases in a repository, with a patch.
    fn publish(&self) {
        berth_ok(["keys", "init", &self.text("keys")]);
        for (image, _) in [&self.old, &self.new] {
            let (repository, keys) = (self.text("repository"), self.text("keys"));
            let mut command = Command::new(berth());
            command.args(["release", "add", &repository, "--keys", &keys, "--channel", "stable"]);
            let cost = cost::of(command.arg("--image").arg(image).current_dir(project()));
            let (took, cpu) = (cost.took.as_secs_f64(), cost.cpu.as_secs_f64());
            let name = image.file_stem().unwrap_or_default().display();
            let peak = cost.peak_kib / 1000;
            println!("  publish {name}: {took:.0} s, CPU {cpu:.0} s, peak {peak} MB");
        }
    }

    /// Installs the new release on a disk that runs the old one, in turns with `zstd -d`.
    fn install(&self, with_zstd: bool) {
        let server = Server::start();
        serve(&server, Path::new(&self.text("repository")), Path::new(""));
        let program = berth().with_file_name("guest").join("on-files");
        let (mut ratios, mut runs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let before = server.requests().len();
            let (run, tool) = self.install_once(&program, &server);
            let requests = server.requests().split_off(before);
            let bytes: u64 = requests.iter().map(|request| sent(&server, request)).sum();
            runs.push((run.cpu.as_secs_f64(), run.peak_kib, requests.len(), bytes));
            println!("    {}", tool);
            if with_zstd {
                let mut plain = Command::new("zstd");
                plain.args(["-d", "-q", "-f", "--no-sparse"]).arg(self.path("whole.zst"));
                let plain = cost::of(plain.arg("-o").arg(self.path("plain"))).cpu.as_secs_f64();
                ratios.push(runs[runs.len() - 1].0 / plain);
            }
        }
        let mut cpu: Vec<f64> = runs.iter().map(|run| run.0).collect();
        let (middle, low, high) = median(&mut cpu);
        let peak = runs.iter().map(|run| run.1).max().unwrap_or(0) / 1000;
        println!("  apply: CPU {middle:.2} s ({low:.2} to {high:.2}), peak {peak} MB");
        if with_zstd {
            let (middle, low, high) = median(&mut ratios);
            println!("  apply to zstd -d, CPU: {middle:.2} ({low:.2} to {high:.2})");
        }
        let (_, _, requests, bytes) = runs[0];
        println!("  apply: {requests} requests, {:.2} MB in all", mb(bytes));
    }

    fn install_once(&self, program: &Path, server: &Server) -> (Cost, String) {
        let disk = tempfile::tempdir_in(self.folder.path()).expect("a folder");
        let (image, manifest) = &self.old;
        let from = File::open(image).expect("the image");
        for part in &manifest.partitions {
            if part.label == Partition::Esp.label() || part.label == Partition::Data.label() {
                continue;
            }
            let file = File::create(disk.path().join(&part.label)).expect("a file");
            file.set_len(part.size).expect("room");
            copy_data(&from, part.offset, part.size, &file, 0);
        }
        let mut command = Command::new(program);
        command.arg(disk.path()).args([server.url(), self.text("keys/root.json")]);
        command.args([&manifest.name, &manifest.version, &manifest.root_hash]);
        let cost = cost::of(&mut command);
        let said = cost.said.lines().last().unwrap_or_default().to_owned();
        (cost, said)
    }
}

fn release(version: &str, sets: &[&str]) -> (PathBuf, Manifest) {
    let version = format!("version={version}");
    let mut all = vec!["name=e2e-bench", &version];
    all.extend(sets);
    let image = build("configs/docker.toml", &all);
    let text = fs::read_to_string(image.with_extension("manifest.json")).expect("a manifest");
    (image, serde_json::from_str(&text).expect("a manifest"))
}

fn serve(server: &Server, root: &Path, below: &Path) {
    for entry in fs::read_dir(root.join(below)).expect("a folder") {
        let name = below.join(entry.expect("an entry").file_name());
        match root.join(&name).is_dir() {
            true => serve(server, root, &name),
            false => {
                let bytes = fs::read(root.join(&name)).expect("readable");
                server.put(&name.display().to_string(), bytes);
            }
        }
    }
}

/// Bytes of the body that answered a request.
fn sent(server: &Server, (path, range): &(String, Option<String>)) -> u64 {
    let size = server.size(path);
    let asked = range.as_ref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = asked else { return size };
    let first: u64 = first.parse().expect("a number");
    last.parse().map_or(size, |last: u64| (last + 1).min(size)) - first
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
