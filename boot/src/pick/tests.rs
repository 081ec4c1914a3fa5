use crate::fake::{Event, Fake, entry, uki};
use contract::Slot;
use contract::layout::{BLOCK, Partition, RECORD_OFFSETS};
use contract::record::{Record, SlotEntry, State};
use contract::text::Text;
use proptest::prelude::*;

const SECTOR_SIZES: [u32; 3] = [512, 2048, 4096];
const A: usize = 0;
const B: usize = 1;

fn record(a: State, b: State) -> Record {
    Record { sequence: 7, slots: [entry(Slot::A, a, 1), entry(Slot::B, b, 2)] }
}

fn trial(tries: u8) -> State {
    State::Trial { tries }
}

/// Both slots healthy, B preferred.
fn both() -> Fake {
    Fake::new(512, record(State::Healthy, State::Healthy))
}

fn lose_record(fake: &mut Fake) {
    for offset in RECORD_OFFSETS {
        fake.put(Partition::State, offset, &[0xff; BLOCK]);
    }
}

#[test]
fn a_healthy_slot_stays_through_power_cycles_and_nothing_is_written() {
    for size in SECTOR_SIZES {
        let mut fake = Fake::new(size, record(State::Healthy, State::Empty));
        for _ in 0..20 {
            assert_eq!(fake.boot(), Some(Slot::A));
            assert_eq!(fake.said().last(), Some(&"slot a, version 1.0.0, healthy"));
            assert_eq!(fake.writes(), 0);
        }
    }
}

#[test]
fn a_trial_is_counted_durably_before_it_starts_and_falls_back_at_zero() {
    for size in SECTOR_SIZES {
        let mut fake = Fake::new(size, record(State::Healthy, trial(2)));
        for left in [1, 0] {
            assert_eq!(fake.boot(), Some(Slot::B));
            assert_eq!(fake.record().expect("record").slots[B].state, trial(left));
            let copy = fake.at(Partition::State, RECORD_OFFSETS[left as usize]);
            assert_eq!(fake.events[..2], [Event::Wrote(copy), Event::Flushed]);
        }
        assert_eq!(fake.boot(), Some(Slot::A));
        assert_eq!(fake.record().expect("record").slots[B].state, State::GivenUp);
        assert_eq!(fake.boot(), Some(Slot::A));
        assert_eq!(fake.writes(), 0, "a spent trial is noted once");
        assert_eq!(
            fake.journal(),
            [
                "slot b, version 1.1.0, on trial, 1 start left",
                "slot b, version 1.1.0, on trial, 0 starts left",
                "slot b given up: no tries left"
            ]
        );
    }
}

