//! The boot record and the boot journal on this host's disk.

use crate::error::{Error, On};
use contract::Slot;
use contract::data_mark::DataMark;
use contract::data_place::DataPlace;
use contract::journal::Writer;
use contract::layout::BLOCK;
use contract::record::{Invalid, Record, State, Stored};
use contract::trailer::{self, Trailer};
use std::fs::File;
use std::path::{Path, PathBuf};
use sys::block::Direct;

/// The partition `berth-state`.
#[derive(Clone, Debug)]
pub struct BootState {
    device: PathBuf,
}

/// How bad a failure is for the slot that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may be the slot's, or something of this machine or this moment.
    Unclear,
    /// The slot cannot start: its root filesystem is lost.
    SlotLost,
}

impl BootState {
    /// The partition at `device`. Nothing is read yet.
    pub fn at(device: &Path) -> BootState {
        BootState { device: device.to_owned() }
    }

    fn open(&self, writable: bool) -> Result<boot_state::BootState<Direct>, Error> {
        let device = Direct::open(&self.device, writable);
        Ok(boot_state::BootState::new(device.on("open", self.device.display())?))
    }

    /// Both copies of the boot record.
    pub fn stored(&self) -> Result<Stored, Error> {
        self.open(false)?.stored().on("read", self.device.display())
    }

    /// Whether `slot` has yet to prove itself. A record that is lost says no.
    pub fn is_on_trial(&self, slot: Slot) -> Result<bool, Error> {
        let record = self.stored()?.record;
        Ok(record.is_some_and(|record| matches!(record[slot].state, State::Trial { .. })))
    }

    /// The slot ran with everything that was asked of it. Returns whether that was news.
    pub fn mark_healthy(&self, slot: Slot) -> Result<bool, Error> {
        self.change(|record| healthy(record, slot))
    }

    /// The slot failed for `reason`. Returns whether it was given up for that.
    pub fn give_up(&self, slot: Slot, fault: Fault, reason: &str) -> Result<bool, Error> {
        self.change(|record| given_up(record, slot, fault, reason))
    }

    /// Writes a record when both copies are lost and `running` came up whole all the same, by what
    /// `trailers` say of the slots. Returns whether it did.
    pub fn rebuild(
        &self,
        running: Slot,
        trailers: impl FnOnce() -> [Option<Trailer>; 2],
    ) -> Result<bool, Error> {
        if !self.stored()?.invalid.iter().all(|copy| copy.is_some_and(is_lost)) {
            return Ok(false);
        }
        let Some(record) = rebuilt(trailers(), running) else { return Ok(false) };
        let state = self.open(true)?;
        let written = state.restore(&record).and_then(|done| Ok(done && state.repair()?));
        written.on("write a record to", self.device.display())
    }

    fn change(&self, decide: impl Fn(&Record) -> Option<Record>) -> Result<bool, Error> {
        let written = self.open(true)?.change(decide).on("change", self.device.display())?;
        Ok(written.is_some())
    }

    /// Adds a line to the boot journal.
    pub fn journal(&self, slot: Option<Slot>, text: &str) -> Result<(), Error> {
        let state = self.open(true)?;
        state.journal(Writer::Init, slot, text).on("add to the journal on", self.device.display())
    }

    /// How far the making of the `data` filesystem has come.
    pub fn data_mark(&self) -> Result<DataMark, Error> {
        self.open(false)?.data_mark().on("read", self.device.display())
    }

    /// Notes how far the making of the `data` filesystem has come.
    pub fn set_data_mark(&self, mark: DataMark) -> Result<(), Error> {
        self.open(true)?.set_data_mark(mark).on("write", self.device.display())
    }

    /// Which disk `/var` lies on.
    pub fn data_place(&self) -> Result<DataPlace, Error> {
        self.open(false)?.data_place().on("read", self.device.display())
    }

    /// Notes which disk `/var` lies on, unless that is known.
    pub fn set_data_place(&self, place: &DataPlace) -> Result<(), Error> {
        match self.data_place()? == *place {
            true => Ok(()),
            false => self.open(true)?.set_data_place(place).on("write", self.device.display()),
        }
    }
}

/// The trailer of the boot partition at `device`; `None` when it has none.
pub fn trailer(device: &str) -> Result<Option<Trailer>, Error> {
    let len = File::open(device).and_then(|mut file| sys::block::size(&mut file));
    let len = len.on("open", device)?;
    let Some(offset) = (len / BLOCK as u64 * BLOCK as u64).checked_sub(BLOCK as u64) else {
        return Ok(None);
    };
    let block = Direct::open(Path::new(device), false).and_then(|device| device.read(offset));
    Ok(Trailer::decode(&block.on("read", device)?.0))
}

/// Whether nothing is left of a copy of the record. One that a later Berth wrote is no loss: it is
/// left for that to read.
fn is_lost(invalid: Invalid) -> bool {
    match invalid {
        Invalid::Magic | Invalid::Checksum => true,
        Invalid::Format(_) | Invalid::State(_) => false,
    }
}

/// The record after both copies were lost and `running` came up whole; `None` when its trailer
/// does not tell what it holds.
///
/// Nothing is known of the other slot but that it was once written whole. It stays given up:
/// starts when nothing better is left, and is never preferred to the one that was seen to run.
fn rebuilt(trailers: [Option<Trailer>; 2], running: Slot) -> Option<Record> {
    trailers[running.index()]?;
    let mut record = trailer::recover(trailers)?;
    record.mark_healthy(running);
    Some(record)
}

