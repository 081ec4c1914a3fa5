//! The same definition gives the same bytes wherever and by whomever it is built, and no part of an
//! image that has a digest or checksum changes unseen.

use contract::Slot;
use contract::layout::{BLOCK, Partition, RECORD_OFFSETS};
use contract::manifest::Manifest;
use e2e::*;
use image_builder::inspect::{self, Report};
use rustix::fs::{SeekFrom, seek};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A user who owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn two_places_give_the_same_image() {
    let build = |place: Place| {
        place.berth(&["build", "configs/containerd.toml", "-o"], &place.output());
        place
    };
    let here = build(Place::here());
    let there = build(Place::elsewhere());
    for end in ["raw", "manifest.json", "spdx.json"] {
        assert_same(&here, &there, &format!("containerd-1.0.0.{end}"));
    }
}

#[test]
fn two_places_give_the_same_container_image() {
    let build = |place: Place| {
        let archive = place.output().join("busybox.oci.tar");
        place.berth(&["container", "configs/containers/busybox.toml", "-o"], &archive);
        place
    };
    let here = build(Place::here());
    let there = build(Place::elsewhere());
    assert_same(&here, &there, "busybox.oci.tar");
}

#[test]
fn no_bit_flips_unseen() {
    let image = containerd_image();
    let disk = Disk::copy_of(image);
    let beside = |image: &Path| {
        let name = image.file_stem().expect("a name").to_string_lossy().into_owned();
        image.with_file_name(format!("{name}.manifest.json"))
    };
    std::fs::copy(beside(image), beside(&disk.path())).expect("copied");
    let text = std::fs::read(beside(image)).expect("a manifest");
    let manifest: Manifest = serde_json::from_slice(&text).expect("a manifest");
    let report = inspect::inspect(&disk.path()).expect("an image");
    let file = File::options().read(true).write(true).open(disk.path()).expect("the disk");

    let whole = verify(&disk);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    for (what, at, named) in places(&report, &manifest) {
        flip(&file, at);
        let damaged = verify(&disk);
        flip(&file, at);
        let errors = String::from_utf8_lossy(&damaged.stderr);
        assert_eq!(damaged.status.code(), Some(1), "{what}, byte {at}: {errors}");
        assert!(errors.contains(named), "{what}, byte {at} is not `{named}`: {errors}");
    }
    let whole = verify(&disk);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
}

/// Both places have made the same file, each for itself.
fn assert_same(here: &Place, there: &Place, name: &str) {
    let [one, other] = [here, there].map(|place| place.output().join(name));
    assert_eq!(digest(&one), digest(&other), "{name}");
    let meta = other.metadata().expect("a file");
    assert_eq!(meta.mode() & 0o777, 0o600, "the umask there had no effect");
    if let Kind::Elsewhere { user: Some(user) } = there.kind {
        assert_eq!(meta.uid(), user);
    }
}

/// Where a bit is flipped: what is there, which byte, and what the error has to name.
fn places(report: &Report, manifest: &Manifest) -> Vec<(&'static str, u64, &'static str)> {
    let place = |partition: Partition| {
        let mut all = report.partitions.iter();
        let found = all.find(|p| p.label == partition.label()).expect("a partition");
        (found.offset, found.size)
    };
    let (state, _) = place(Partition::State);
    let (boot, boot_len) = place(Partition::Boot(Slot::A));
    let (root, _) = place(Partition::Root(Slot::A));
    let (verity, _) = place(Partition::Verity(Slot::A));
    let block = BLOCK as u64;
    let sector = report.sector_size;
    let last = report.size - sector;
    vec![
        ("the primary GPT header", sector + 40, "primary partition table"),
        ("the primary GPT entries", 2 * sector + 32, "primary partition table"),
        ("the backup GPT header", last + 40, "backup partition table"),
        ("the backup GPT entries", last - 32 * sector + 32, "backup partition table"),
        ("the boot record", state + RECORD_OFFSETS[0] + 20, "boot record, copy 1"),
        (
            "the end of the boot record",
            state + RECORD_OFFSETS[0] + block - 1,
            "boot record, copy 1",
        ),
        ("the copy that was never written", state + RECORD_OFFSETS[1], "boot record, copy 2"),
        ("the UKI's start", boot, "boot-a: the kernel image"),
        ("the UKI's middle", boot + manifest.uki.size / 2, "boot-a: the kernel image"),
        ("the UKI's end", boot + manifest.uki.size - 1, "boot-a: the kernel image"),
        ("the trailer", boot + boot_len - block + 20, "boot-a: its trailer"),
        ("the trailer's end", boot + boot_len - 1, "boot-a: its trailer"),
        ("the root's superblock", root + 1024 + 120, "root-a: block 0"),
        ("the root's middle", root + manifest.root_size / 2, "root-a: block"),
        ("the root's end", root + manifest.root_size - 1, "root-a: block"),
        ("the tree's salt", verity + 88, "verity-a"),
        ("the tree's root", verity + block, "verity-a"),
        ("the tree's end", verity + manifest.verity.size - 1, "verity-a"),
    ]
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("written");
}

