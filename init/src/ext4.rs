//! The superblock of an ext4 filesystem, as far as deciding about `/var` needs it.

use crate::error::{Error, On};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes at the start of a partition that have to be zero for it to count as empty. Partition
/// tables, volume managers, RAID and every filesystem leave something there.
const LOOKED_AT: usize = 1 << 20;

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
        let mut start = vec![0; LOOKED_AT];
        File::open(device).and_then(|file| file.read_exact_at(&mut start, 0)).on("read", device)?;
        Ok(Content::decide(&start))
    }

    /// Decides by the first bytes.
    fn decide(start: &[u8]) -> Content {
        if start.iter().all(|&b| b == 0) {
            return Content::Blank;
        }
        superblock(start).unwrap_or(Content::Unknown)
    }
}

/// Layout: the kernel's documentation of ext4, "Super Block".
fn superblock(start: &[u8]) -> Option<Content> {
    let block = start.get(1024..2048)?;
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

    fn start(change: impl Fn(&mut [u8])) -> Content {
        let mut start = vec![0; LOOKED_AT];
        start[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
        start[1024 + 4..][..4].copy_from_slice(&1000_u32.to_le_bytes());
        start[1024 + 0x18] = 2;
        change(&mut start[1024..]);
        Content::decide(&start)
    }

    #[test]
    fn content_table() {
        let ext4 = |len| Content::Ext4 { len, block_size: 4096 };
        assert_eq!(start(|_| {}), ext4(1000 * 4096));
        // The high half counts only with the feature that has one.
        assert_eq!(start(|s| s[0x150] = 1), ext4(1000 * 4096));
        assert_eq!(
            start(|s| {
                s[0x150] = 1;
                s[0x60] = 0x80;
            }),
            ext4((1000 + (1 << 32)) * 4096)
        );
        assert_eq!(start(|s| s[0x18] = 40), Content::Unknown);
        assert_eq!(start(|s| s[0x38] = 0), Content::Unknown);
        let overflow = start(|s| {
            s[0x60] = 0x80;
            s[0x150..0x154].fill(0xff);
        });
        assert_eq!(overflow, Content::Unknown);
        assert_eq!(Content::decide(&vec![0; LOOKED_AT]), Content::Blank);
        let mut late = vec![0; LOOKED_AT];
        late[LOOKED_AT - 1] = 1;
        assert_eq!(Content::decide(&late), Content::Unknown);
    }
}
