//! Which disk `/var` lies on, when it is not the system's own: one block in `berth-state` at
//! [`DATA_PLACE_OFFSET`](crate::layout::DATA_PLACE_OFFSET), written by `init` alone.
//!
//! It is for the boot whose host configuration cannot be read. The last good one lies in `/var`, so
//! where that is has to be known from somewhere else. And it tells a disk whose partition table was
//! being written when the power went from one that holds something else.

use crate::block;
use crate::layout::BLOCK;
use crate::record::array_at;
use crate::text::Text;

const MAGIC: [u8; 8] = *b"BERTHDPL";

/// Most bytes of what names a disk.
pub const MAX_DISK: usize = 128;

/// Which disk `/var` lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPlace {
    /// What the host configuration calls it; empty: the disk that the system lies on.
    pub disk: Text<MAX_DISK>,
    /// Its partition table is being written, and nothing on it was ever used.
    pub preparing: bool,
}

impl DataPlace {
    /// The disk that the system lies on.
    pub const SYSTEM: DataPlace = DataPlace { disk: Text::EMPTY, preparing: false };

    /// The bytes of the block.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = block::begin(MAGIC);
        block[8] = u8::from(self.preparing);
        block[16..16 + MAX_DISK].copy_from_slice(self.disk.to_padded());
        block::sealed(block)
    }

    /// Reads the block. What is not whole is [`DataPlace::SYSTEM`].
    pub fn decode(block: &[u8; BLOCK]) -> DataPlace {
        if !block::is(block, MAGIC) {
            return DataPlace::SYSTEM;
        }
        DataPlace { disk: Text::from_padded(&array_at(block, 16)), preparing: block[8] == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_a_torn_block_means_the_systems_own_disk() {
        for (disk, preparing) in [("", false), ("S4EVNF0M1", false), ("sd*", true)] {
            let place = DataPlace { disk: Text::new(disk), preparing };
            let mut block = place.encode();
            assert_eq!(DataPlace::decode(&block), place);
            block[20] ^= 3;
            assert_eq!(DataPlace::decode(&block), DataPlace::SYSTEM);
        }
        assert_eq!(DataPlace::decode(&[0; BLOCK]), DataPlace::SYSTEM);
    }
}
