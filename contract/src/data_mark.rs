//! How far the making of the `data` filesystem has come: one block in `berth-state` at
//! [`DATA_MARK_OFFSET`](crate::layout::DATA_MARK_OFFSET), written by `init` alone.
//!
//! It tells a first boot that was cut short (make the filesystem again) from a filesystem that
//! was damaged (never make it again).

use crate::block;
use crate::layout::BLOCK;

const MAGIC: [u8; 8] = *b"BERTHDAT";

/// What is known of the filesystem in `data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMark {
    /// Nothing: a new image, or `berth-state` was lost.
    Unknown,
    /// It is being made; nothing in it was used yet.
    Making,
    /// It was made whole and may hold anything since.
    Made,
}

impl DataMark {
    /// The bytes of the block.
    pub fn encode(self) -> [u8; BLOCK] {
        let mut block = block::begin(MAGIC);
        block[8] = match self {
            DataMark::Unknown => 0,
            DataMark::Making => 1,
            DataMark::Made => 2,
        };
        block::sealed(block)
    }

    /// Reads the block. What is not whole is [`DataMark::Unknown`].
    pub fn decode(block: &[u8; BLOCK]) -> DataMark {
        if !block::is(block, MAGIC) {
            return DataMark::Unknown;
        }
        match block[8] {
            1 => DataMark::Making,
            2 => DataMark::Made,
            _ => DataMark::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_a_torn_block_says_nothing() {
        for mark in [DataMark::Unknown, DataMark::Making, DataMark::Made] {
            let mut block = mark.encode();
            assert_eq!(DataMark::decode(&block), mark);
            block[8] ^= 3;
            assert_eq!(DataMark::decode(&block), DataMark::Unknown);
        }
        assert_eq!(DataMark::decode(&[0; BLOCK]), DataMark::Unknown);
    }
}
