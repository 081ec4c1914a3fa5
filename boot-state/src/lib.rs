//! The boot record and the boot journal on a disk: how `init` and the updater read and change what
//! the slot picker goes by.
//!
//! What a change is, is decided by pure functions of the callers; this crate has the only code
//! that writes to `berth-state`. Each write is flushed and read back before it counts.

use contract::Slot;
use contract::data_mark::DataMark;
use contract::data_place::DataPlace;
use contract::journal::{Entry, TEXT_LEN, Writer, next_number};
use contract::layout::{
    BLOCK, DATA_MARK_OFFSET, DATA_PLACE_OFFSET, JOURNAL_ENTRIES, JOURNAL_OFFSET, RECORD_OFFSETS,
};
use contract::record::{Record, Stored, read_copies};
use contract::text::Text;
use std::io;
use std::time::SystemTime;
use sys::block::BlockDevice;

/// The partition `berth-state`.
#[derive(Clone, Debug)]
pub struct BootState<D> {
    device: D,
}

impl<D: BlockDevice> BootState<D> {
    /// The partition on `device`. Nothing is read yet.
    pub fn new(device: D) -> BootState<D> {
        BootState { device }
    }

    fn read(&self, offset: u64) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.device.read_at(offset, &mut block).map_err(at("read", offset))?;
        Ok(block)
    }

    /// Writes a block, flushes, and reads it back.
    fn write(&self, offset: u64, block: &[u8; BLOCK]) -> io::Result<()> {
        self.device.write_at(offset, block).map_err(at("write", offset))?;
        self.device.flush().map_err(at("flush", offset))?;
        match self.read(offset)? == *block {
            true => Ok(()),
            false => Err(io::Error::other(format!("byte {offset} reads back other than written"))),
        }
    }

    /// Both copies of the boot record.
    pub fn stored(&self) -> io::Result<Stored> {
        let [first, second] = RECORD_OFFSETS;
        Ok(read_copies([&self.read(first)?, &self.read(second)?]))
    }

    /// Replaces the record by what `decide` makes of it, in the copy that does not count. Returns
    /// the record that was written; `None` when there is no record or nothing to change.
    pub fn change(
        &self,
        decide: impl FnOnce(&Record) -> Option<Record>,
    ) -> io::Result<Option<Record>> {
        let stored = self.stored()?;
        let Some(next) = stored.record.as_ref().and_then(decide) else { return Ok(None) };
        let next = next.successor();
        self.write(stored.next_offset, &next.encode())?;
        Ok(Some(next))
    }

    /// Writes a record where both copies are lost. Does nothing when one is valid.
    pub fn restore(&self, record: &Record) -> io::Result<bool> {
        let stored = self.stored()?;
        if stored.record.is_some() {
            return Ok(false);
        }
        self.write(stored.next_offset, &record.successor().encode())?;
        Ok(true)
    }

    /// Writes the record once more if one of its copies is lost. Returns whether it was.
    pub fn repair(&self) -> io::Result<bool> {
        match self.stored()?.invalid {
            [None, None] => Ok(false),
            _ => Ok(self.change(|record| Some(*record))?.is_some()),
        }
    }

    /// Adds a line to the boot journal.
    pub fn journal(&self, writer: Writer, slot: Option<Slot>, text: &str) -> io::Result<()> {
        let mut number = 0;
        // One at a time: all together would be a quarter of what `init` may take.
        for i in 0..JOURNAL_ENTRIES {
            let block = self.read(JOURNAL_OFFSET + i * BLOCK as u64)?;
            number = number.max(next_number([&block].into_iter()));
        }
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
        let entry = Entry { number, time, writer, slot, text: Text::<TEXT_LEN>::new(text) };
        self.write(entry.offset(), &entry.encode())
    }

    /// The boot journal, oldest entry first.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for i in 0..JOURNAL_ENTRIES {
            let block = self.read(JOURNAL_OFFSET + i * BLOCK as u64)?;
            entries.extend(Entry::decode(&block));
        }
        entries.sort_by_key(|entry| entry.number);
        Ok(entries)
    }

    /// How far the making of the `data` filesystem has come.
    pub fn data_mark(&self) -> io::Result<DataMark> {
        Ok(DataMark::decode(&self.read(DATA_MARK_OFFSET)?))
    }

    /// Notes how far the making of the `data` filesystem has come.
    pub fn set_data_mark(&self, mark: DataMark) -> io::Result<()> {
        self.write(DATA_MARK_OFFSET, &mark.encode())
    }

    /// Which disk `/var` lies on.
    pub fn data_place(&self) -> io::Result<DataPlace> {
        Ok(DataPlace::decode(&self.read(DATA_PLACE_OFFSET)?))
    }

    /// Notes which disk `/var` lies on.
    pub fn set_data_place(&self, place: &DataPlace) -> io::Result<()> {
        self.write(DATA_PLACE_OFFSET, &place.encode())
    }
}

