use super::*;
use crate::definition::Sizes;
use crate::image::disk::Written;
use crate::image::disk::tests::{build_for, sample_tree, small_sizes};
use crate::image::manifest::{package_list, package_list_path};
use crate::tree::Node;
use contract::layout::{BLOCK, RECORD_OFFSETS};
use contract::manifest::Package;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tempfile::TempDir;

struct Sample {
    _directory: TempDir,
    path: PathBuf,
    written: Written,
}

impl Sample {
    fn new() -> Sample {
        Sample::on(512, small_sizes())
    }

    fn on(sector_size: u64, sizes: Sizes) -> Sample {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("sample.raw");
        let mut tree = sample_tree();
        let package = Package {
            name: "libc6".into(),
            version: "2.41".into(),
            architecture: "amd64".into(),
            sha256: "00".into(),
        };
        tree.insert(&package_list_path(), Node::file(package_list(&[package]), 0));
        let written = build_for(sector_size, &tree, sizes, &path).expect("an image");
        Sample { _directory: directory, path, written }
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).expect("the image")
    }

    fn offset(&self, label: &str) -> u64 {
        self.written.partitions.iter().find(|p| p.label == label).expect(label).offset
    }

    fn flip(&self, at: u64) {
        let mut byte = [0];
        self.file().read_exact_at(&mut byte, at).expect("readable");
        self.file().write_all_at(&[byte[0] ^ 0x10], at).expect("writable");
    }
}

#[test]
fn an_image_tells_what_went_into_it() {
    let sample = Sample::new();
    let report = inspect(&sample.path).expect("a report");
    assert_eq!(report.partitions.len(), 9);
    assert_eq!(report.packages[0].name, "libc6");
    assert_eq!(report.record.copies, ["current", "empty"]);
    assert_eq!(report.next_boot.as_ref().map(|next| next.slot.as_str()), Some("a"));
    assert_eq!(report.journal[0].text, "sample 1.2.3 was built");
    let slot = &report.slots[0];
    assert_eq!((slot.version.as_str(), slot.state.as_str()), ("1.2.3", "healthy"));
    assert_eq!(slot.uname.as_deref(), Some("6.1"));
    let root_hash = format!("berth.roothash={}", slot.root_hash);
    assert!(slot.cmdline.as_ref().is_some_and(|text| text.starts_with(&root_hash)));
    assert_eq!(slot.faults, Vec::<String>::new());
    let text = report.to_string();
    for part in ["boot-a", "Slot a: healthy, priority 1", "libc6", "ID=berth", "slot a (healthy)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(serde_json::to_string(&report).is_ok());
}

#[test]
fn an_untouched_image_is_whole() {
    let verified = verify(&Sample::new().path).expect("whole");
    assert_eq!(verified.checks.len(), 5, "{:?}", verified.checks);
}

#[test]
fn an_image_for_large_sectors_is_whole_and_damage_is_named() {
    let sizes = Sizes { esp: 260 << 20, ..small_sizes() };
    let sample = Sample::on(4096, sizes);
    assert_eq!(inspect(&sample.path).expect("a report").sector_size, 4096);
    let offsets = |sample: &Sample| sample.written.partitions.clone();
    assert_eq!(offsets(&sample), offsets(&Sample::on(512, sizes)), "only the tables differ");
    assert_eq!(verify(&sample.path).expect("whole").checks.len(), 5);
    for (at, expected) in [
        (4096 + 60, "primary partition table: GPT header checksum does not match"),
        (8192 + 60, "primary partition table: GPT entry array checksum does not match"),
        (sample.written.image_size - 4096 + 60, "backup partition table: GPT header checksum"),
    ] {
        sample.flip(at);
        let error = verify(&sample.path).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        sample.flip(at);
    }
}

#[test]
fn the_first_that_is_wrong_is_named() {
    let cases: [(&str, u64, &str); 12] = [
        ("", 511, "protective MBR: it has no signature"),
        ("", 446 + 4, "protective MBR: it does not say that one partition of type 0xEE spans"),
        ("", 3, "protective MBR: there is code in it"),
        ("", 512 + 60, "primary partition table: GPT header checksum does not match"),
        ("", 1024 + 60, "primary partition table: GPT entry array checksum does not match"),
        ("berth-state", 100, "boot record, copy 1: checksum does not match"),
        ("berth-state", RECORD_OFFSETS[1] + 9, "boot record, copy 2: no boot record magic"),
        ("boot-a", 100, "boot-a: the kernel image does not have the SHA-256 in the boot record"),
        ("boot-a", (2 << 20) - BLOCK as u64 + 20, "boot-a: its trailer is damaged"),
        ("root-a", 4096 * 7 + 1, "root-a: block 7 is damaged"),
        ("verity-a", 4096 + 5, "verity-a: its root is not the root hash in the boot record"),
        ("esp", 11, "esp: "),
    ];
    for (label, at, expected) in cases {
        let sample = Sample::new();
        let base = if label.is_empty() { 0 } else { sample.offset(label) };
        sample.flip(base + at);
        let error = verify(&sample.path).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(verify(&sample.path).expect_err(expected).exit_code() as u8, 1);
        assert!(inspect(&sample.path).is_ok(), "{label}: a damaged image can be looked at");
    }
    let sample = Sample::new();
    let size = std::fs::metadata(&sample.path).expect("metadata").len();
    sample.flip(size - 512 + 60);
    let error = verify(&sample.path).expect_err("a damaged backup").to_string();
    assert!(error.contains("backup partition table"), "{error}");
}

#[test]
fn without_a_record_the_trailer_tells() {
    let sample = Sample::new();
    sample.flip(sample.offset("berth-state"));
    let report = inspect(&sample.path).expect("a report");
    assert!(report.record.recovered);
    assert_eq!(report.slots[0].version, "1.2.3");
    assert_eq!(report.next_boot.map(|next| next.why).as_deref(), Some("last resort"));
}

#[test]
fn what_is_no_image_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("x");
    for content in [&b""[..], b"hello", &[0; 100_000]] {
        std::fs::write(&path, content).expect("written");
        let error = inspect(&path).expect_err("not an image");
        assert!(error.to_string().contains("is not a Berth image"), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(error.exit_code() as u8, 2);
    }
    assert!(inspect(directory.path()).expect_err("a folder").to_string().contains("a folder"));
    let nothing = inspect(Path::new("/nowhere")).expect_err("nothing");
    assert!(nothing.to_string().contains("there is no such file"), "{nothing}");
}

/// Bytes whose change reaches the code that reads: tables, record, headers of kernel image,
/// filesystems and tree.
fn places(sample: &Sample) -> Vec<u64> {
    let starts = ["esp", "berth-state", "boot-a", "root-a", "verity-a"];
    let mut places: Vec<u64> = starts.iter().map(|label| sample.offset(label)).collect();
    places.extend([0, 512, 1024, sample.offset("root-a") + 1024, sample.offset("root-a") + 4096]);
    places
}

#[test]
fn damage_never_panics() {
    let sample = Sample::new();
    let places = places(&sample);
    let mut runner = proptest::test_runner::TestRunner::default();
    let damage = (0..places.len(), 0..600_u64, any::<[u8; 4]>());
    runner
        .run(&damage, |(place, at, bytes)| {
            let mut before = [0; 4];
            let at = places[place] + at;
            sample.file().read_exact_at(&mut before, at).expect("readable");
            sample.file().write_all_at(&bytes, at).expect("writable");
            let _ = inspect(&sample.path);
            let _ = verify(&sample.path);
            sample.file().write_all_at(&before, at).expect("writable");
            Ok(())
        })
        .expect("no panic");
}
