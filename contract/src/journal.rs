//! The boot journal: why a slot was chosen or given up, readable without a filesystem.
//!
//! A ring of [`JOURNAL_ENTRIES`] blocks in `berth-state` from [`JOURNAL_OFFSET`] on. Entry number
//! `n` lies in block `n % JOURNAL_ENTRIES`; the valid entry with the highest number is the newest.
//! A write that is torn loses only the oldest entry, which it replaces.

use crate::block;
use crate::layout::{BLOCK, JOURNAL_ENTRIES, JOURNAL_OFFSET, Slot};
use crate::record::{array_at, u64_at};
use crate::text::Text;

const MAGIC: [u8; 8] = *b"BERTHJNL";

/// Who wrote an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The slot picker.
    Picker,
    /// PID 1.
    Init,
    /// The updater.
    Updater,
    /// The image builder: the first entry of a new image.
    Builder,
    /// Someone later than this program.
    Other(u8),
}

impl Writer {
    const fn code(self) -> u8 {
        match self {
            Writer::Picker => 1,
            Writer::Init => 2,
            Writer::Updater => 3,
            Writer::Builder => 4,
            Writer::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Writer {
        match code {
            1 => Writer::Picker,
            2 => Writer::Init,
            3 => Writer::Updater,
            4 => Writer::Builder,
            code => Writer::Other(code),
        }
    }
}

impl core::fmt::Display for Writer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Writer::Picker => f.write_str("picker"),
            Writer::Init => f.write_str("init"),
            Writer::Updater => f.write_str("updater"),
            Writer::Builder => f.write_str("builder"),
            Writer::Other(code) => write!(f, "writer {code}"),
        }
    }
}

/// Capacity of [`Entry::text`] in bytes.
pub const TEXT_LEN: usize = 1024;

/// One line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 1.
    pub number: u64,
    /// Seconds since 1970 UTC by the writer's clock; 0 when it has none.
    pub time: u64,
    /// Who wrote it.
    pub writer: Writer,
    /// The slot it is about.
    pub slot: Option<Slot>,
    /// What happened, in words for a person.
    pub text: Text<TEXT_LEN>,
}

impl Entry {
    /// Byte offset of this entry in `berth-state`.
    pub const fn offset(&self) -> u64 {
        JOURNAL_OFFSET + self.number % JOURNAL_ENTRIES * BLOCK as u64
    }

    /// The bytes of the block.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = block::begin(MAGIC);
        block[8..16].copy_from_slice(&self.number.to_le_bytes());
        block[16..24].copy_from_slice(&self.time.to_le_bytes());
        block[24] = self.writer.code();
        block[25] = match self.slot {
            None => 0,
            Some(Slot::A) => 1,
            Some(Slot::B) => 2,
        };
        block[64..64 + TEXT_LEN].copy_from_slice(self.text.to_padded());
        block::sealed(block)
    }

    /// Reads a block; `None` when it holds no whole entry.
    pub fn decode(block: &[u8; BLOCK]) -> Option<Entry> {
        if !block::is(block, MAGIC) {
            return None;
        }
        Some(Entry {
            number: u64_at(block, 8),
            time: u64_at(block, 16),
            writer: Writer::from_code(block[24]),
            slot: match block[25] {
                1 => Some(Slot::A),
                2 => Some(Slot::B),
                _ => None,
            },
            text: Text::from_padded(&array_at(block, 64)),
        })
    }
}

/// Number of the entry to write next, given all blocks of the ring in any order.
pub fn next_number<'a>(blocks: impl Iterator<Item = &'a [u8; BLOCK]>) -> u64 {
    let last = blocks.filter_map(Entry::decode).map(|entry| entry.number).max();
    last.unwrap_or(0).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_start_again() {
        let last = Entry {
            number: u64::MAX,
            time: 0,
            writer: Writer::Picker,
            slot: None,
            text: Text::EMPTY,
        };
        assert_eq!(next_number([&last.encode()].into_iter()), u64::MAX);
    }

    #[test]
    fn round_trips_and_counts_on() {
        let entry = Entry {
            number: 300,
            time: 1_700_000_000,
            writer: Writer::Picker,
            slot: Some(Slot::B),
            text: Text::new("slot b given up: UKI does not match its digest"),
        };
        let block = entry.encode();
        assert_eq!(Entry::decode(&block), Some(entry));
        assert_eq!(entry.offset(), JOURNAL_OFFSET + 44 * 4096);
        assert_eq!(next_number([&[0; BLOCK], &block].into_iter()), 301);
        assert_eq!(next_number([&[0; BLOCK]].into_iter()), 1);
    }
}
