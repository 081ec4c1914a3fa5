//! Disks that rot or fill up, and hosts that go on.

use contract::Slot;
use contract::layout::Partition;
use contract::record::State;
use e2e::published::{Published, release};
use e2e::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Inverts the first byte of so many blocks of a file in the root of `slot`.
fn rot(disk: &Disk, slot: Slot, path: &str, blocks: usize) {
    let root = place(&disk.path(), Partition::Root(slot)).offset;
    let filesystem = format!("{}?offset={root}", disk.path().display());
    let list = judge("debugfs", ["-R", &format!("blocks {path}"), &filesystem]);
    let file = File::options().read(true).write(true).open(disk.path()).expect("the disk");
    for block in list.split_whitespace().take(blocks) {
        let at = root + block.parse::<u64>().expect("a number") * 4096;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[!byte[0]], at).expect("written");
    }
}

fn inspect(disk: &Path) -> String {
    berth_ok(["inspect".as_ref(), disk.as_os_str(), "--verify".as_ref()])
}

#[test]
fn a_rotted_slot_is_repaired_and_a_full_var_stops_no_update() {
    let published = Published::new();
    let (first, second) = (release("1.0.0", &[]), release("2.0.0", &[]));
    published.add(&first);
    published.add(&second);
    let disk = published.disk(&first, "interval = 86400\nsoak = 1\ndeadline = 600");
    disk.install_in_b(&second, "2.0.0", State::Healthy);
    rot(&disk, Slot::A, "/usr/bin/containerd", 3);
    let (mut host, ready) = boot(&disk.config());
    assert_eq!((ready.slot, ready.version.as_str()), (Some(Slot::B), "2.0.0"));

    let verified = sh(&mut host, "berth-updater verify");
    assert!(verified.contains("slot a: 1.0.0 had rotted"), "{verified}");
    assert!(verified.contains("and is repaired"), "{verified}");
    let again = sh(&mut host, "berth-updater verify");
    assert!(again.contains("slot a: 1.0.0 is whole"), "{again}");
    let history = sh(&mut host, "berth-updater history --why");
    assert!(history.contains("1.0.0  repaired: it had rotted"), "{history}");

    // Not one block is left on /var.
    let most = "busybox fallocate -l $(($(stat -f -c %a /var) * 4096 - (64 << 20))) /var/lib/most";
    sh(&mut host, most);
    let rest = "busybox dd if=/dev/zero of=/var/lib/rest bs=64k 2>&1 | busybox grep 'No space'";
    sh(&mut host, rest);
    sh(&mut host, "echo more > /var/lib/more; ! test -s /var/lib/more");
    published.add(&release("3.0.0", &[]));
    let applied = host.shell("berth-updater apply", SOON).expect("an answer");
    assert_eq!(applied.status, 0, "{}", applied.stdout);
    host.wait_for_line("berth-picker: slot a, version 3.0.0, on trial", BOOT).expect("slot a");
    host.wait_ready(BOOT).expect("the host gets ready");
    host.wait_for_line("berth: slot a is healthy", SOON).expect("the end of the trial");
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");
    inspect(&disk.path());
}

#[test]
fn a_healthy_slot_that_cannot_start_any_more_gives_way() {
    let second = release("2.0.0", &[]);
    let disk = Disk::copy_of(&release("1.0.0", &[]));
    disk.install_in_b(&second, "2.0.0", State::Healthy);
    rot(&disk, Slot::B, "/usr/lib/berth/init", usize::MAX);
    let mut host = start(&disk.config());
    host.wait_for_line("berth-picker: slot b, version 2.0.0, healthy", BOOT).expect("slot b");
    host.wait_for_line("berth: slot b is given up", BOOT).expect("its end");
    let ready = host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!((ready.slot, ready.version.as_str()), (Some(Slot::A), "1.0.0"));
    let history = sh(&mut host, "berth-updater history --why");
    assert!(history.contains("/usr/lib/berth/init"), "{history}");
}
