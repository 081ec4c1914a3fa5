//! Disks: growth, other controllers, blocks that rot.

use contract::Slot;
use contract::layout::Partition;
use e2e::*;
use qemu::{Config, Machine};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

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

/// A second disk for a machine.
struct Second {
    folder: tempfile::TempDir,
}

impl Second {
    fn new(len: u64) -> Second {
        let second = Second { folder: tempfile::tempdir().expect("a folder") };
        File::create(second.path()).and_then(|file| file.set_len(len)).expect("a disk");
        second
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("second.raw")
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(self.path()).expect("the disk")
    }

    /// How much of it was ever written.
    fn blocks(&self) -> u64 {
        let file = self.file();
        file.sync_all().expect("written");
        file.metadata().expect("its size").blocks()
    }

    /// A machine that it is attached to as such a device, with a serial number.
    fn attached(&self, device: &str, config: Config) -> Config {
        let drive = format!("if=none,id=second,format=raw,file={}", self.path().display());
        let device = format!("{device},drive=second,serial=VOLUMES-1");
        let words = ["-drive", &drive, "-device", &device].map(OsString::from);
        Config { extra: words.to_vec(), ..config }
    }
}

fn power_off(host: &mut Machine) {
    host.power_button().expect("pressed");
    host.wait_for_line("berth: shutdown: done", SOON).expect("an orderly end");
    host.wait_exit(SOON).expect("the end");
}

const NAMED: &str = "[data]\ndisk = \"VOLUMES-1\"\n";
/// Where the partition on a disk of its own begins.
const START: u64 = 1 << 20;

#[test]
fn a_disk_of_its_own_for_var_is_taken_when_empty_repaired_when_damaged_and_kept_when_lost() {
    let disk = Disk::copy_of(containerd_image());
    let second = Second::new(1 << 30);
    disk.put_on_esp("host.toml", NAMED);

    // Somebody else's: it is left alone, and the host says so and ends in order.
    second.file().write_all_at(b"precious", 700_000).expect("written");
    let before = second.blocks();
    let mut host = start(&second.attached("virtio-blk-pci", disk.config()));
    let refused = "disk vdb (VOLUMES-1) holds something that is not Berth's, and is left alone";
    host.wait_for_line(&format!("berth: warning: /var cannot be used: {refused}"), BOOT)
        .expect("the reason");
    host.wait_for_line("berth: hint: no workload starts: correct `[data]`", SOON).expect("a hint");
    host.wait_for_line("berth: network: up", SOON).expect("a network all the same");
    power_off(&mut host);
    let mut kept = [0; 8];
    second.file().read_exact_at(&mut kept, 700_000).expect("read");
    assert_eq!(&kept, b"precious");
    assert_eq!(second.blocks(), before, "it was written to");

    // Empty: it becomes ours, in spite of power that fails meanwhile. The system's own disk is not
    // touched.
    second.file().write_all_at(&[0; 8], 700_000).expect("written");
    for milliseconds in [0, 40, 150, 400] {
        let mut host = start(&second.attached("virtio-blk-pci", disk.config()));
        let lines = ["berth: preparing disk VOLUMES-1 for /var", "berth: /var is on disk vdb"];
        host.wait_for("the disk", BOOT, |line| {
            lines.iter().any(|known| line.text.contains(known)).then_some(())
        })
        .expect("it begins");
        std::thread::sleep(Duration::from_millis(milliseconds));
        host.pull_plug();
    }
    let (mut host, _) = boot(&second.attached("virtio-blk-pci", disk.config()));
    assert!(sh(&mut host, "cat /proc/mounts").contains("/dev/vdb1 /var ext4 rw,"));
    sh(&mut host, "mkdir /var/lib/app && echo mine > /var/lib/app/file");
    power_off(&mut host);
    judge("sgdisk", ["-v".as_ref(), second.path().as_os_str()]);

    // Damaged, larger, under another name of the kernel, and the configuration cannot be read.
    second.file().write_all_at(&[0xff; 8192], START).expect("damaged");
    second.file().set_len(2 << 30).expect("larger");
    disk.put_on_esp("host.toml", "[data\n");
    let config = second.attached("nvme", disk.config());
    let mut host = start(&config);
    host.wait_for_line("berth: /var is on disk nvme0n1", BOOT).expect("the disk");
    host.wait_for_line("berth: warning: /var was damaged and repaired", SOON).expect("a repair");
    host.wait_for_line("berth: warning: running on the last good host configuration", SOON)
        .expect("the last good one");
    host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!(sh(&mut host, "cat /var/lib/app/file").trim(), "mine");
    let blocks: u64 = sh(&mut host, "stat -f -c '%b' /var").trim().parse().expect("a number");
    assert!(blocks * 4096 > 1_900_000_000, "{blocks} blocks");
    power_off(&mut host);
    judge("sgdisk", ["-v".as_ref(), second.path().as_os_str()]);

    // Lost: it is not made anew, and what is left of it stays for whoever can do more.
    disk.put_on_esp("host.toml", NAMED);
    lose(&second);
    let before = second.blocks();
    let mut host = start(&config);
    host.wait_for_line("berth: warning: /var cannot be used: it cannot be repaired:", BOOT)
        .expect("the reason");
    host.wait_for_line("berth: network: up", SOON).expect("a network all the same");
    power_off(&mut host);
    assert_eq!(second.blocks(), before, "it was written to");

    // Unless that is asked for.
    disk.put_on_esp("host.toml", &format!("{NAMED}unrepairable = \"replace\"\n"));
    let mut host = start(&config);
    host.wait_for_line("berth: warning: /var is lost and made anew, as told", BOOT).expect("why");
    host.wait_ready(BOOT).expect("the host gets ready");
    sh(&mut host, "! test -e /var/lib/app");
}

