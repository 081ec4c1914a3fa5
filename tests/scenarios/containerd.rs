//! The variant with containerd alone.

use e2e::*;

#[test]
fn runs_a_container_and_nothing_of_docker() {
    let preload = "images=[\"containers/busybox.toml\"]";
    let sets = ["name=e2e-containerd-busybox", "debug.shell=true", preload];
    let disk = Disk::copy_of(&build("configs/containerd.toml", &sets));
    let (mut host, ready) = boot(&disk.config());
    assert_eq!(ready.runtime, "containerd");
    let output = sh(&mut host, "ctr run --rm berth.local/busybox:1 one busybox echo hello");
    assert_eq!(output.trim(), "hello");
    let docker = host.shell("ls /usr/sbin/dockerd", SOON).expect("the shell answers");
    assert_ne!(docker.status, 0);
}

#[test]
fn a_static_address_is_used() {
    let disk = Disk::copy_of(containerd_image());
    let config = disk.host_config(
        "hostname = \"fixed\"\n[network]\nnameservers = [\"10.0.2.3\"]\n\
         [[network.interface]]\nname = \"52:54:00:12:34:56\"\naddress = [\"10.0.2.77/24\"]\n\
         gateway = \"10.0.2.2\"\n",
    );
    let (mut host, _) = boot(&qemu::Config { host_config: Some(config), ..disk.config() });
    let addresses = sh(&mut host, "ip -4 addr");
    assert!(addresses.contains("10.0.2.77/24") && !addresses.contains("10.0.2.15"), "{addresses}");
    assert!(sh(&mut host, "ip route").contains("default via 10.0.2.2"));
    assert_eq!(sh(&mut host, "hostname").trim(), "fixed");
    assert!(sh(&mut host, "cat /etc/resolv.conf").contains("nameserver 10.0.2.3"));
    // The gateway of QEMU's user network answers, so the address works.
    sh(&mut host, "ping -c 1 -W 10 10.0.2.2");
}

#[test]
fn a_bad_host_configuration_never_stops_a_boot() {
    let disk = Disk::copy_of(containerd_image());
    let good = disk.host_config("hostname = \"good\"\n");
    let (mut host, _) = boot(&qemu::Config { host_config: Some(good), ..disk.config() });
    assert_eq!(sh(&mut host, "hostname").trim(), "good");
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");

    let bad = disk.host_config("hostnam = \"bad\"\n");
    let mut host = start(&qemu::Config { host_config: Some(bad), ..disk.config() });
    let line = host.wait_for_line("unknown field `hostnam`", BOOT).expect("the console says so");
    assert!(line.text.contains(":1:1"), "{}", line.text);
    host.wait_ready(BOOT).expect("the host gets ready all the same");
    assert_eq!(sh(&mut host, "hostname").trim(), "good");
}
