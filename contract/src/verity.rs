//! The shape of a dm-verity tree, byte for byte as `veritysetup format` writes it (format 1 with a
//! superblock, SHA-256, blocks of 4096 bytes):
//! Documentation/admin-guide/device-mapper/verity.rst and the cryptsetup wiki, "DMVerity".
//!
//! A verity partition holds the superblock, then the levels of the tree, the top one first. Each
//! level is the hashes of the blocks of the level below, the data at last, padded to whole blocks.

use crate::layout::VERITY_BLOCK as BLOCK;
use crate::record::{array_at, u32_at, u64_at};
use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// Bytes of a [`Hash`].
pub const HASH_LEN: usize = 32;
/// Hashes in one block of the tree.
pub const HASHES_PER_BLOCK: u64 = (BLOCK / HASH_LEN) as u64;
/// Byte offset of the tree's top block in the partition.
pub const TOP_OFFSET: u64 = BLOCK as u64;
/// The largest filesystem that is believed: 16 GiB, whose tree is 129 MiB.
pub const MAX_DATA_BLOCKS: u64 = 1 << 22;

const SIGNATURE: [u8; 8] = *b"verity\0\0";
const MAX_SALT: usize = 256;

/// The first block of a verity partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of the tree.
    pub uuid: [u8; 16],
    /// Number of data blocks.
    pub data_blocks: u64,
    /// Salt, at most 256 bytes, hashed before each block.
    pub salt: Vec<u8>,
}

impl Superblock {
    /// The bytes of the block.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        out[0..8].copy_from_slice(&SIGNATURE);
        out[8..12].copy_from_slice(&1_u32.to_le_bytes());
        out[12..16].copy_from_slice(&1_u32.to_le_bytes());
        out[16..32].copy_from_slice(&self.uuid);
        out[32..38].copy_from_slice(b"sha256");
        out[64..68].copy_from_slice(&(BLOCK as u32).to_le_bytes());
        out[68..72].copy_from_slice(&(BLOCK as u32).to_le_bytes());
        out[72..80].copy_from_slice(&self.data_blocks.to_le_bytes());
        out[80..82].copy_from_slice(&(self.salt.len() as u16).to_le_bytes());
        out[88..88 + self.salt.len()].copy_from_slice(&self.salt);
        out
    }

    /// Reads the block. The error says what is not as Berth writes it.
    pub fn decode(block: &[u8; BLOCK]) -> Result<Superblock, String> {
        if block[0..8] != SIGNATURE {
            return Err("no dm-verity superblock".to_owned());
        }
        if (u32_at(block, 8), u32_at(block, 12)) != (1, 1) {
            return Err("a dm-verity format of another kind".to_owned());
        }
        if block[32..64] != *b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" {
            return Err("another algorithm than sha256".to_owned());
        }
        if [u32_at(block, 64), u32_at(block, 68)] != [BLOCK as u32; 2] {
            return Err(format!("other blocks than of {BLOCK} bytes"));
        }
        let data_blocks = u64_at(block, 72);
        if !(1..=MAX_DATA_BLOCKS).contains(&data_blocks) {
            return Err(format!("{data_blocks} data blocks"));
        }
        let salt_len = usize::from(u16::from_le_bytes([block[80], block[81]]));
        if salt_len > MAX_SALT {
            return Err(format!("a salt of {salt_len} bytes, more than {MAX_SALT}"));
        }
        let salt = block[88..88 + salt_len].to_vec();
        Ok(Superblock { uuid: array_at(block, 16), data_blocks, salt })
    }

    /// Hashes blocks of this tree.
    pub fn hasher(&self) -> BlockHasher {
        BlockHasher::new(&self.salt)
    }
}

/// Hashes blocks, of data and of the tree.
#[derive(Clone, Debug)]
pub struct BlockHasher {
    salted: Sha256,
}

impl BlockHasher {
    /// A hasher for trees with this salt.
    pub fn new(salt: &[u8]) -> BlockHasher {
        BlockHasher { salted: Sha256::new_with_prefix(salt) }
    }

    /// The hash of one block. Of the tree's top block it is the root hash.
    pub fn hash(&self, block: &[u8]) -> Hash {
        self.salted.clone().chain_update(block).finalize().into()
    }

    /// The hashes of the whole blocks in `bytes`, one after the other.
    pub fn hash_all(&self, bytes: &[u8]) -> Vec<u8> {
        bytes.chunks_exact(BLOCK).flat_map(|block| self.hash(block)).collect()
    }
}

/// Size in bytes of superblock and tree over `data_blocks`.
pub fn size(data_blocks: u64) -> u64 {
    (1 + level_sizes(data_blocks).iter().sum::<u64>()) * BLOCK as u64
}

/// Blocks of each level, the one over the data first and the top, of one block, last.
pub fn level_sizes(data_blocks: u64) -> Vec<u64> {
    let mut sizes = Vec::new();
    let mut blocks = data_blocks.div_ceil(HASHES_PER_BLOCK);
    loop {
        sizes.push(blocks);
        if blocks <= 1 {
            return sizes;
        }
        blocks = blocks.div_ceil(HASHES_PER_BLOCK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock { uuid: [6; 16], data_blocks: 1000, salt: vec![0xab, 0xcd] }
    }

    #[test]
    fn sizes_worked_out_by_hand() {
        // 1000 blocks: 8 of hashes, 1 on top, 1 of the superblock.
        assert_eq!(size(1000), 10 * 4096);
        // 2 GiB: 4096 + 32 + 1 blocks and the superblock.
        assert_eq!(size(524_288), 4130 * 4096);
        assert_eq!(level_sizes(1), [1]);
    }

    #[test]
    fn round_trips_and_names_what_is_wrong() {
        let bytes = superblock().encode();
        assert_eq!(Superblock::decode(&bytes), Ok(superblock()));
        let with = |at: usize, value: &[u8]| {
            let mut bytes = bytes;
            bytes[at..at + value.len()].copy_from_slice(value);
            Superblock::decode(&bytes)
        };
        for (at, value) in [
            (0, &b"x"[..]),
            (8, &[2]),
            (12, &[0]),
            (32, b"sha512"),
            (64, &[1]),
            (68, &[1]),
            (72, &[0, 0]),
            (72, &[0xff; 8]),
            (80, &[1, 1]),
        ] {
            assert!(with(at, value).is_err(), "{at} {value:?}");
        }
        assert!(with(80, &[0, 1]).is_ok(), "256 bytes of salt are allowed");
    }

    #[test]
    fn the_salt_is_hashed_before_the_block() {
        let mut both = vec![0xab, 0xcd];
        both.extend([7; BLOCK]);
        let expected: Hash = Sha256::digest(&both).into();
        assert_eq!(superblock().hasher().hash(&[7; BLOCK]), expected);
    }
}