/// Takes all superblocks and everything else out of the filesystem, but not the partition table.
fn lose(second: &Second) {
    let mut file = second.file();
    let len = file.metadata().expect("its size").len();
    let (mut at, zeros) = (START, vec![0; 1 << 20]);
    // Holes stay holes.
    while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at))
        && data + START < len
    {
        let end = (data + zeros.len() as u64).min(len - START);
        file.seek(SeekFrom::Start(data)).expect("there");
        file.write_all(&zeros[..(end - data) as usize]).expect("written");
        at = end;
    }
}

/// Whether containers find no room on `/var`, to the block or so.
fn is_full(host: &mut Machine) -> bool {
    let free: u64 = sh(host, "stat -f -c %a /var").trim().parse().expect("a number");
    free < 16
}

#[test]
fn a_full_var_stops_neither_boot_nor_shutdown_and_free_space_goes_back_to_the_disk() {
    let disk = Disk::copy_of(docker_image());
    let config = disk.host_config("[data]\ntrim = 0\n");
    let (mut host, _) = boot(&Config { host_config: Some(config), ..disk.config() });
    let busybox = "berth.local/busybox:1 busybox";
    sh(&mut host, &format!("docker run -d --restart=always --name one {busybox} sleep 100000"));
    // It is long since free space was given back.
    sh(&mut host, "echo 1 > /var/lib/berth/trimmed");
    sh(&mut host, "busybox dd if=/dev/zero of=/var/lib/much bs=1M count=200");
    let most = "busybox fallocate -l $(($(stat -f -c %a /var) * 4096 - (64 << 20))) /var/lib/most";
    sh(&mut host, most);
    // A container fills what is left for containers.
    let rest = format!(
        "docker run --name two -u 0 -v rest:/rest {busybox} dd if=/dev/zero of=/rest/x bs=64k"
    );
    let full = host.shell(&rest, SOON).expect("the shell answers");
    assert!(full.status != 0 && full.stdout.contains("No space left"), "{}", full.stdout);
    assert!(is_full(&mut host));
    let bounds = sh(&mut host, "docker inspect -f '{{json .HostConfig.LogConfig}}' one");
    assert!(bounds.contains("\"max-file\":\"3\",\"max-size\":\"10m\""), "{bounds}");
    power_off(&mut host);

    let (mut host, _) = boot(&disk.config());
    assert!(is_full(&mut host));
    sh_until(&mut host, "docker exec one busybox echo up 2>&1", |out| out.trim() == "up");
    sh(&mut host, "docker rm -v two && docker volume rm rest");
    sh(&mut host, "busybox rm /var/lib/much /var/lib/most && busybox sync");
    let before = std::fs::metadata(disk.path()).expect("its size").blocks();
    let line = "MiB of free space given back to the disk";
    host.wait_for_line(line, SOON).expect("trimmed");
    let after = std::fs::metadata(disk.path()).expect("its size").blocks();
    assert!(after + (200 << 20) / 512 < before, "{before} blocks, and {after} afterwards");
    power_off(&mut host);
}

#[test]
fn a_root_block_that_rots_on_an_nvme_disk_is_never_served() {
    let disk = Disk::copy_of(containerd_image());
    let (mut host, _) = boot(&Config { disk: qemu::Disk::Nvme, ..disk.config() });
    assert!(sh(&mut host, "cat /proc/mounts").contains("/dev/nvme0n1p9 /var ext4 "));
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
