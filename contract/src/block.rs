//! What all blocks in `berth-state` and the trailers have in common: a magic at the start, and a CRC-32
//! of everything before it at the end.

use crate::layout::BLOCK;
use crate::record::u32_at;

const CRC_AT: usize = BLOCK - 4;

/// A block of zeros that begins with `magic`.
pub(crate) fn begin(magic: [u8; 8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[0..8].copy_from_slice(&magic);
    block
}

/// The block with its checksum.
pub(crate) fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    let crc = crc32fast::hash(&block[..CRC_AT]);
    block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    block
}

/// Whether the block is as it was sealed.
pub(crate) fn is_whole(block: &[u8; BLOCK]) -> bool {
    crc32fast::hash(&block[..CRC_AT]) == u32_at(block, CRC_AT)
}

/// Whether it is a whole one with this magic.
pub(crate) fn is(block: &[u8; BLOCK], magic: [u8; 8]) -> bool {
    block[0..8] == magic && is_whole(block)
}
