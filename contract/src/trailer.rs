//! The last [`BLOCK`] of a boot partition repeats length and SHA-256 of the UKI at its start. It
//! serves only when both copies of the boot record are lost.

use crate::block;
use crate::layout::{BLOCK, Slot};
use crate::record::{Record, SlotEntry, State, array_at, u32_at, u64_at};
use crate::text::Text;

const MAGIC: [u8; 8] = *b"BERTHUKI";
const FORMAT: u32 = 1;

/// What a boot partition says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// [`Record::sequence`] when the slot was written. The slot with the *lower* number ran well
    /// enough to install the other one.
    pub sequence: u64,
    /// Length of the UKI in bytes.
    pub uki_len: u64,
    /// SHA-256 of the UKI.
    pub uki_sha256: [u8; 32],
    /// Root hash of the dm-verity tree of the same slot.
    pub root_hash: [u8; 32],
    /// Release version.
    pub version: Text<64>,
}

impl Trailer {
    /// The trailer that belongs to `entry`, written when the record has `sequence`.
    pub fn of(entry: &SlotEntry, sequence: u64) -> Trailer {
        Trailer {
            sequence,
            uki_len: entry.uki_len,
            uki_sha256: entry.uki_sha256,
            root_hash: entry.root_hash,
            version: entry.version,
        }
    }

    /// The bytes of the block.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = block::begin(MAGIC);
        block[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        block[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        block[24..32].copy_from_slice(&self.uki_len.to_le_bytes());
        block[32..64].copy_from_slice(&self.uki_sha256);
        block[64..96].copy_from_slice(&self.root_hash);
        block[96..160].copy_from_slice(self.version.to_padded());
        block::sealed(block)
    }

    /// Reads the block; `None` when it is not a whole trailer of a known format.
    pub fn decode(block: &[u8; BLOCK]) -> Option<Trailer> {
        let whole = block::is(block, MAGIC) && u32_at(block, 8) == FORMAT;
        whole.then(|| Trailer {
            sequence: u64_at(block, 16),
            uki_len: u64_at(block, 24),
            uki_sha256: array_at(block, 32),
            root_hash: array_at(block, 64),
            version: Text::from_padded(&array_at(block, 96)),
        })
    }
}

/// A record rebuilt from the trailers alone, or `None` when neither is whole.
///
/// Health is not known then, so both slots count as given up and boot as a last resort, the older
/// one first: it ran well enough to install the newer.
pub fn recover(trailers: [Option<Trailer>; 2]) -> Option<Record> {
    let newest = trailers.iter().flatten().map(|t| t.sequence).max()?;
    let mut record = Record { sequence: newest, slots: [SlotEntry::EMPTY; 2] };
    for slot in Slot::ALL {
        if let Some(trailer) = trailers[slot.index()] {
            record[slot] = SlotEntry {
                state: State::GivenUp,
                priority: if trailer.sequence < newest { 2 } else { 1 },
                uki_len: trailer.uki_len,
                uki_sha256: trailer.uki_sha256,
                root_hash: trailer.root_hash,
                version: trailer.version,
                reason: Text::new("boot record was lost"),
            };
        }
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::{Why, choose};

    fn trailer(sequence: u64) -> Trailer {
        Trailer {
            sequence,
            uki_len: 99,
            uki_sha256: [1; 32],
            root_hash: [2; 32],
            version: Text::new("7"),
        }
    }

    #[test]
    fn round_trips_and_notices_every_flipped_bit() {
        let block = trailer(3).encode();
        assert_eq!(Trailer::decode(&block), Some(trailer(3)));
        for bit in 0..BLOCK * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn without_a_record_the_older_slot_boots_first() {
        let record = recover([Some(trailer(9)), Some(trailer(4))]).expect("two trailers");
        let choice = choose(&record, [false; 2]).expect("two slots");
        assert_eq!((choice.slot, choice.why), (Slot::B, Why::LastResort));
        let next = choose(&record, [false, true]).expect("one slot left");
        assert_eq!(next.slot, Slot::A);
    }

    #[test]
    fn nothing_whole_recovers_nothing() {
        assert_eq!(recover([None, None]), None);
    }
}
