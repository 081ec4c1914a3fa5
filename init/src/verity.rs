//! The dm-verity target that opens a root filesystem. The superblock comes from a partition that an
//! update writes into, so all of it is checked; what counts in the end is the root hash of the
//! kernel command line.

use contract::hex;
use contract::layout::VERITY_BLOCK;
use contract::verity::{Superblock, size};

/// Whether data and tree lie within partitions of these sizes in bytes.
pub fn fits(superblock: &Superblock, data_len: u64, hash_len: u64) -> Result<(), String> {
    let blocks = superblock.data_blocks;
    // One block has no tree in the kernel's eyes. A filesystem has more than one.
    if blocks < 2 {
        return Err("a single data block".to_owned());
    }
    if blocks * VERITY_BLOCK as u64 > data_len {
        return Err(format!("{blocks} data blocks, more than the partition has"));
    }
    if size(blocks) > hash_len {
        return Err("a tree larger than its partition".to_owned());
    }
    Ok(())
}

/// Table parameters of the dm-verity target.
///
/// No option is given for corrupt blocks, so that reading one fails with an I/O error. The
/// alternatives restart the machine at once: one rotted block that only an unused file has
/// would then take down a host that works.
pub fn parameters(superblock: &Superblock, data: &str, hash: &str, root_hash: &[u8; 32]) -> String {
    let salt = &superblock.salt;
    let salt = if salt.is_empty() { "-".to_owned() } else { hex::encode(salt) };
    format!(
        "1 {data} {hash} {VERITY_BLOCK} {VERITY_BLOCK} {} 1 sha256 {} {salt}",
        superblock.data_blocks,
        hex::encode(root_hash)
    )
}

/// Length of the data in sectors of 512 bytes.
pub const fn sectors(superblock: &Superblock) -> u64 {
    superblock.data_blocks * (VERITY_BLOCK as u64 / 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(data_blocks: u64) -> Superblock {
        Superblock { uuid: [1; 16], data_blocks, salt: vec![0xab, 0xcd] }
    }

    #[test]
    fn partitions_must_hold_data_and_tree() {
        // 1000 blocks: 8 of hashes, 1 on top, 1 of the superblock.
        let thousand = superblock(1000);
        assert!(fits(&thousand, 1000 * 4096, 10 * 4096).is_ok());
        assert!(fits(&thousand, 999 * 4096, 10 * 4096).is_err());
        assert!(fits(&thousand, 1000 * 4096, 9 * 4096).is_err());
        assert!(fits(&superblock(1), 1000 * 4096, 10 * 4096).is_err());
    }

    #[test]
    fn parameters_are_as_the_kernel_wants_them() {
        let expected = format!("1 D H 4096 4096 1000 1 sha256 {} abcd", "07".repeat(32));
        assert_eq!(parameters(&superblock(1000), "D", "H", &[7; 32]), expected);
        assert_eq!(sectors(&superblock(1000)), 8000);
    }
}