type Damage = (&'static str, fn(&mut Vec<u8>));

#[test]
fn a_uki_that_is_not_whole_falls_back_in_the_same_boot() {
    let len = uki(Slot::B).len();
    let cases: [Damage; 4] = [
        ("one bit flipped", |uki| uki[700_000] ^= 4),
        ("last byte changed", |uki| *uki.last_mut().expect("a byte") ^= 0x80),
        ("truncated", |uki| uki[600_000..].fill(0)),
        ("zeroed", |uki| uki.fill(0)),
    ];
    for size in SECTOR_SIZES {
        for (name, damage) in cases {
            let mut fake = Fake::new(size, record(State::Healthy, State::Healthy));
            let mut bytes = uki(Slot::B);
            damage(&mut bytes);
            assert_eq!(bytes.len(), len);
            fake.put(Partition::Boot(Slot::B), 0, &bytes);
            assert_eq!(fake.boot(), Some(Slot::A), "{name}");
            let lost = "slot b given up: UKI does not match its SHA-256";
            assert_eq!(fake.said(), [lost, "slot a, version 1.0.0, healthy"], "{name}");
            assert_eq!(fake.journal(), [lost], "{name}");
            assert_eq!(fake.boot(), Some(Slot::A), "{name}");
            assert_eq!(fake.writes(), 0, "{name}");
        }
    }
}

/// (fault, what makes it, reason that the slot is given up for)
type Failure = (&'static str, fn(&mut Fake), &'static str);

#[test]
fn every_failure_of_a_slot_leads_to_the_other() {
    fn with_len(fake: &mut Fake, len: u64) {
        let mut record = record(State::Healthy, State::Healthy);
        record.slots[B].uki_len = len;
        fake.put(Partition::State, 0, &record.encode());
    }
    let cases: [Failure; 7] = [
        (
            "unreadable",
            |fake| {
                let at = fake.at(Partition::Boot(Slot::B), 1 << 20);
                fake.unreadable.push(at..at + 512);
            },
            "read boot-b at byte 1048576: device error",
        ),
        ("length 0", |fake| with_len(fake, 0), "UKI of 0 bytes cannot be in boot-b"),
        (
            "length reaches into the trailer",
            |fake| with_len(fake, (2 << 20) - 4095),
            "UKI of 2093057 bytes cannot be in boot-b",
        ),
        (
            "length beyond everything",
            |fake| with_len(fake, u64::MAX),
            "UKI of 18446744073709551615 bytes cannot be in boot-b",
        ),
        (
            "refused",
            |fake| fake.refused.push(uki(Slot::B)),
            "firmware does not load the UKI: load error",
        ),
        (
            "came back",
            |fake| fake.returning.push(uki(Slot::B)),
            "UKI was started and came back: no error",
        ),
        (
            "no partition",
            |fake| {
                fake.table.entries.pop();
                let encoded = fake.table.encode();
                fake.disk[..encoded.primary.len()].copy_from_slice(&encoded.primary);
            },
            "there is no partition boot-b",
        ),
    ];
    for (name, cause, reason) in cases {
        let mut fake = both();
        cause(&mut fake);
        assert_eq!(fake.boot(), Some(Slot::A), "{name}");
        let after = fake.record().expect("record");
        assert_eq!(after.slots[B].state, State::GivenUp, "{name}");
        assert_eq!(after.slots[B].reason.as_str(), reason, "{name}");
        assert_eq!(fake.journal(), [format!("slot b given up: {reason}")], "{name}");
    }
}

#[test]
fn a_read_that_fails_once_is_forgiven() {
    let mut fake = both();
    fake.hiccups = 1;
    assert_eq!(fake.boot(), Some(Slot::B));
    assert_eq!(fake.record(), Some(record(State::Healthy, State::Healthy)));
}

#[test]
fn a_torn_newer_copy_leaves_the_older() {
    let mut fake = both();
    let mut newer = record(State::Healthy, State::GivenUp).successor().encode();
    newer[BLOCK / 2..].fill(0);
    fake.put(Partition::State, RECORD_OFFSETS[1], &newer);
    assert_eq!(fake.boot(), Some(Slot::B));
    assert_eq!(fake.said()[0], "boot record copy 2: checksum does not match");
}

#[test]
fn without_a_record_the_partitions_tell_and_no_record_is_invented() {
    for size in SECTOR_SIZES {
        let mut fake = Fake::new(size, record(State::Healthy, State::Healthy));
        lose_record(&mut fake);
        assert_eq!(fake.boot(), Some(Slot::A), "the older slot");
        assert_eq!(
            fake.said()[2..],
            [
                "boot record lost: slots are known from their own partitions",
                "slot a, version 1.0.0, last resort, given up before: boot record was lost"
            ]
        );
        fake.put(Partition::Boot(Slot::A), 0, &[0; BLOCK]);
        assert_eq!(fake.boot(), Some(Slot::B));
        assert_eq!(fake.record(), None);
        assert_eq!(fake.journal().len(), 2, "each news once: {:?}", fake.journal());
    }
}

#[test]
fn a_lost_state_partition_does_not_stop_a_boot() {
    let mut fake = both();
    let at = fake.at(Partition::State, 0);
    fake.unreadable.push(at..at + (4 << 20));
    fake.unwritable.push(at..at + (4 << 20));
    assert_eq!(fake.boot(), Some(Slot::A));
    fake.table.entries.remove(1);
    let encoded = fake.table.encode();
    fake.disk[..encoded.primary.len()].copy_from_slice(&encoded.primary);
    assert_eq!(fake.boot(), Some(Slot::A));
    assert_eq!(fake.said()[0], "boot record copy 1: not found");
}

#[test]
fn a_trial_that_cannot_be_counted_waits_for_everything_else() {
    let unwritable = |fake: &mut Fake| {
        let at = fake.at(Partition::State, 0);
        fake.unwritable.push(at..at + (2 << 20));
    };
    let mut fake = Fake::new(512, record(State::Healthy, trial(3)));
    unwritable(&mut fake);
    assert_eq!(fake.boot(), Some(Slot::A));
    let lines =
        ["write boot record: device error", "slot b set aside: its start cannot be counted"];
    assert_eq!(fake.said()[..2], lines);
    assert_eq!(fake.journal(), lines);

    let mut fake = Fake::new(512, record(State::Empty, trial(3)));
    unwritable(&mut fake);
    assert_eq!(fake.boot(), Some(Slot::B), "better than nothing");
    assert_eq!(fake.said().last(), Some(&"slot b, version 1.1.0, on trial, 2 starts left"));
}

#[test]
fn nothing_bootable_says_why_and_does_not_flood_the_journal() {
    let mut fake = both();
    fake.journal_as_init(5);
    for slot in Slot::ALL {
        fake.put(Partition::Boot(slot), 0, &[0; BLOCK]);
    }
    let end = "nothing is bootable: slot a: UKI does not match its SHA-256; \
               slot b: UKI does not match its SHA-256";
    for round in 0..5 {
        assert_eq!(fake.boot(), None);
        assert_eq!(fake.said().last(), Some(&end));
        assert_eq!(fake.writes() == 0, round > 0, "round {round}");
    }
    assert_eq!(fake.journal().len(), 4);
    fake.journal_as_init(9);
    assert_eq!(fake.boot(), None);
    assert_eq!(fake.journal().len(), 8, "news again after somebody else wrote");

    let mut fake = Fake::new(512, Record { sequence: 1, slots: [SlotEntry::EMPTY; 2] });
    assert_eq!(fake.boot(), None);
    assert_eq!(fake.said(), ["nothing is bootable: slot a: empty; slot b: empty"]);

    let mut fake = both();
    lose_record(&mut fake);
    for slot in Slot::ALL {
        fake.put(Partition::Boot(slot), (2 << 20) - BLOCK as u64, &[0; BLOCK]);
    }
    assert_eq!(fake.boot(), None);
    assert!(fake.said().last().is_some_and(|line| line.contains("no whole trailer")));
}

#[test]
fn slots_given_up_are_started_when_nothing_better_is_left() {
    let mut given_up = record(State::GivenUp, State::GivenUp);
    given_up.slots[A].reason = Text::new("runtime did not get ready");
    let mut fake = Fake::new(512, given_up);
    fake.put(Partition::Boot(Slot::B), 0, &[0; BLOCK]);
    assert_eq!(fake.boot(), Some(Slot::A));
    assert_eq!(
        fake.said().last(),
        Some(&"slot a, version 1.0.0, last resort, given up before: runtime did not get ready")
    );
    assert_eq!(fake.boot(), Some(Slot::A));
    assert_eq!(fake.writes(), 0, "the same reason is not written again");
}

#[test]
fn the_backup_partition_table_serves() {
    for size in SECTOR_SIZES {
        let mut fake = Fake::new(size, record(State::Healthy, State::Healthy));
        fake.disk[size as usize..2 * size as usize].fill(0);
        assert_eq!(fake.boot(), Some(Slot::B));
        assert_eq!(fake.said()[0], "partition table: no GPT signature; using the backup");
        let last = fake.disk.len() - size as usize;
        fake.disk[last..].fill(0);
        assert_eq!(fake.boot(), None);
        assert_eq!(
            fake.said(),
            ["nothing is bootable: no partition table: primary: no GPT signature; \
                 backup: no GPT signature"]
        );
    }
}

#[test]
fn no_memory_is_an_answer() {
    let mut fake = both();
    fake.memory = 1 << 20;
    assert_eq!(fake.boot(), None);
    assert!(fake.said().last().is_some_and(|line| line.contains("out of memory")));
    fake.memory = 0;
    assert_eq!(fake.boot(), None);
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Empty),
        Just(State::Healthy),
        Just(State::GivenUp),
        (0..4u8).prop_map(trial),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What starts is always what the record says (the fake machine compares it), and as long as
    /// one whole slot was ever written, something starts.
    #[test]
    fn something_whole_starts(
        a in any_state(),
        b in any_state(),
        damaged in any::<[bool; 2]>(),
        lost_copies in any::<[bool; 2]>(),
        readonly in any::<bool>(),
    ) {
        let states = [a, b];
        let mut fake = Fake::new(512, record(a, b));
        let older = Record { sequence: 6, ..record(a, b) };
        fake.put(Partition::State, RECORD_OFFSETS[1], &older.encode());
        for i in 0..2 {
            if damaged[i] {
                fake.put(Partition::Boot(Slot::ALL[i]), 5 * 4096, &[0; BLOCK]);
            }
            if lost_copies[i] {
                fake.put(Partition::State, RECORD_OFFSETS[i] + 4, &[0xff; 512]);
            }
        }
        if readonly {
            let len = fake.disk.len() as u64;
            fake.unwritable.push(0..len);
        }
        let known = |i: usize| lost_copies == [true; 2] || states[i] != State::Empty;
        let possible = (0..2).any(|i| known(i) && !damaged[i]);
        prop_assert_eq!(fake.boot().is_some(), possible, "{:?}", fake.said());
    }

    /// A power cut between any two sectors of any write that the picker does leaves a disk that
    /// still starts something.
    #[test]
    fn any_write_may_be_cut_short(a in any_state(), b in any_state(), cut in 0..9usize) {
        let states = [a, b];
        let before = Fake::new(512, record(a, b));
        let mut after = Fake::new(512, record(a, b));
        after.boot();
        let writes: Vec<u64> = after.events.iter().filter_map(|e| {
            if let Event::Wrote(at) = e { Some(*at) } else { None }
        }).collect();
        for done in 0..writes.len() {
            let mut torn = Fake::new(512, record(a, b));
            torn.disk.copy_from_slice(&before.disk);
            for (i, at) in writes[..=done].iter().map(|&at| at as usize).enumerate() {
                let len = if i == done { cut * 512 } else { BLOCK };
                torn.disk[at..at + len.min(BLOCK)]
                    .copy_from_slice(&after.disk[at..at + len.min(BLOCK)]);
            }
            prop_assert!(torn.record().is_some());
            prop_assert_eq!(torn.boot().is_some(), states != [State::Empty; 2]);
        }
    }
}
