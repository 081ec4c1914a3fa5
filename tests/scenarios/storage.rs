//! Disks: growth, other controllers, blocks that rot.

use contract::Slot;
use contract::layout::Partition;
use e2e::*;
use std::fs::File;
use std::os::unix::fs::FileExt;

#[test]
fn data_grows_to_the_end_of_the_disk_and_again_when_the_disk_grew() {
    let disk = Disk::copy_of(containerd_image());
    let mut last = 0;
    for _ in 0..2 {
        disk.grow(1 << 30);
        let (mut host, _) = boot(&disk.config());
        let size: u64 = sh(&mut host, "stat -f -c '%b' /var").trim().parse().expect("a number");
        assert!(size * 4096 > last + 900_000_000, "{size} blocks after {last} bytes");
        last = size * 4096;
        host.power_button().expect("pressed");
        host.wait_exit(SOON).expect("an orderly end");
        let verdict = judge("sgdisk", ["-v".as_ref(), disk.path().as_os_str()]);
        assert!(verdict.contains("No problems found."), "{verdict}");
    }
}

#[test]
fn a_disk_with_large_sectors_boots_and_grows() {
    let disk = Disk::copy_of(large_sector_image());
    disk.grow(1 << 30);
    let config = qemu::Config { disk: qemu::Disk::Scsi, ..disk.config() };
    let (mut host, _) = boot(&config);
    assert_eq!(sh(&mut host, "cat /sys/block/sda/queue/logical_block_size").trim(), "4096");
    let size: u64 = sh(&mut host, "stat -f -c '%b' /var").trim().parse().expect("a number");
    assert!(size * 4096 > 4_900_000_000, "{size} blocks");
    // The judges run in the guest: on an image file they take all sectors for small ones.
    let verdict = sh(&mut host, "sgdisk -v /dev/sda");
    assert!(verdict.contains("No problems found."), "{verdict}");
    sh(&mut host, "fsck.vfat -n /dev/sda1");
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");
    berth_ok(["inspect".as_ref(), disk.path().as_os_str(), "--verify".as_ref()]);
}

#[test]
fn boots_from_nvme() {
    let disk = Disk::copy_of(containerd_image());
    boot(&qemu::Config { disk: qemu::Disk::Nvme, ..disk.config() });
}

#[test]
fn a_root_block_that_rots_is_never_served() {
    let disk = Disk::copy_of(containerd_image());
    let (mut host, _) = boot(&disk.config());
    let root = place(&disk.path(), Partition::Root(Slot::A));
    // The disk rots under the running host, in one block of one program.
    let filesystem = format!("{}?offset={}", disk.path().display(), root.offset);
    let blocks = judge("debugfs", ["-R", "blocks /usr/bin/ctr", &filesystem]);
    let block: u64 =
        blocks.split_whitespace().nth(100).expect("a block").parse().expect("a number");
    let file = File::options().read(true).write(true).open(disk.path()).expect("the disk");
    let mut byte = [0];
    file.read_exact_at(&mut byte, root.offset + block * 4096).expect("read");
    file.write_all_at(&[byte[0] ^ 1], root.offset + block * 4096).expect("written");

    let read = "echo 3 > /proc/sys/vm/drop_caches; busybox cat /usr/bin/ctr > /dev/null";
    let output = host.shell(read, SOON).expect("the shell answers");
    assert!(
        output.status != 0 && output.stdout.contains("Input/output error"),
        "{}",
        output.stdout
    );
    // Everything else is served as before.
    sh(&mut host, "busybox cat /usr/bin/containerd > /dev/null");
}
