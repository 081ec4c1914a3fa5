//! What the picker reads from and writes to `berth-state`: the boot record and the boot journal.

use crate::layout::{Extent, Layout};
use crate::machine::{Fault, Machine};
use contract::Slot;
use contract::journal::{Entry, Writer, next_number};
use contract::layout::{BLOCK, JOURNAL_ENTRIES, JOURNAL_OFFSET, RECORD_OFFSETS};
use contract::record::{Invalid, Record, read_copies};
use contract::text::Text;
use contract::trailer::Trailer;
use core::fmt::{self, Write};

/// Why a copy of the boot record does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There is no `berth-state`, or it cannot be read.
    Read(Fault),
    /// What was read is not a record.
    Invalid(Invalid),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Read(fault) => fault.fmt(f),
            Lost::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

/// What became of the boot record.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The record that counts, and the byte offset in `berth-state` where the next one goes.
    pub record: Option<(Record, u64)>,
    /// What is wrong with each copy. A blank one beside a valid one is in order: nothing was ever
    /// written there.
    pub lost: [Option<Lost>; 2],
}

/// Reads both copies of the boot record.
pub fn read_record(machine: &mut impl Machine, layout: &Layout) -> Stored {
    let mut blocks = [[0; BLOCK]; 2];
    let mut unread = [None; 2];
    for (i, offset) in RECORD_OFFSETS.into_iter().enumerate() {
        match read_block(machine, layout.state, offset) {
            Ok(block) => blocks[i] = block,
            Err(fault) => unread[i] = Some(Lost::Read(fault)),
        }
    }
    // A copy that was not read is all zeros here, and no record.
    let stored = read_copies([&blocks[0], &blocks[1]]);
    let lost = [0, 1].map(|i| {
        let blank = stored.record.is_some() && blocks[i].iter().all(|&byte| byte == 0);
        unread[i].or(stored.invalid[i].filter(|_| !blank).map(Lost::Invalid))
    });
    Stored { record: stored.record.map(|record| (record, stored.next_offset)), lost }
}

/// Writes `record` to byte `offset` of `berth-state` and returns when it is durable.
pub fn write_record(
    machine: &mut impl Machine,
    layout: &Layout,
    offset: u64,
    record: &Record,
) -> Result<(), Fault> {
    write_block(machine, layout.state, offset, &record.encode())
}

/// Reads what the boot partition of `slot` says of itself.
pub fn read_trailer(machine: &mut impl Machine, layout: &Layout, slot: Slot) -> Option<Trailer> {
    let boot = layout.boot[slot.index()]?;
    let offset = boot.len().checked_sub(BLOCK as u64)?;
    let block = read_block(machine, Some(boot), offset).ok()?;
    Trailer::decode(&block)
}

/// Journals `text` about `slot`, unless the picker did so since anybody else last wrote: a machine
/// that resets every minute must not push out what led to it.
///
/// `anew`: the boot record changed, so it is news in any case. Failures are not reported: there is
/// nowhere left to report them.
pub fn journal(
    machine: &mut impl Machine,
    layout: &Layout,
    slot: Option<Slot>,
    anew: bool,
    text: fmt::Arguments,
) -> Option<()> {
    let state = layout.state?;
    let mut ring = machine.pages(JOURNAL_ENTRIES as usize * BLOCK).ok()?;
    let ring = &mut ring[..JOURNAL_ENTRIES as usize * BLOCK];
    state.read(machine, JOURNAL_OFFSET, ring).ok()?;
    let entries = || ring.as_chunks().0.iter().filter_map(Entry::decode);
    let mut line = Text::EMPTY;
    line.write_fmt(text).ok()?;
    let others = entries().filter(|e| e.writer != Writer::Picker).map(|e| e.number).max();
    let known = entries().any(|e| Some(e.number) > others && e.slot == slot && e.text == line);
    if known && !anew {
        return Some(());
    }
    let number = next_number(ring.as_chunks().0.iter());
    let entry = Entry { number, time: machine.time(), writer: Writer::Picker, slot, text: line };
    write_block(machine, Some(state), entry.offset(), &entry.encode()).ok()
}

fn read_block(
    machine: &mut impl Machine,
    extent: Option<Extent>,
    offset: u64,
) -> Result<[u8; BLOCK], Fault> {
    let mut pages = machine.pages(BLOCK)?;
    extent.ok_or(Fault::NOT_FOUND)?.read(machine, offset, &mut pages[..BLOCK])?;
    let mut block = [0; BLOCK];
    block.copy_from_slice(&pages[..BLOCK]);
    Ok(block)
}

fn write_block(
    machine: &mut impl Machine,
    extent: Option<Extent>,
    offset: u64,
    block: &[u8; BLOCK],
) -> Result<(), Fault> {
    let mut pages = machine.pages(BLOCK)?;
    pages[..BLOCK].copy_from_slice(block);
    extent.ok_or(Fault::NOT_FOUND)?.write(machine, offset, &pages[..BLOCK])
}
