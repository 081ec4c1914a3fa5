//! The superblock of an ext4 filesystem, as far as deciding about `/var` needs it.

use crate::error::{Error, On};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes at the start of a partition that have to be zero for it to count as empty. Partition
/// tables, volume managers, RAID and every filesystem leave something there.
const LOOKED_AT: u64 = 1 << 20;
/// Bytes that are looked at at once.
pub const PIECE: usize = 16 << 10;

/// What lies in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros, as an image leaves it.
    Blank,
    /// An ext2, ext3 or ext4 filesystem, whole or not.
    Ext4 {
        /// Its size in bytes.
        len: u64,
        /// Size of its blocks in bytes.
        block_size: u64,
    },
    /// Anything else.
    Unknown,
}

impl Content {
    /// Looks at the partition `device`.
    pub fn of(device: &str) -> Result<Content, Error> {
        let file = File::open(device).on("open", device)?;
        // In pieces: as a whole it would stay in this program's memory.
        let mut piece = [0; PIECE];
        file.read_exact_at(&mut piece, 0).on("read", device)?;
        if let Some(content) = superblock(&piece) {
            return Ok(content);
        }
        for at in (0..LOOKED_AT).step_by(PIECE) {
            file.read_exact_at(&mut piece, at).on("read", device)?;
            if piece.iter().any(|&b| b != 0) {
                return Ok(Content::Unknown);
            }
        }
        Ok(Content::Blank)
    }
}

/// Layout: the kernel's documentation of ext4, "Super Block".
pub fn superblock(start: &[u8; PIECE]) -> Option<Content> {
    let block = &start[1024..2048];
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| block[at + i]));
    if u16::from_le_bytes([block[0x38], block[0x39]]) != 0xef53 {
        return None;
    }
    let log_block_size = u32_at(0x18);
    if log_block_size > 6 {
        return None;
    }
    let block_size = 1024_u64 << log_block_size;
    let has_64_bits = u32_at(0x60) & 0x80 != 0;
    let high = if has_64_bits { u64::from(u32_at(0x150)) } else { 0 };
    let len = (high << 32 | u64::from(u32_at(4))).checked_mul(block_size)?;
    Some(Content::Ext4 { len, block_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl Fn(&mut [u8])) -> Content {
        use std::io::Write;
        let mut start = vec![0; 2 << 20];
        change(&mut start);
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&start).expect("written");
        Content::of(file.path().to_str().expect("a path")).expect("readable")
    }

    fn ext4(change: impl Fn(&mut [u8])) -> Content {
        of(|start| {
            let superblock = &mut start[1024..2048];
            superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            superblock[4..8].copy_from_slice(&1000_u32.to_le_bytes());
            superblock[0x18] = 2;
            change(superblock);
        })
    }

    #[test]
    fn superblock_table() {
        let expected = |len| Content::Ext4 { len, block_size: 4096 };
        assert_eq!(ext4(|_| {}), expected(1000 * 4096));
        // The high half counts only with the feature that has one.
        assert_eq!(ext4(|s| s[0x150] = 1), expected(1000 * 4096));
        let large = |s: &mut [u8]| (s[0x150], s[0x60]) = (1, 0x80);
        assert_eq!(ext4(large), expected((1000 + (1 << 32)) * 4096));
        let overflow = |s: &mut [u8]| {
            s[0x60] = 0x80;
            s[0x150..0x154].fill(0xff);
        };
        assert_eq!(ext4(overflow), Content::Unknown);
        assert_eq!(ext4(|s| s[0x18] = 40), Content::Unknown);
        assert_eq!(ext4(|s| s[0x38] = 0), Content::Unknown);
    }

    #[test]
    fn blank_is_a_mebibyte_of_zeros() {
        let last = LOOKED_AT as usize - 1;
        assert_eq!(of(|_| {}), Content::Blank);
        assert_eq!(of(|start| start[0] = 1), Content::Unknown);
        assert_eq!(of(|start| start[last] = 1), Content::Unknown);
        assert_eq!(of(|start| start[last + 1] = 1), Content::Blank);
    }
}