/// The record after `slot` came up whole; `None` when it says so already. A slot that was given
/// up and runs as a last resort stays given up: why it was is not known to be gone.
fn healthy(record: &Record, slot: Slot) -> Option<Record> {
    let on_trial = matches!(record[slot].state, State::Trial { .. });
    on_trial.then(|| {
        let mut next = *record;
        next.mark_healthy(slot);
        next
    })
}

/// The record after `slot` failed; `None` when nothing changes.
///
/// A slot on trial is given up. A healthy one is not: that would throw away a system for what may
/// be a passing fault of the machine, and a reboot tries it again. Only when its root is lost, so
/// that each reboot would fail in the same way, and the other slot is healthy, does it give way.
fn given_up(record: &Record, slot: Slot, fault: Fault, reason: &str) -> Option<Record> {
    let other_is_healthy = record[slot.other()].state == State::Healthy;
    let give_up = match record[slot].state {
        State::Trial { .. } => true,
        State::Healthy => fault == Fault::SlotLost && other_is_healthy,
        State::GivenUp | State::Empty => false,
    };
    give_up.then(|| {
        let mut next = *record;
        next.give_up(slot, reason);
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::record::SlotEntry;

    const TRIAL: State = State::Trial { tries: 0 };

    fn record(a: State, b: State) -> Record {
        let entry = |state| SlotEntry { state, ..SlotEntry::EMPTY };
        Record { sequence: 5, slots: [entry(a), entry(b)] }
    }

    #[test]
    fn giving_up_table() {
        use Fault::*;
        use State::*;
        let cases = [
            // slot A, slot B, fault, whether A is given up
            (TRIAL, Healthy, Unclear, true),
            (TRIAL, Empty, Unclear, true),
            (TRIAL, GivenUp, SlotLost, true),
            (Healthy, Healthy, Unclear, false),
            (Healthy, Healthy, SlotLost, true),
            (Healthy, TRIAL, SlotLost, false),
            (Healthy, GivenUp, SlotLost, false),
            (Healthy, Empty, SlotLost, false),
            (GivenUp, Healthy, SlotLost, false),
            (Empty, Healthy, SlotLost, false),
        ];
        for (a, b, fault, expected) in cases {
            let next = given_up(&record(a, b), Slot::A, fault, "why");
            assert_eq!(next.is_some(), expected, "{a:?} {b:?} {fault:?}");
            if let Some(next) = next {
                assert_eq!(next[Slot::A].state, GivenUp);
                assert_eq!(next[Slot::A].reason.as_str(), "why");
                assert_eq!(next[Slot::B], record(a, b)[Slot::B]);
            }
        }
    }

    #[test]
    fn only_a_trial_becomes_healthy() {
        use State::*;
        for (state, expected) in [(TRIAL, true), (Healthy, false), (GivenUp, false), (Empty, false)]
        {
            let next = healthy(&record(Healthy, state), Slot::B);
            assert_eq!(next.map(|next| next[Slot::B].state), expected.then_some(Healthy));
        }
    }

    fn written(sequence: u64) -> Trailer {
        let entry = SlotEntry { uki_len: sequence, ..SlotEntry::EMPTY };
        Trailer::of(&entry, sequence)
    }

    #[test]
    fn rebuilding_table() {
        use State::*;
        let (older, newer) = (Some(written(3)), Some(written(8)));
        let cases = [
            // trailers, the slot that runs, states in the new record
            ([older, None], Slot::A, Some([Healthy, Empty])),
            ([older, newer], Slot::A, Some([Healthy, GivenUp])),
            ([older, newer], Slot::B, Some([GivenUp, Healthy])),
            ([newer, older], Slot::A, Some([Healthy, GivenUp])),
            ([None, newer], Slot::A, None),
            ([None, None], Slot::B, None),
        ];
        for (trailers, running, expected) in cases {
            let record = rebuilt(trailers, running);
            assert_eq!(record.map(|r| r.slots.map(|slot| slot.state)), expected, "{running}");
            let Some(record) = record else { continue };
            let newest = trailers.iter().flatten().map(|t| t.sequence).max();
            assert_eq!(Some(record.sequence), newest);
            let next = contract::boot::choose(&record, [false; 2]).map(|choice| choice.slot);
            assert_eq!(next, Some(running));
        }
    }

    #[test]
    fn a_lost_record_is_written_anew_in_both_copies() {
        use contract::layout::{RECORD_OFFSETS, STATE_SIZE};
        use std::os::unix::fs::FileExt;
        let whole = record(State::Healthy, State::Empty).encode();
        let torn = [0xff; BLOCK];
        for (copies, expected) in [([&torn, &[0; BLOCK]], true), ([&whole, &torn], false)] {
            let file = tempfile::NamedTempFile::new().expect("a file in place of the partition");
            file.as_file().set_len(STATE_SIZE).expect("a size");
            for (copy, offset) in copies.into_iter().zip(RECORD_OFFSETS) {
                file.as_file().write_all_at(copy, offset).expect("a copy");
            }
            let state = BootState::at(file.path());
            let rebuilt = state.rebuild(Slot::A, || [Some(written(3)), None]);
            assert_eq!(rebuilt.ok(), Some(expected));
            let stored = state.stored().expect("readable");
            assert_eq!(stored.invalid == [None; 2], expected);
            assert_eq!(stored.record.map(|r| r.sequence), Some(5));
        }
    }

    #[test]
    fn what_a_later_berth_wrote_is_not_lost() {
        for (invalid, expected) in [
            (Invalid::Magic, true),
            (Invalid::Checksum, true),
            (Invalid::Format(2), false),
            (Invalid::State(9), false),
        ] {
            assert_eq!(is_lost(invalid), expected, "{invalid}");
        }
    }
}
