//! Updates, whole: published by `berth release`, found, installed, tried, and kept or undone by a
//! host.

use contract::Slot;
use e2e::published::{Published, release};
use e2e::*;
use std::path::PathBuf;

/// A release whose runtime never answers.
fn broken_release(version: &str) -> PathBuf {
    let containerd = "file=[{path=\"/usr/bin/containerd\",mode=\"0755\",content=\"\"\"\
                      #!/usr/bin/busybox sh\nbusybox sleep 100000\n\"\"\"}]";
    release(version, &[containerd])
}

#[test]
fn a_good_release_is_kept_and_a_bad_one_is_undone_and_remembered() {
    let published = Published::new();
    let first = release("1.0.0", &[]);
    published.add(&first);
    // The first update is a patch, the second comes in chunks.
    published.add_with(&release("2.0.0", &[]), &["--channel", "stable"]);
    let disk = published.disk(&first, "interval = 5\nsoak = 2\ntries = 2\ndeadline = 60");

    let mut host = start(&disk.config());
    host.wait_for_line("berth: updater: 2.0.0 is installed", BOOT).expect("installed");
    host.wait_for_line("berth-picker: slot b, version 2.0.0, on trial", BOOT).expect("slot b");
    let ready = host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!((ready.slot, ready.version.as_str()), (Some(Slot::B), "2.0.0"));
    host.wait_for_line("berth: slot b is healthy", SOON).expect("the end of the trial");
    sh(&mut host, "echo kept > /var/lib/file");
    sh_until(&mut host, "berth-updater status", |text| text.contains("healthy 2.0.0"));

    published.add(&broken_release("3.0.0"));
    host.wait_for_line("berth-picker: slot a, version 3.0.0, on trial", BOOT).expect("slot a");
    host.wait_for_line("berth: slot a is given up", BOOT).expect("the end of the trial");
    host.wait_for_line("berth-picker: slot b, version 2.0.0, healthy", BOOT).expect("slot b");
    host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!(sh(&mut host, "cat /var/lib/file"), "kept\n");

    let why = "rolled-back: not everything that was asked for runs: containerd did not get ready";
    sh_until(&mut host, "berth-updater history --why", |text| text.contains(why));
    let again = host.shell("berth-updater apply", SOON).expect("an answer");
    assert_eq!((again.status, again.stdout.contains("3.0.0 failed here before")), (3, true));
    let verified = sh(&mut host, "berth-updater verify");
    assert!(verified.contains("slot b: 2.0.0 is whole"), "{verified}");
}
