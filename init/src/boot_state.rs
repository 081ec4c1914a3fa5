//! The boot record and the boot journal on this host's disk.

use crate::error::{Error, On};
use contract::Slot;
use contract::data_mark::DataMark;
use contract::journal::{self, Writer};
use contract::layout::{BLOCK, DATA_MARK_OFFSET, JOURNAL_ENTRIES, JOURNAL_OFFSET, RECORD_OFFSETS};
use contract::record::{Record, State, Stored, read_copies};
use contract::text::Text;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use sys::block::{Block, Direct};

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

    fn open(&self, writable: bool) -> Result<Direct, Error> {
        Direct::open(&self.device, writable).on("open", self.device.display())
    }

    fn read(&self, device: &Direct, offset: u64) -> Result<Block, Error> {
        let object = || format!("{} at {offset}", self.device.display());
        device.read(offset).map_err(|source| Error::Io { action: "read", object: object(), source })
    }

    /// Writes a block, flushes, and reads it back.
    fn write(&self, device: &Direct, offset: u64, bytes: &[u8; BLOCK]) -> Result<(), Error> {
        let object = || format!("{} at {offset}", self.device.display());
        device.write(offset, &Block(*bytes)).map_err(|source| Error::Io {
            action: "write",
            object: object(),
            source,
        })?;
        match self.read(device, offset)?.0 == *bytes {
            true => Ok(()),
            false => Err(Error::Invalid {
                object: object(),
                problem: "reads back other than it was written".to_owned(),
            }),
        }
    }

    /// Both copies of the boot record.
    pub fn stored(&self) -> Result<Stored, Error> {
        let device = self.open(false)?;
        let [first, second] = RECORD_OFFSETS;
        let (first, second) = (self.read(&device, first)?, self.read(&device, second)?);
        Ok(read_copies([&first.0, &second.0]))
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

    /// Replaces the record by what `decide` makes of it, in the copy that does not count.
    fn change(&self, decide: impl Fn(&Record) -> Option<Record>) -> Result<bool, Error> {
        let stored = self.stored()?;
        let Some(next) = stored.record.as_ref().and_then(decide) else { return Ok(false) };
        let device = self.open(true)?;
        self.write(&device, stored.next_offset, &next.successor().encode())?;
        Ok(true)
    }

    /// Adds a line to the boot journal.
    pub fn journal(&self, slot: Option<Slot>, text: &str) -> Result<(), Error> {
        let device = self.open(true)?;
        let mut number = 0;
        // One at a time: all together would be a quarter of what this program may take.
        for i in 0..JOURNAL_ENTRIES {
            let block = self.read(&device, JOURNAL_OFFSET + i * BLOCK as u64)?;
            number = number.max(journal::next_number([&block.0].into_iter()));
        }
        let entry = journal::Entry {
            number,
            time: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()),
            writer: Writer::Init,
            slot,
            text: Text::new(text),
        };
        self.write(&device, entry.offset(), &entry.encode())
    }

    /// How far the making of the `data` filesystem has come.
    pub fn data_mark(&self) -> Result<DataMark, Error> {
        let device = self.open(false)?;
        Ok(DataMark::decode(&self.read(&device, DATA_MARK_OFFSET)?.0))
    }

    /// Notes how far the making of the `data` filesystem has come.
    pub fn set_data_mark(&self, mark: DataMark) -> Result<(), Error> {
        let device = self.open(true)?;
        self.write(&device, DATA_MARK_OFFSET, &mark.encode())
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
    use contract::layout::STATE_SIZE;
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

    /// A file in place of the partition.
    struct Disk(tempfile::NamedTempFile);

    impl Disk {
        fn with(copies: [&[u8; BLOCK]; 2]) -> Disk {
            use std::os::unix::fs::FileExt;
            let file = tempfile::NamedTempFile::new().expect("a file");
            file.as_file().set_len(STATE_SIZE).expect("a size");
            for (copy, offset) in copies.into_iter().zip(RECORD_OFFSETS) {
                file.as_file().write_all_at(copy, offset).expect("a copy");
            }
            Disk(file)
        }

        fn state(&self) -> BootState {
            BootState::at(self.0.path())
        }
    }

    #[test]
    fn a_change_leaves_the_copy_that_counted() {
        let (old, now) = (record(State::Healthy, TRIAL), record(State::Healthy, TRIAL).successor());
        let disk = Disk::with([&now.encode(), &old.encode()]);
        let state = disk.state();
        assert_eq!(state.is_on_trial(Slot::B).ok(), Some(true));
        assert_eq!(state.mark_healthy(Slot::B).ok(), Some(true));
        let stored = state.stored().expect("readable");
        assert_eq!(
            stored.record.map(|r| (r.sequence, r[Slot::B].state)),
            Some((7, State::Healthy))
        );
        assert_eq!(stored.next_offset, RECORD_OFFSETS[0], "the older copy was written over");
        assert_eq!(state.mark_healthy(Slot::B).ok(), Some(false));
        assert_eq!(state.give_up(Slot::B, Fault::Unclear, "late").ok(), Some(false));
    }

    #[test]
    fn a_lost_record_is_not_written_anew() {
        let disk = Disk::with([&[0; BLOCK], &[0; BLOCK]]);
        let state = disk.state();
        assert_eq!(state.is_on_trial(Slot::A).ok(), Some(false));
        assert_eq!(state.give_up(Slot::A, Fault::SlotLost, "why").ok(), Some(false));
        assert_eq!(state.stored().expect("readable").record, None);
    }

    #[test]
    fn the_journal_counts_on_and_the_mark_stays_apart() {
        let disk = Disk::with([&[0; BLOCK], &[0; BLOCK]]);
        let state = disk.state();
        state.set_data_mark(DataMark::Making).expect("written");
        for i in 1..=JOURNAL_ENTRIES + 1 {
            state.journal(Some(Slot::A), &format!("line {i}")).expect("written");
        }
        let device = state.open(false).expect("opens");
        let block = state.read(&device, JOURNAL_OFFSET + BLOCK as u64).expect("readable");
        let entry = journal::Entry::decode(&block.0).expect("whole");
        assert_eq!((entry.number, entry.text.as_str()), (257, "line 257"));
        assert_eq!(state.data_mark().ok(), Some(DataMark::Making));
    }
}
