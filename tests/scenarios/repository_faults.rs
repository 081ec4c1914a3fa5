//! What repositories may do to a host: be down, silent, slow, lie, hang up, show yesterday's state or
//! someone else's. It goes on running what it runs, says why, and updates as soon as it can.

use contract::Slot;
use e2e::published::{Published, release};
use e2e::server::{Fault, Server};
use e2e::*;
use qemu::Machine;

/// Waits until the agent states a problem.
fn states(host: &mut Machine, problem: &str) {
    host.wait_for_line(problem, BOOT).expect("the problem");
    let status = sh_until(host, "berth-updater status", |text| text.contains(problem));
    assert!(status.contains("running   2.0.0 in slot b"), "{status}");
}

#[test]
fn a_host_survives_its_repository() {
    let mut published = Published::new();
    let first = release("1.0.0", &[]);
    published.add(&first);
    published.add(&release("2.0.0", &[]));

    // Four mirrors that are of no use, and one that works.
    let (down, silent, lying, cutting) =
        (Server::start(), Server::start(), Server::start(), Server::start());
    for mirror in [&silent, &lying, &cutting] {
        mirror.set_files(published.server().files());
    }
    let mirrors = [&down, &silent, &lying, &cutting].map(|server| server.port());
    drop(down);
    silent.fail("", Fault::Silent);
    lying.fail("", Fault::Length(1 << 40));
    cutting.fail("", Fault::Cut(1000));
    let update = "interval = 5\nsoak = 1\ntries = 2\ndeadline = 600";
    let disk = published.disk_of_mirrors(&first, &mirrors, "[time]\nservers = []\n", update);

    let mut host = start(&disk.config());
    host.wait_for_line("berth: updater: 2.0.0 is installed", BOOT).expect("installed");
    let ready = host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!((ready.slot, ready.version.as_str()), (Some(Slot::B), "2.0.0"));
    host.wait_for_line("berth: slot b is healthy", SOON).expect("the end of the trial");
    assert!(cutting.requests().len() + lying.requests().len() >= 2, "all were asked");
    drop((silent, lying, cutting));

    // A pinned host looks, and installs nothing.
    sh_until(&mut host, "berth-updater status", |text| text.contains("healthy 2.0.0"));
    sh(&mut host, "berth-updater pin");
    let before = published.server().files();
    let options = ["--channel", "stable", "--no-patches", "--min-version", "3.0.0"];
    published.add_with(&release("3.0.0", &[]), &options);
    sh_until(&mut host, "berth-updater status", |text| text.contains("names 3.0.0"));

    // Yesterday's metadata, and someone else's.
    let now = published.server().files();
    published.server().set_files(before);
    states(&mut host, "timestamp.json: version 2 of timestamp, after version 3 was seen");
    let other = Published::new();
    other.add(&first);
    published.server().set_files(other.server().files());
    states(&mut host, "0 of the 1 signatures that it needs are right");
    published.server().set_files(now);
    sh_until(&mut host, "berth-updater status", |text| !text.contains("problem"));

    // Nobody answers; later someone does.
    published.stop();
    states(&mut host, "Connection refused");
    published.restart();
    sh_until(&mut host, "berth-updater status", |text| !text.contains("problem"));

    // What was downloaded arrives in pieces, and below 3.0.0 there is no way back.
    published.server().fail("content/", Fault::CutTimes(3));
    sh(&mut host, "berth-updater unpin");
    host.wait_for_line("berth-picker: slot a, version 3.0.0, on trial", BOOT).expect("slot a");
    host.wait_ready(BOOT).expect("the host gets ready");
    host.wait_for_line("berth: slot a is healthy", SOON).expect("the end of the trial");
    sh_until(&mut host, "berth-updater status", |text| text.contains("healthy 3.0.0"));
    let back = host.shell("berth-updater rollback 2>&1", SOON).expect("an answer");
    assert!(back.status != 0 && back.stdout.contains("3.0.0"), "{}", back.stdout);
}
