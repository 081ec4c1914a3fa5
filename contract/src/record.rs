//! The boot record: which slot holds what, and how far each is trusted.
//!
//! Two copies lie in `berth-state` at [`RECORD_OFFSETS`], each in a [`BLOCK`] of its own. The
//! valid copy with the higher sequence number counts. A write replaces the *other* copy and is
//! followed by a flush, so that a torn write loses nothing. All integers are little-endian.

use crate::block;
use crate::layout::{BLOCK, RECORD_OFFSETS, Slot};
use crate::text::Text;

const MAGIC: [u8; 8] = *b"BERTHREC";
/// Raise it only together with a picker that reads both: the picker on an ESP is never updated.
const FORMAT: u32 = 1;
const SLOT_AT: [usize; 2] = [64, 512];

/// How far a slot is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was ever written whole.
    Empty,
    /// Newly written; it may be started this many more times before it has to be healthy.
    Trial {
        /// Starts left.
        tries: u8,
    },
    /// It ran with everything that was asked of it.
    Healthy,
    /// It failed; started only when nothing better is left.
    GivenUp,
}

/// What the record says of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    /// How far the slot is trusted.
    pub state: State,
    /// The slot with the higher number is tried first; equal numbers prefer A.
    pub priority: u8,
    /// Length of the UKI in bytes, from the start of the boot partition.
    pub uki_len: u64,
    /// SHA-256 of these bytes.
    pub uki_sha256: [u8; 32],
    /// Root hash of the dm-verity tree.
    pub root_hash: [u8; 32],
    /// Release version.
    pub version: Text<64>,
    /// Why the slot was last given up.
    pub reason: Text<128>,
}

impl SlotEntry {
    /// A slot that holds nothing.
    pub const EMPTY: SlotEntry = SlotEntry {
        state: State::Empty,
        priority: 0,
        uki_len: 0,
        uki_sha256: [0; 32],
        root_hash: [0; 32],
        version: Text::EMPTY,
        reason: Text::EMPTY,
    };
}

/// The boot record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with every write.
    pub sequence: u64,
    /// Slot A, slot B.
    pub slots: [SlotEntry; 2],
}

impl core::ops::Index<Slot> for Record {
    type Output = SlotEntry;
    fn index(&self, slot: Slot) -> &SlotEntry {
        &self.slots[slot.index()]
    }
}

impl core::ops::IndexMut<Slot> for Record {
    fn index_mut(&mut self, slot: Slot) -> &mut SlotEntry {
        &mut self.slots[slot.index()]
    }
}

/// Why a copy of the record does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not a boot record at all.
    #[error("no boot record magic")]
    Magic,
    /// Half-written or rotted.
    #[error("checksum does not match")]
    Checksum,
    /// Written by a later Berth.
    #[error("format {0} is not known here")]
    Format(u32),
    /// The checksum is right and the content is not.
    #[error("slot state {0} is not known here")]
    State(u8),
}

impl Record {
    /// The record of a new image: slot A healthy, because there is nothing to fall back to.
    pub fn of_new_image(a: SlotEntry) -> Record {
        let a = SlotEntry { state: State::Healthy, priority: 1, reason: Text::EMPTY, ..a };
        Record { sequence: 1, slots: [a, SlotEntry::EMPTY] }
    }

