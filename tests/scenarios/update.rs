//! Updates, whole: published by `berth release`, found, installed, tried, and kept or undone by a
//! host.

use contract::Slot;
use e2e::published::{Published, release};
use e2e::*;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
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
    let disk = published.disk(&first, "interval = 5\nsoak = 2\ntries = 2\ndeadline = 90");

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
    // Both may have to wait for their turn: the repository is looked at every few seconds.
    let again = "berth-updater apply 2>&1; echo status $?";
    let again = sh_until(&mut host, again, |text| text.contains("3.0.0 failed here before"));
    assert!(again.ends_with("status 3\n"), "{again}");
    sh_until(&mut host, "berth-updater verify 2>&1", |text| {
        text.contains("slot b: 2.0.0 is whole")
    });
}

#[test]
fn a_host_waits_for_its_window_and_leaves_what_is_withdrawn() {
    let published = Published::new();
    let first = release("1.0.0", &[]);
    published.add(&first);
    published.add(&release("2.0.0", &[]));
    // A whole day, the one after tomorrow.
    let day = Timestamp::now().to_zoned(TimeZone::UTC).checked_add(2.days()).expect("a day");
    let name = day.strftime("%a");
    let update = format!(
        "interval = 5\nsoak = 1\n\
         [[update.window]]\ndays = [\"{name}\"]\nfrom = \"00:00\"\nto = \"23:59\""
    );
    let disk = published.disk(&first, &update);
    let withdraw = |version| {
        published.release(&["withdraw", &published.path("repository"), version]);
    };
    let (mut host, _) = boot(&disk.config());

    // The window is closed: what is installed waits, and goes when it is withdrawn.
    let opens = format!("waiting 2.0.0: for the window that opens at {}", day.strftime("%F"));
    sh_until(&mut host, "berth-updater status", |text| text.contains(&opens));
    withdraw("2.0.0");
    sh_until(&mut host, "berth-updater history --why", |text| text.contains("no longer wanted"));
    let status = sh(&mut host, "berth-updater status");
    assert!(status.contains("running   1.0.0 in slot a"), "{status}");

    // It opens.
    published.add(&release("3.0.0", &[]));
    sh_until(&mut host, "berth-updater status", |text| text.contains("waiting 3.0.0"));
    let noon = format!("busybox date -u -s '{}'", day.strftime("%F 12:00:00"));
    sh(&mut host, &noon);
    host.wait_for_line("berth-picker: slot b, version 3.0.0, on trial", BOOT).expect("slot b");
    host.wait_ready(BOOT).expect("the host gets ready");
    host.wait_for_line("berth: slot b is healthy", SOON).expect("the end of the trial");

    // A release that runs already is left, too. The clock is the hardware's again.
    sh(&mut host, &noon);
    withdraw("3.0.0");
    host.wait_for_line("berth-picker: slot a, version 1.0.0", BOOT).expect("slot a");
}