fn at(action: &'static str, offset: u64) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{action} at byte {offset}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::layout::STATE_SIZE;
    use contract::record::{SlotEntry, State};
    use std::sync::Mutex;

    /// Memory in place of the partition.
    struct Memory(Mutex<Vec<u8>>);

    impl Memory {
        fn with(copies: [&[u8; BLOCK]; 2]) -> Memory {
            let mut bytes = vec![0; STATE_SIZE as usize];
            for (copy, offset) in copies.into_iter().zip(RECORD_OFFSETS) {
                bytes[offset as usize..][..BLOCK].copy_from_slice(copy);
            }
            Memory(Mutex::new(bytes))
        }
    }

    impl BlockDevice for Memory {
        fn size(&self) -> u64 {
            STATE_SIZE
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let bytes = self.0.lock().expect("not poisoned");
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let mut all = self.0.lock().expect("not poisoned");
            all[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(sequence: u64) -> Record {
        let entry = SlotEntry { state: State::Healthy, ..SlotEntry::EMPTY };
        Record { sequence, slots: [entry, SlotEntry::EMPTY] }
    }

    fn raised(record: &Record) -> Option<Record> {
        let mut next = *record;
        next.give_up(Slot::A, "why");
        Some(next)
    }

    #[test]
    fn a_change_leaves_the_copy_that_counted() {
        let state = BootState::new(Memory::with([&record(6).encode(), &record(5).encode()]));
        let written = state.change(raised).expect("writable").expect("changed");
        assert_eq!((written.sequence, written[Slot::A].state), (7, State::GivenUp));
        let stored = state.stored().expect("readable");
        assert_eq!(stored.record, Some(written));
        assert_eq!(stored.next_offset, RECORD_OFFSETS[0], "the older copy was written over");
        assert_eq!(state.change(|_| None).expect("readable"), None);
    }

    #[test]
    fn a_lost_record_is_written_only_when_told() {
        let state = BootState::new(Memory::with([&[0; BLOCK], &[0; BLOCK]]));
        assert_eq!(state.change(raised).expect("readable"), None);
        assert!(state.restore(&record(9)).expect("writable"));
        assert_eq!(state.stored().expect("readable").record.map(|r| r.sequence), Some(10));
        assert!(!state.restore(&record(20)).expect("readable"), "there is one now");
    }

    #[test]
    fn a_lost_copy_is_written_anew() {
        let state = BootState::new(Memory::with([&[0; BLOCK], &record(5).encode()]));
        assert!(state.repair().expect("writable"));
        let stored = state.stored().expect("readable");
        assert_eq!((stored.record, stored.invalid), (Some(record(6)), [None, None]));
        assert!(!state.repair().expect("readable"));
    }

    #[test]
    fn the_journal_counts_on_and_the_mark_stays_apart() {
        let state = BootState::new(Memory::with([&[0; BLOCK], &[0; BLOCK]]));
        state.set_data_mark(DataMark::Making).expect("written");
        let place = DataPlace { disk: Text::new("sdb"), preparing: true };
        state.set_data_place(&place).expect("written");
        for i in 1..=JOURNAL_ENTRIES + 1 {
            state.journal(Writer::Init, Some(Slot::A), &format!("line {i}")).expect("written");
        }
        let entries = state.entries().expect("readable");
        assert_eq!(entries.len() as u64, JOURNAL_ENTRIES);
        let last = entries.last().expect("entries");
        assert_eq!((entries[0].number, last.number, last.text.as_str()), (2, 257, "line 257"));
        assert_eq!(state.data_mark().expect("readable"), DataMark::Making);
        assert_eq!(state.data_place().expect("readable"), place);
    }
}