    /// The bytes of one copy.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = block::begin(MAGIC);
        block[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        block[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        for (entry, at) in self.slots.iter().zip(SLOT_AT) {
            let (state, tries) = match entry.state {
                State::Empty => (0, 0),
                State::Trial { tries } => (1, tries),
                State::Healthy => (2, 0),
                State::GivenUp => (3, 0),
            };
            let out = &mut block[at..];
            out[0] = state;
            out[1] = entry.priority;
            out[2] = tries;
            out[8..16].copy_from_slice(&entry.uki_len.to_le_bytes());
            out[16..48].copy_from_slice(&entry.uki_sha256);
            out[48..80].copy_from_slice(&entry.root_hash);
            out[80..144].copy_from_slice(entry.version.to_padded());
            out[144..272].copy_from_slice(entry.reason.to_padded());
        }
        block::sealed(block)
    }

    /// Reads one copy.
    pub fn decode(block: &[u8; BLOCK]) -> Result<Record, Invalid> {
        if block[0..8] != MAGIC {
            return Err(Invalid::Magic);
        }
        if !block::is_whole(block) {
            return Err(Invalid::Checksum);
        }
        let format = u32_at(block, 8);
        if format != FORMAT {
            return Err(Invalid::Format(format));
        }
        let mut slots = [SlotEntry::EMPTY; 2];
        for (entry, at) in slots.iter_mut().zip(SLOT_AT) {
            let from = &block[at..];
            entry.state = match from[0] {
                0 => State::Empty,
                1 => State::Trial { tries: from[2] },
                2 => State::Healthy,
                3 => State::GivenUp,
                other => return Err(Invalid::State(other)),
            };
            entry.priority = from[1];
            entry.uki_len = u64_at(from, 8);
            entry.uki_sha256 = array_at(from, 16);
            entry.root_hash = array_at(from, 48);
            entry.version = Text::from_padded(&array_at(from, 80));
            entry.reason = Text::from_padded(&array_at(from, 144));
        }
        Ok(Record { sequence: u64_at(block, 16), slots })
    }

    /// The slot called `slot` failed for `reason`. Does not write to the disk.
    pub fn give_up(&mut self, slot: Slot, reason: &str) {
        self[slot].state = State::GivenUp;
        self[slot].reason = Text::new(reason);
    }

    /// The slot ran with everything that was asked of it. Does not write to the disk.
    pub fn mark_healthy(&mut self, slot: Slot) {
        self[slot].state = State::Healthy;
        self[slot].reason = Text::EMPTY;
    }
}

/// What both copies together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record that counts, if either copy is valid.
    pub record: Option<Record>,
    /// What is wrong with each copy.
    pub invalid: [Option<Invalid>; 2],
    /// Byte offset in `berth-state` where the next write goes: the copy that does not count.
    pub next_offset: u64,
}

/// Decides which of the two copies counts.
pub fn read_copies(copies: [&[u8; BLOCK]; 2]) -> Stored {
    let decoded = copies.map(Record::decode);
    let invalid = [decoded[0].err(), decoded[1].err()];
    let (record, current) = match (decoded[0], decoded[1]) {
        (Ok(first), Ok(second)) if second.sequence > first.sequence => (Some(second), 1),
        (Ok(first), _) => (Some(first), 0),
        (Err(_), Ok(second)) => (Some(second), 1),
        (Err(_), Err(_)) => (None, 1),
    };
    Stored { record, invalid, next_offset: RECORD_OFFSETS[1 - current] }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// `N` bytes from `at` on. Callers index constant offsets of blocks of constant size.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sequence: u64) -> Record {
        let entry = SlotEntry {
            uki_len: 12345,
            uki_sha256: [7; 32],
            root_hash: [9; 32],
            version: Text::new("1.2.3"),
            ..SlotEntry::EMPTY
        };
        let mut record = Record { sequence, ..Record::of_new_image(entry) };
        record[Slot::B] = SlotEntry {
            state: State::Trial { tries: 3 },
            priority: 2,
            reason: Text::new("runtime did not get ready"),
            ..entry
        };
        record
    }

    #[test]
    fn round_trips() {
        assert_eq!(Record::decode(&sample(4).encode()), Ok(sample(4)));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = sample(4).encode();
        for bit in 0..BLOCK * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_higher_sequence_counts_and_the_other_copy_is_written_next() {
        let (four, five) = (sample(4).encode(), sample(5).encode());
        let stored = read_copies([&four, &five]);
        assert_eq!(stored.record, Some(sample(5)));
        assert_eq!(stored.next_offset, RECORD_OFFSETS[0]);
        let stored = read_copies([&five, &four]);
        assert_eq!(stored.record, Some(sample(5)));
        assert_eq!(stored.next_offset, RECORD_OFFSETS[1]);
    }

    #[test]
    fn a_write_torn_at_any_sector_leaves_the_older_record() {
        let (old, new) = (sample(4).encode(), sample(6).encode());
        for sectors in 0..BLOCK / 512 {
            let mut torn = sample(3).encode();
            torn[..sectors * 512].copy_from_slice(&new[..sectors * 512]);
            let stored = read_copies([&old, &torn]);
            let expected = if Record::decode(&torn).is_ok() { sectors == 0 } else { true };
            assert!(expected && stored.record == Some(sample(4)), "{sectors} sectors");
            assert_eq!(stored.next_offset, RECORD_OFFSETS[1]);
        }
    }

    #[test]
    fn nothing_valid_is_told_apart() {
        let stored = read_copies([&[0; BLOCK], &[0; BLOCK]]);
        assert_eq!(stored.record, None);
        assert_eq!(stored.invalid, [Some(Invalid::Magic); 2]);
    }
}
