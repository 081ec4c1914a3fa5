//! Controllers, cards and buttons of machines other than the usual virtual one.

use e2e::*;
use qemu::{Config, Disk as Attached, Machine, Nic};
use serde_json::json;

/// Boots the kernel for real servers from such a disk, with such a network card.
fn boots_from(disk: Attached, driver: &str, nic: Nic, nic_driver: &str) -> Machine {
    let image = Disk::copy_of(generic_image());
    let (mut host, _) = boot(&Config { cpus: 2, disk, nic, ..image.config() });
    let controllers = sh(&mut host, "readlink -f /sys/block/sda/device");
    sh(&mut host, &format!("ls /sys/bus/*/drivers/{driver}"));
    assert!(controllers.contains(if driver == "ahci" { "/ata" } else { "/usb" }), "{controllers}");
    assert!(sh(&mut host, "cat /proc/mounts").contains("/dev/sda9 /var ext4 "));
    let card = sh(&mut host, "readlink /sys/class/net/eth0/device/driver");
    assert!(card.trim().ends_with(nic_driver), "{card}");
    sh_until(&mut host, "ip -4 addr show eth0", |text| text.contains("10.0.2.15/24"));
    host
}

#[test]
fn a_server_with_a_sata_disk() {
    let mut host = boots_from(Attached::Ahci, "ahci", Nic::E1000e, "/e1000e");
    // Ctrl-Alt-Del on its keyboard restarts it, in order.
    let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
    host.control("send-key", json!({ "keys": keys })).expect("pressed");
    host.wait_for_line("berth: shutdown: restarting", SOON).expect("it was heard");
    host.wait_for_line("berth: shutdown: done", SOON).expect("an orderly end");
    host.wait_for_line("berth-picker: slot a", SOON).expect("a restart");
}

#[test]
fn a_server_that_starts_from_usb() {
    boots_from(Attached::Usb, "usb-storage", Nic::Igb, "/igb");
}
