//! The slot picker under real firmware: every way in which a slot or the record can fail.

use contract::Slot;
use contract::layout::{BLOCK, Partition, RECORD_OFFSETS};
use contract::record::{Record, State, read_copies};
use e2e::*;
use qemu::{Machine, OnReboot};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A disk whose slots both hold a system, to be broken.
struct Bench {
    disk: Disk,
    file: File,
    state: u64,
    boot: [u64; 2],
    record: Record,
}

impl Bench {
    /// Slot A healthy with version 1.0.0, slot B a copy of it called 2.0.0 in `b`.
    fn new(b: State) -> Bench {
        let disk = Disk::copy_of(containerd_image());
        let file = File::options().read(true).write(true).open(disk.path()).expect("the disk");
        let at = |partition| place(&disk.path(), partition);
        let state = at(Partition::State).offset;
        let boot = Slot::ALL.map(|slot| at(Partition::Boot(slot)).offset);
        let record = disk.install_in_b(containerd_image(), "2.0.0", b);
        Bench { disk, file, state, boot, record }
    }

    fn stored(&self) -> Record {
        let copies = RECORD_OFFSETS.map(|at| {
            let mut block = [0; BLOCK];
            self.file.read_exact_at(&mut block, self.state + at).expect("a copy");
            block
        });
        read_copies([&copies[0], &copies[1]]).record.expect("a record")
    }

    fn write_uki(&self, slot: Slot, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.boot[slot.index()] + at).expect("written");
    }

    /// Starts the machine and waits for a line of the picker.
    fn expect(&self, lines: &[&str]) -> Machine {
        let mut machine = start(&self.disk.config());
        for line in lines {
            machine.wait_for_line(&format!("berth-picker: {line}"), BOOT).expect("the line");
        }
        machine
    }
}

const TRIAL: State = State::Trial { tries: 2 };

#[test]
fn a_trial_counts_down_and_falls_back_at_zero() {
    let bench = Bench::new(TRIAL);
    bench.expect(&["slot b, version 2.0.0, on trial, 1 start left"]).pull_plug();
    assert_eq!(bench.stored()[Slot::B].state, State::Trial { tries: 1 });
    bench.expect(&["slot b, version 2.0.0, on trial, 0 starts left"]).pull_plug();
    bench.expect(&["slot b given up: no tries left", "slot a, version 1.0.0, healthy"]);
    assert_eq!(bench.stored()[Slot::B].state, State::GivenUp);
}

#[test]
fn a_slot_whose_kernel_image_is_not_whole_falls_back_in_the_same_boot() {
    let whole = Bench::new(State::Healthy);
    let len = whole.record[Slot::B].uki_len;
    let mut flipped = [0];
    whole.file.read_exact_at(&mut flipped, whole.boot[Slot::B.index()] + len / 3).expect("a byte");
    flipped[0] ^= 1;
    drop(whole);
    let truncated = vec![0; (len / 2) as usize];
    let cases: [(&str, u64, &[u8]); 3] = [
        ("truncated", len - len / 2, &truncated),
        ("a flipped bit", len / 3, &flipped),
        ("zeroed", 0, &[0; BLOCK]),
    ];
    for (case, at, bytes) in cases {
        let bench = Bench::new(State::Healthy);
        bench.write_uki(Slot::B, at, bytes);
        let mut machine = bench.expect(&[
            "slot b given up: UKI does not match its SHA-256",
            "slot a, version 1.0.0, healthy",
        ]);
        // That slot A, the same in all cases, then gets ready is seen once.
        if case == "truncated" {
            machine.wait_ready(BOOT).expect("the system of slot a");
        }
        machine.pull_plug();
        let stored = bench.stored();
        assert_eq!(stored[Slot::B].state, State::GivenUp, "{case}");
        assert_eq!(stored[Slot::A].state, State::Healthy, "{case}");
    }
}

#[test]
fn a_torn_record_falls_back_to_the_older_copy() {
    let bench = Bench::new(TRIAL);
    // The newer copy would boot A; only half of it arrived.
    let mut newer = bench.record.successor();
    newer.give_up(Slot::B, "not to be seen");
    let at = bench.state + RECORD_OFFSETS[1];
    bench.file.write_all_at(&newer.encode()[..BLOCK / 2], at).expect("half a record");
    bench.expect(&["slot b, version 2.0.0, on trial, 1 start left"]);
}

#[test]
fn without_any_record_a_whole_slot_boots() {
    let bench = Bench::new(State::Healthy);
    for at in RECORD_OFFSETS {
        bench.file.write_all_at(&[0xff; BLOCK], bench.state + at).expect("destroyed");
    }
    let mut machine = bench.expect(&[
        "boot record lost: slots are known from their own partitions",
        "slot a, version 1.0.0, last resort",
    ]);
    machine.wait_ready(BOOT).expect("the host gets ready");
    // What ran is written down again, in both copies.
    machine.wait_for_line("the boot record was lost and is written anew", SOON).expect("the line");
    machine.power_button().expect("pressed");
    machine.wait_exit(SOON).expect("an orderly end");
    let states = bench.stored().slots.map(|entry| entry.state);
    assert_eq!(states, [State::Healthy, State::GivenUp]);
    berth_ok(["inspect".as_ref(), bench.disk.path().as_os_str(), "--verify".as_ref()]);
}

#[test]
fn nothing_bootable_says_so_and_resets() {
    let bench = Bench::new(State::Healthy);
    for slot in Slot::ALL {
        bench.write_uki(slot, 0, &[0; BLOCK]);
    }
    let config = qemu::Config { on_reboot: OnReboot::Exit, ..bench.disk.config() };
    let mut machine = start(&config);
    machine.wait_for_line("berth-picker: nothing is bootable", BOOT).expect("the line");
    machine.wait_exit(SOON * 2).expect("a reset after a minute");
}

#[test]
fn a_healthy_slot_stays_however_often_the_power_goes() {
    let bench = Bench::new(State::Empty);
    let before = bench.stored();
    for _ in 0..20 {
        bench.expect(&["slot a, version 1.0.0, healthy"]).pull_plug();
    }
    assert_eq!(bench.stored(), before);
}
