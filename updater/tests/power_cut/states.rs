//! Every disk that a power cut may leave.

use super::disk::{Op, Sectors, SimDisk, apply};
use contract::Slot;
use contract::boot::choose;
use contract::layout::BLOCK;
use contract::record::{Record, SlotEntry};
use contract::trailer::{Trailer, recover};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use sys::block::BlockDevice;
use updater::disk::Expected;

/// Writes without a flush between them up to which all subsets are visited.
pub const EXHAUSTIVE: usize = 12;

/// What is done with each state.
pub struct Visit<'a> {
    /// What was interrupted, to be run again; it has to finish.
    pub again: Option<&'a dyn Fn(&SimDisk)>,
    /// What must hold then.
    pub after: &'a dyn Fn(&SimDisk),
}

/// How much is visited.
struct Budget {
    /// Subsets of each set of writes that is too large for all of them.
    samples: usize,
    /// Of so many states one is finished by running the updater again.
    finish_every: usize,
}

impl Budget {
    fn of_environment() -> Budget {
        match std::env::var("BERTH_PROOF").is_ok_and(|value| value == "full") {
            true => Budget { samples: 4000, finish_every: 1 },
            false => Budget { samples: 200, finish_every: 40 },
        }
    }
}

/// Visits every state of `start` that a power cut during `ops` may leave, and returns how many
/// different ones there were. Panics at the first from which something that is not whole may start.
pub fn visit(start: &SimDisk, ops: &[Op], then: &Visit<'_>) -> usize {
    walk(start, ops, then, &everything_startable_is_whole)
}

/// As [`visit`], for a disk whose other slot is not whole to begin with.
pub fn visit_preferred(start: &SimDisk, ops: &[Op], then: &Visit<'_>) -> usize {
    walk(start, ops, then, &|disk| {
        let record = record(disk).expect("a record");
        let choice = choose(&record, [false; 2]).expect("a slot");
        assert_eq!(disk.whole(choice.slot, &record[choice.slot]), Ok(()));
    })
}

fn walk(start: &SimDisk, ops: &[Op], then: &Visit<'_>, check: &dyn Fn(&SimDisk)) -> usize {
    let budget = Budget::of_environment();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut seen = HashSet::new();
    let mut durable = start.sectors();
    let mut pending: Vec<&Op> = Vec::new();
    let mut look = |sectors: Sectors| {
        let mut hasher = DefaultHasher::new();
        sectors.iter().for_each(|(place, sector)| (place, sector.digest).hash(&mut hasher));
        if !seen.insert(hasher.finish()) {
            return;
        }
        let disk = SimDisk::of(sectors);
        check(&disk);
        if let Some(again) = then.again
            && seen.len().is_multiple_of(budget.finish_every)
        {
            again(&disk);
            check(&disk);
            (then.after)(&disk);
        }
    };
    look(durable.clone());
    for op in ops {
        match op {
            Op::Flush(part) => {
                let (now, later) = pending
                    .into_iter()
                    .partition(|op| matches!(op, Op::Write { part: p, .. } if p == part));
                pending = later;
                let now: Vec<&Op> = now;
                for op in now {
                    put(&mut durable, op, usize::MAX);
                }
            }
            Op::Write { sectors, .. } => {
                // Sets without this write were visited before.
                for subset in subsets(pending.len(), &budget, &mut random) {
                    let mut base = durable.clone();
                    for (i, op) in pending.iter().enumerate() {
                        if subset[i] {
                            put(&mut base, op, usize::MAX);
                        }
                    }
                    for torn in 1..=sectors.len() {
                        let mut state = base.clone();
                        put(&mut state, op, torn);
                        look(state);
                    }
                }
                pending.push(op);
            }
        }
    }
    // The end, and what was never flushed.
    pending.iter().for_each(|op| put(&mut durable, op, usize::MAX));
    look(durable);
    seen.len()
}

fn put(to: &mut Sectors, op: &Op, sectors: usize) {
    if let Op::Write { part, offset, sectors: all } = op {
        apply(to, *part, *offset, &all[..all.len().min(sectors)]);
    }
}

/// All subsets of `count` writes, or a sample with those that are likeliest to matter: none, all,
/// all but one, only one.
fn subsets(count: usize, budget: &Budget, random: &mut u64) -> Vec<Vec<bool>> {
    if count < EXHAUSTIVE {
        let bit = |set: usize, i: usize| set >> i & 1 == 1;
        return (0..1 << count).map(|set| (0..count).map(|i| bit(set, i)).collect()).collect();
    }
    let mut sets = vec![vec![false; count], vec![true; count]];
    for i in 0..count {
        sets.push((0..count).map(|j| j == i).collect());
        sets.push((0..count).map(|j| j != i).collect());
    }
    for _ in 0..budget.samples {
        sets.push((0..count).map(|_| next(random) & 1 == 1).collect());
    }
    sets
}

/// xorshift64*: the same numbers in every run.
fn next(random: &mut u64) -> u64 {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
}

fn record(disk: &SimDisk) -> Option<Record> {
    disk.parts().state.stored().expect("in memory").record
}

/// The record as it would be rebuilt from the trailers if both of its copies were lost.
fn recovered(disk: &SimDisk) -> Option<Record> {
    let parts = disk.parts();
    recover(Slot::ALL.map(|slot| {
        let mut block = [0; BLOCK];
        parts.boot(slot).read_at(parts.trailer_offset(slot), &mut block).expect("in memory");
        Trailer::decode(&block)
    }))
}

/// What the next boot reaches is whole; so is what it would reach if the first choice failed, and
/// what a machine starts that has lost its record.
fn everything_startable_is_whole(disk: &SimDisk) {
    let record = record(disk).expect("a record");
    let lost = recovered(disk).expect("the running slot has a trailer");
    let mut checked: Vec<(Slot, Expected)> = Vec::new();
    for (name, record) in [("record", record), ("trailers", lost)] {
        assert!(choose(&record, [false; 2]).is_some(), "{name}: nothing to start");
        for failed in [[false, false], [true, false], [false, true]] {
            let Some(choice) = choose(&record, failed) else { continue };
            let entry: SlotEntry = record[choice.slot];
            let this = (choice.slot, Expected::from(&entry));
            if !checked.contains(&this) {
                let whole = disk.whole(choice.slot, &entry);
                assert_eq!(whole, Ok(()), "{name}: slot {} {:?}", choice.slot, entry.state);
                checked.push(this);
            }
        }
    }
}
