//! What `veritysetup format` writes, as far as a root filesystem needs it.
//!
//! The superblock lies at the start of the hash device, padded to one block; the tree follows it,
//! its top block first. The bytes come from a partition that an update writes into, so each is
//! checked; what counts in the end is the root hash of the kernel command line.

use crate::cmdline::hex;
use contract::layout::VERITY_BLOCK;
use sha2::{Digest, Sha256};

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Number of data blocks.
    pub data_blocks: u64,
    /// Hashed before each block.
    pub salt: Vec<u8>,
}

/// Hash blocks before the tree.
const TREE_START: u64 = 1;
/// SHA-256 digests in one block.
const FANOUT: u64 = VERITY_BLOCK as u64 / 32;

impl Superblock {
    /// Reads the superblock at the start of `bytes`.
    pub fn decode(bytes: &[u8; VERITY_BLOCK]) -> Result<Superblock, String> {
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[0..8] != *b"verity\0\0" {
            return Err("no dm-verity superblock".to_owned());
        }
        if (u32_at(8), u32_at(12)) != (1, 1) {
            return Err("a dm-verity format of another kind".to_owned());
        }
        let algorithm = bytes[32..64].split(|&b| b == 0).next().unwrap_or(&[]);
        if algorithm != b"sha256" {
            return Err("another algorithm than sha256".to_owned());
        }
        if [u32_at(64), u32_at(68)] != [VERITY_BLOCK as u32; 2] {
            return Err(format!("other blocks than of {VERITY_BLOCK} bytes"));
        }
        let salt_len = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        let salt = bytes.get(88..88 + salt_len).filter(|salt| salt.len() <= 256);
        let salt = salt.ok_or("a salt of more than 256 bytes")?.to_vec();
        let data_blocks = u64_at(72);
        // One block has no tree. A filesystem has more than one.
        if data_blocks < 2 || data_blocks > u64::MAX / VERITY_BLOCK as u64 / 2 {
            return Err(format!("{data_blocks} data blocks"));
        }
        Ok(Superblock { data_blocks, salt })
    }

    /// Whether data and tree lie within partitions of these sizes in bytes.
    pub fn fits(&self, data_len: u64, hash_len: u64) -> Result<(), String> {
        let block = VERITY_BLOCK as u64;
        if self.data_blocks * block > data_len {
            return Err(format!("{} data blocks, more than the partition has", self.data_blocks));
        }
        if (TREE_START + self.tree_blocks()) * block > hash_len {
            return Err("a tree larger than its partition".to_owned());
        }
        Ok(())
    }

    fn tree_blocks(&self) -> u64 {
        let mut level = self.data_blocks;
        let mut all = 0;
        while level > 1 {
            level = level.div_ceil(FANOUT);
            all += level;
        }
        all
    }

    /// Byte offset of the top block of the tree on the hash device.
    pub const TOP_OFFSET: u64 = TREE_START * VERITY_BLOCK as u64;

    /// The root hash that belongs to `top`, the block at [`Superblock::TOP_OFFSET`].
    pub fn root_hash(&self, top: &[u8; VERITY_BLOCK]) -> [u8; 32] {
        Sha256::new().chain_update(&self.salt).chain_update(top).finalize().into()
    }

    /// Table parameters of the dm-verity target.
    ///
    /// No option is given for corrupt blocks, so that reading one fails with an I/O error. The
    /// alternatives restart the machine at once: one rotted block that only an unused file has
    /// would then take down a host that works.
    pub fn parameters(&self, data: &str, hash: &str, root_hash: &[u8; 32]) -> String {
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex(&self.salt) };
        format!(
            "1 {data} {hash} {VERITY_BLOCK} {VERITY_BLOCK} {} {TREE_START} sha256 {} {salt}",
            self.data_blocks,
            hex(root_hash)
        )
    }

    /// Length of the data in sectors of 512 bytes.
    pub const fn sectors(&self) -> u64 {
        self.data_blocks * (VERITY_BLOCK as u64 / 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> [u8; VERITY_BLOCK] {
        let mut bytes = [0; VERITY_BLOCK];
        bytes[0..6].copy_from_slice(b"verity");
        bytes[8] = 1;
        bytes[12] = 1;
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[72..80].copy_from_slice(&1000_u64.to_le_bytes());
        bytes[80] = 2;
        bytes[88..90].copy_from_slice(&[0xab, 0xcd]);
        bytes
    }

    #[test]
    fn a_superblock_becomes_table_parameters() {
        let superblock = Superblock::decode(&bytes()).expect("whole");
        assert_eq!(superblock, Superblock { data_blocks: 1000, salt: vec![0xab, 0xcd] });
        assert_eq!(
            superblock.parameters("/dev/vda5", "/dev/vda7", &[0x11; 32]),
            format!("1 /dev/vda5 /dev/vda7 4096 4096 1000 1 sha256 {} abcd", "11".repeat(32))
        );
        assert_eq!(superblock.sectors(), 8000);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = bytes();
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
            (72, &[1, 0]),
            (72, &[0xff; 8]),
            (80, &[1, 1]),
        ] {
            assert!(with(at, value).is_err(), "{at} {value:?}");
        }
        assert!(with(80, &[0, 1]).is_ok(), "256 bytes of salt are allowed");
    }

    #[test]
    fn partitions_must_hold_data_and_tree() {
        let superblock = Superblock::decode(&bytes()).expect("whole");
        // 1000 blocks: 8 of digests, 1 on top, 1 of the superblock.
        assert_eq!(superblock.tree_blocks(), 9);
        assert!(superblock.fits(1000 * 4096, 10 * 4096).is_ok());
        assert!(superblock.fits(999 * 4096, 10 * 4096).is_err());
        assert!(superblock.fits(1000 * 4096, 9 * 4096).is_err());
    }

    #[test]
    fn the_salt_is_hashed_before_the_block() {
        let superblock = Superblock::decode(&bytes()).expect("whole");
        let mut both = vec![0xab, 0xcd];
        both.extend([7; VERITY_BLOCK]);
        let expected: [u8; 32] = Sha256::digest(&both).into();
        assert_eq!(superblock.root_hash(&[7; VERITY_BLOCK]), expected);
    }
}