fn verify(disk: &Disk) -> Output {
    run_berth(["inspect".as_ref(), "--verify".as_ref(), disk.path().as_os_str()])
}

/// Somewhere to build, in an environment of its own.
struct Place {
    folder: tempfile::TempDir,
    berth: PathBuf,
    project: PathBuf,
    kind: Kind,
}

/// What is different about a place.
enum Kind {
    /// Nothing.
    Here,
    /// Everything; the user too, where these tests may become another one.
    Elsewhere { user: Option<u32> },
}

impl Place {
    /// The project's folder, with the cache and the environment of these tests.
    fn here() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("output")).expect("a folder");
        Place { folder, berth: berth(), project: project().to_owned(), kind: Kind::Here }
    }

    /// Another folder, with a copy of the program, of the definitions and of what was downloaded,
    /// but of nothing that was made of it. Call it when the cache has all that is needed.
    fn elsewhere() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let below = |name: &str| folder.path().join(name);
        copy(&berth(), &below("program/berth"));
        copy(&berth().with_file_name("guest"), &below("program/guest"));
        copy(&project().join("configs"), &below("other/configs"));
        for kind in ["blobs", "index", "release"] {
            copy(&cache().root().join(kind), &below("cache/berth").join(kind));
        }
        std::fs::create_dir(below("output")).expect("a folder");
        let (berth, project) = (below("program/berth"), below("other"));
        let user = chown(folder.path(), Some(NOBODY), Some(NOBODY)).is_ok().then_some(NOBODY);
        if user.is_some() {
            give_away(folder.path());
        }
        Place { folder, berth, project, kind: Kind::Elsewhere { user } }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// Runs `berth`, which has to succeed.
    fn berth(&self, args: &[&str], output: &Path) {
        // The shell is there for the umask.
        let mut command = Command::new("/bin/sh");
        let umask = match self.kind {
            Kind::Here => "022",
            Kind::Elsewhere { .. } => "077",
        };
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        command.arg(&self.berth).args(args).arg(output).current_dir(&self.project);
        match self.kind {
            Kind::Here => {
                command.env("TZ", "UTC").env("LC_ALL", "C");
            }
            Kind::Elsewhere { user } => {
                command.arg("--offline").env_clear();
                command.env("PATH", "/nonexistent").env("HOME", "/nonexistent");
                command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
                command.env("TZ", "Pacific/Chatham").env("LANG", "tr_TR.UTF-8");
                command.env("LC_ALL", "tr_TR.UTF-8").env("SOURCE_DATE_EPOCH", "1");
                if let Some(user) = user {
                    command.uid(user).gid(user);
                }
            }
        }
        let output = command.output().expect("sh starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "berth {args:?}: {}\n{errors}", output.status);
    }
}

/// Copies a file or a folder.
fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, to).expect("copied");
        return;
    }
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Makes [`NOBODY`] the owner of a folder and of everything in it.
fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("another owner");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            give_away(&entry.expect("an entry").path());
        }
    }
}

/// SHA-256 of a file's size and of its blocks that are not zero, each after its place: what is a
/// hole in one file may be zeros in another.
fn digest(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let len = file.metadata().expect("its size").len();
    let mut hash = Sha256::new();
    hash.update(len.to_le_bytes());
    let mut block = [0; BLOCK];
    let mut end = 0;
    while let Ok(data) = seek(&file, SeekFrom::Data(end)) {
        end = seek(&file, SeekFrom::Hole(data)).expect("the end of the data");
        let start = data / BLOCK as u64 * BLOCK as u64;
        for at in (start..end).step_by(BLOCK) {
            let block = &mut block[..(len - at).min(BLOCK as u64) as usize];
            file.read_exact_at(block, at).expect("read");
            if block.iter().any(|&byte| byte != 0) {
                hash.update(at.to_le_bytes());
                hash.update(&block);
            }
        }
        end = end.next_multiple_of(BLOCK as u64);
    }
    hash.finalize().to_vec()
}
