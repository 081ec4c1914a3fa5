//! No power cut may leave a disk from which nothing verified starts.
//!
//! Whole updates are run on a disk in memory that records every write and flush. Then the power is
//! cut after each of them: what was flushed is on the disk, of the rest any subset may be, and the
//! last write may be torn at each sector. For every such disk: whatever can start next, in
//! whichever way, is the old or the new system and whole, and the updater finishes when it runs
//! again.
//!
//! With up to [`power_cut::states::EXHAUSTIVE`] writes since a flush all subsets are visited,
//! beyond that a seeded sample. `BERTH_PROOF=full` takes larger samples and lets the updater finish
//! from every state instead of from some.

mod power_cut {
    pub mod disk;
    pub mod states;
}

use contract::Slot;
use contract::record::{Record, SlotEntry, State};
use power_cut::disk::{Images, Op, SimDisk, entry, release};
use power_cut::states::{Visit, visit, visit_preferred};
use updater::install::{self, Plan};

const OLD: u8 = 1;
const NEW: u8 = 2;
const OLDER: u8 = 3;

/// A disk on which slot A runs, healthy, with the old system; slot B as given.
fn disk(b: Option<(u8, State)>) -> SimDisk {
    let disk = SimDisk::empty();
    let a = SlotEntry { state: State::Healthy, priority: 2, ..entry(OLD) };
    disk.write_slot(Slot::A, OLD, 3);
    let b = b.map_or(SlotEntry::EMPTY, |(version, state)| {
        disk.write_slot(Slot::B, version, 2);
        SlotEntry { state, priority: 1, ..entry(version) }
    });
    disk.write_record(&Record { sequence: 9, slots: [a, b] });
    disk
}

fn install(disk: &SimDisk) {
    let parts = disk.parts();
    let plan = Plan::new(&parts, Slot::A, &release(NEW), 3).expect("it fits");
    if plan.is_staged(&parts).expect("readable") {
        return;
    }
    plan.run(&parts, &mut Images::of(NEW), &mut |_| {}).expect("installed");
}

/// What must hold after the interrupted work was done again.
fn is_on_trial(disk: &SimDisk) {
    let record = install::read_record(&disk.parts()).expect("a record");
    assert_eq!(record[Slot::B].state, State::Trial { tries: 3 });
    assert_eq!(disk.whole(Slot::B, &record[Slot::B]), Ok(()));
}

fn prove_install(name: &str, start: &SimDisk) {
    let ops = start.record_ops(install);
    let seen = visit(start, &ops, &Visit { again: Some(&install), after: &is_on_trial });
    println!("{name}: {} operations, {seen} states", ops.len());
}

#[test]
fn installing_into_an_empty_slot() {
    prove_install("install into an empty slot", &disk(None));
}

#[test]
fn installing_over_an_older_system() {
    prove_install("install over a healthy system", &disk(Some((OLDER, State::Healthy))));
    prove_install("install over a failed system", &disk(Some((OLDER, State::GivenUp))));
}

#[test]
fn going_on_after_an_interruption() {
    let fresh = disk(Some((OLDER, State::Healthy)));
    let ops = fresh.record_ops(install);
    for part in 1..4 {
        let start = fresh.after(&ops[..ops.len() * part / 4]);
        prove_install(&format!("install resumed after {part}/4"), &start);
    }
}

#[test]
fn going_back() {
    let start = disk(Some((OLDER, State::Healthy)));
    let back = |disk: &SimDisk| {
        // When it is on trial already there is nothing left to do.
        let _ = install::roll_back(&disk.parts(), Slot::A, 3, &mut || {});
    };
    let after = |disk: &SimDisk| {
        let record = install::read_record(&disk.parts()).expect("a record");
        assert_eq!(record[Slot::B].state, State::Trial { tries: 3 });
    };
    let ops = start.record_ops(back);
    let seen = visit(&start, &ops, &Visit { again: Some(&back), after: &after });
    println!("rollback: {} operations, {seen} states", ops.len());
}

#[test]
fn ending_a_trial_well_and_badly() {
    type Change = fn(&Record) -> Option<Record>;
    let changes: [(&str, Change); 2] = [
        ("healthy", |record| {
            let mut next = *record;
            next.mark_healthy(Slot::B);
            (next != *record).then_some(next)
        }),
        ("given up", |record| {
            let mut next = *record;
            next.give_up(Slot::B, "a workload is unhealthy");
            (next != *record).then_some(next)
        }),
    ];
    for (name, change) in changes {
        let start = disk(Some((NEW, State::Trial { tries: 1 })));
        let act = |disk: &SimDisk| {
            disk.parts().state.change(change).expect("written");
        };
        let after = |disk: &SimDisk| {
            let record = install::read_record(&disk.parts()).expect("a record");
            assert!(!matches!(record[Slot::B].state, State::Trial { .. }));
        };
        let ops = start.record_ops(act);
        let seen = visit(&start, &ops, &Visit { again: Some(&act), after: &after });
        println!("trial ends {name}: {} operations, {seen} states", ops.len());
    }
}

#[test]
fn repairing_a_rotted_slot() {
    let start = disk(Some((NEW, State::Healthy)));
    start.rot(Slot::B);
    let repair = |disk: &SimDisk| {
        let parts = disk.parts();
        let plan = Plan::new(&parts, Slot::A, &release(NEW), 3).expect("it fits");
        plan.repair(&parts, &mut Images::of(NEW), &mut |_| {}).expect("repaired");
    };
    let after = |disk: &SimDisk| {
        let record = install::read_record(&disk.parts()).expect("a record");
        assert_eq!(disk.whole(Slot::B, &record[Slot::B]), Ok(()));
    };
    let ops = start.record_ops(repair);
    assert!(ops.len() < disk(None).record_ops(install).len(), "only what rotted is written");
    // The other slot is not whole to begin with, so only the preferred one is looked at.
    let seen = visit_preferred(&start, &ops, &Visit { again: Some(&repair), after: &after });
    println!("repair: {} operations, {seen} states", ops.len());
}

/// A proof that cannot fail proves nothing: wrong orders must be found.
#[test]
fn wrong_orders_are_found() {
    let start = disk(Some((OLDER, State::Healthy)));
    let ops = start.record_ops(install);
    let commit = ops.iter().rposition(Op::is_write_to_state).expect("the commit");
    let forget = ops.iter().position(Op::is_write_to_state).expect("the first write");
    let is_flush_of_slot = |op: &Op| op.is_flush() && !op.is_of_state();
    let without_flushes = ops.iter().filter(|op| !is_flush_of_slot(op)).cloned().collect();
    let mut early = ops.clone();
    let write = early.remove(commit);
    early.insert(commit / 2, write);
    let mut not_forgotten = ops.clone();
    not_forgotten.remove(forget);
    let broken: [(&str, Vec<Op>); 3] = [
        ("no flush of the slot", without_flushes),
        ("the record committed early", early),
        ("the slot not forgotten first", not_forgotten),
    ];
    for (name, ops) in broken {
        let found = std::panic::catch_unwind(|| {
            visit(&start, &ops, &Visit { again: None, after: &|_| {} });
        });
        assert!(found.is_err(), "{name}: not found");
    }
}
