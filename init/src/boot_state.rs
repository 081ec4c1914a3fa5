//! The boot record and the boot journal on this host's disk.

use crate::error::{Error, On};
use contract::Slot;
use contract::data_mark::DataMark;
use contract::journal::Writer;
use contract::record::{Record, State, Stored};
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
}
