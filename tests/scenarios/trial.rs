//! What ends a trial badly, once the kernel runs, and that the other slot comes up by itself.

use contract::Slot;
use contract::record::State;
use e2e::*;
use qemu::{Config, Machine};
use std::path::Path;

/// A disk with `image` in slot A and `next` on trial in slot B; `config` is the host's configuration.
fn on_trial(image: &Path, next: &Path, config: &str) -> Disk {
    let disk = Disk::copy_of(image);
    disk.install_in_b(next, "2.0.0", State::Trial { tries: 2 });
    disk.put_on_esp("host.toml", config);
    disk
}

/// Starts the host in slot B.
fn start_in_b(disk: &Disk) -> Machine {
    let mut host = start(&disk.config());
    host.wait_for_line("berth-picker: slot b, version 2.0.0, on trial", BOOT).expect("slot b");
    host
}

/// Waits until slot B is given up, and the picker starts slot A again.
fn gives_up(host: &mut Machine) {
    host.wait_for_line("berth: slot b is given up", BOOT).expect("the end of the trial");
    host.wait_for_line("berth-picker: slot a, version 1.0.0, healthy", BOOT).expect("slot a");
}

/// Pulls the plug: `why` stands in the record and in the journal.
fn stays_known(mut host: Machine, disk: &Disk, why: &str) {
    host.pull_plug();
    let report = berth_ok(["inspect".as_ref(), disk.path().as_os_str()]);
    assert!(report.matches(why).count() >= 2, "in the record and in the journal: {report}");
}

#[test]
fn a_workload_that_never_gets_healthy_costs_the_slot_its_trial() {
    let config = "[[workload]]\nname = \"app\"\nfile = \"app.yaml\"\ntimeout = 60\n";
    let disk = on_trial(docker_image(), docker_image(), config);
    disk.put_on_esp("app.yaml", HEALTHY_IN_SLOT_A);
    let mut host = start_in_b(&disk);
    host.wait_for_line("error: not everything that was asked for runs", BOOT).expect("the reason");
    let why = "not everything that was asked for runs: 0 of 1 workloads are up";
    gives_up(&mut host);
    let ready = host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!((ready.slot, ready.workloads_up), (Some(Slot::A), 1));
    stays_known(host, &disk, why);
}

const HEALTHY_IN_SLOT_A: &str = r#"
services:
  app:
    image: berth.local/busybox:1
    command: ["busybox", "sleep", "100000"]
    healthcheck:
      test: ["CMD", "busybox", "test", "${BERTH_SLOT}", "=", "a"]
      interval: 5s
      retries: 2
"#;

#[test]
fn a_workload_that_turns_unhealthy_during_the_trial_costs_the_slot_its_trial() {
    let config = "[update]\nsoak = 20\ndeadline = 200\n\
                  [[workload]]\nname = \"app\"\nfile = \"app.yaml\"\ntimeout = 100\n";
    let disk = on_trial(docker_image(), docker_image(), config);
    disk.put_on_esp("app.yaml", HEALTHY_FOR_A_WHILE_IN_SLOT_B);
    let mut host = start_in_b(&disk);
    assert_eq!(host.wait_ready(BOOT).expect("the host gets ready").workloads_up, 1);
    gives_up(&mut host);
    stays_known(host, &disk, "workload app: app is running unhealthy");
}

const HEALTHY_FOR_A_WHILE_IN_SLOT_B: &str = r#"
services:
  app:
    image: berth.local/busybox:1
    command: ["busybox", "sh", "-c", "busybox sleep 12; touch /tmp/$BERTH_SLOT; busybox sleep 100000"]
    environment: { BERTH_SLOT: "${BERTH_SLOT}" }
    healthcheck:
      test: ["CMD", "busybox", "test", "!", "-e", "/tmp/b"]
      interval: 4s
      retries: 2
"#;

#[test]
fn a_kernel_that_panics_costs_the_slot_its_trial() {
    let disk = Disk::copy_of(containerd_image());
    disk.install_in_b(panicking_image(), "2.0.0", State::Trial { tries: 1 });
    let mut host = start(&disk.config());
    host.wait_for_line("berth-picker: slot b, version 2.0.0, on trial, 0 starts", BOOT).expect("b");
    host.wait_for_line("Kernel panic - not syncing", BOOT).expect("the panic");
    host.wait_for_line("berth-picker: slot b given up: no tries left", BOOT).expect("a restart");
    host.wait_for_line("berth-picker: slot a, version 1.0.0, healthy", BOOT).expect("slot a");
    host.wait_for_line("warning: the kernel panicked: ", BOOT).expect("the panic is remembered");
    host.wait_ready(BOOT).expect("the host gets ready");
    let kept =
        sh(&mut host, "busybox cat /var/lib/berth/last-panic; ls /sys/fs/pstore | busybox wc -l");
    assert!(kept.contains("Kernel panic - not syncing") && kept.ends_with("\n0\n"), "{kept}");
}

#[test]
fn a_host_without_a_network_costs_the_slot_its_trial() {
    let config = "[update]\nsoak = 1\ndeadline = 40\n";
    let disk = on_trial(containerd_image(), offline_image(), config);
    let mut host = start_in_b(&disk);
    gives_up(&mut host);
    stays_known(host, &disk, "network");
}

#[test]
fn an_init_that_hangs_is_ended_by_the_hardware_watchdog() {
    let disk = Disk::copy_of(containerd_image());
    disk.install_in_b(hanging_image(), "2.0.0", State::Trial { tries: 1 });
    let mut host = start(&Config { watchdog: true, ..disk.config() });
    host.wait_for_line("berth-picker: slot b, version 2.0.0, on trial, 0 starts", BOOT).expect("b");
    host.wait_for_line("this init does nothing from here on", BOOT).expect("it hangs");
    host.wait_for_line("berth-picker: slot b given up: no tries left", SOON * 2).expect("a reset");
    host.wait_for_line("berth-picker: slot a, version 1.0.0, healthy", BOOT).expect("slot a");
    host.wait_ready(BOOT).expect("the host gets ready");
    // The one that is well has it, too.
    let state = sh(&mut host, "cd /sys/class/watchdog/watchdog0; cat identity state timeout");
    assert_eq!(state, "i6300ESB timer\nactive\n60\n");
}
