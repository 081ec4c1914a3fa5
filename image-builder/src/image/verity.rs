//! dm-verity hash trees, byte for byte as `veritysetup format` writes them (format 1 with a
//! superblock, SHA-256, blocks of 4096 bytes):
//! Documentation/admin-guide/device-mapper/verity.rst and the cryptsetup wiki, "DMVerity".

use crate::{Error, Result};
use contract::gpt::Guid;
use contract::layout::VERITY_BLOCK as BLOCK;
use contract::verity::{BlockHasher, HASH_LEN, Superblock, level_sizes};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

pub use contract::verity::{Hash, size};

/// How much of the data is read at once by each thread.
const CHUNK_BLOCKS: u64 = 256;

/// What a tree is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Goes in front of every block that is hashed.
    pub salt: Hash,
    /// Identity of the tree.
    pub uuid: [u8; 16],
}

/// The hash of each data block, collected in any order.
#[derive(Clone, Debug)]
pub struct Leaves {
    hasher: BlockHasher,
    hashes: Vec<u8>,
}

impl Leaves {
    /// All `blocks` data blocks hold zeros so far.
    pub fn of_zeros(blocks: u64, salt: &Hash) -> Leaves {
        let hasher = BlockHasher::new(salt);
        let zero = hasher.hash(&[0; BLOCK]);
        Leaves { hasher, hashes: zero.repeat(blocks as usize) }
    }

    /// Something that hashes blocks on another thread, for [`Leaves::put`].
    pub fn hasher(&self) -> BlockHasher {
        self.hasher.clone()
    }

    /// Notes the hashes of consecutive blocks from number `first` on.
    pub fn put(&mut self, first: u64, hashes: &[u8]) {
        let at = first as usize * HASH_LEN;
        self.hashes[at..at + hashes.len()].copy_from_slice(hashes);
    }
}

/// A finished tree.
#[derive(Clone, Debug)]
pub struct Built {
    /// The partition's content: superblock and tree.
    pub bytes: Vec<u8>,
    /// The root hash.
    pub root_hash: Hash,
}

/// Builds the tree over `leaves`.
pub fn build(params: &Params, leaves: Leaves) -> Built {
    let Leaves { hasher, hashes } = leaves;
    let data_blocks = (hashes.len() / HASH_LEN) as u64;
    let mut levels = vec![padded(hashes)];
    while let Some(last) = levels.last()
        && last.len() > BLOCK
    {
        let above = hasher.hash_all(last);
        levels.push(padded(above));
    }
    let root_hash = match levels.last() {
        // A single data block has a tree of its own all the same.
        Some(top) => hasher.hash(top),
        None => [0; HASH_LEN],
    };
    let superblock = Superblock { uuid: params.uuid, data_blocks, salt: params.salt.to_vec() };
    let mut bytes = superblock.encode().to_vec();
    for level in levels.iter().rev() {
        bytes.extend_from_slice(level);
    }
    Built { bytes, root_hash }
}

fn padded(mut hashes: Vec<u8>) -> Vec<u8> {
    hashes.resize(hashes.len().next_multiple_of(BLOCK), 0);
    hashes
}

/// A byte range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every block is what `root_hash` says.
    Whole {
        /// Number of data blocks.
        data_blocks: u64,
    },
    /// The partition has no tree that is known here, or one that does not fit.
    NoTree,
    /// This block of the tree, counted from the superblock, is wrong.
    TreeBlock(u64),
    /// This data block is wrong.
    DataBlock(u64),
}

/// Checks the data in range `data` of `file` against the tree in range `tree` and `root_hash`, on
/// all processors. Names the first block that is wrong.
pub fn verify(
    file: &File,
    path: &Path,
    data: Range,
    tree: Range,
    root_hash: &Hash,
) -> Result<Verdict> {
    let read = |range: Range| {
        let mut bytes = vec![0; range.len as usize];
        file.read_exact_at(&mut bytes, range.offset).map_err(Error::io("read", path))?;
        Ok::<_, Error>(bytes)
    };
    let mut first = [0; BLOCK];
    if tree.len < BLOCK as u64 {
        return Ok(Verdict::NoTree);
    }
    file.read_exact_at(&mut first, tree.offset).map_err(Error::io("read", path))?;
    let Ok(superblock) = Superblock::decode(&first) else { return Ok(Verdict::NoTree) };
    let blocks = superblock.data_blocks;
    if blocks > data.len / BLOCK as u64 || size(blocks) > tree.len {
        return Ok(Verdict::NoTree);
    }
    let hasher = superblock.hasher();

    // From the root down: each level is checked by the one above it.
    let mut expected = root_hash.to_vec();
    let mut block = 1;
    for level_blocks in level_sizes(blocks).into_iter().rev() {
        let offset = tree.offset + block * BLOCK as u64;
        let level = read(Range { offset, len: level_blocks * BLOCK as u64 })?;
        for (i, bytes) in level.chunks_exact(BLOCK).enumerate() {
            let expected = expected.get(i * HASH_LEN..(i + 1) * HASH_LEN);
            if expected != Some(&hasher.hash(bytes)[..]) {
                return Ok(Verdict::TreeBlock(block + i as u64));
            }
        }
        block += level_blocks;
        expected = level;
    }
    let wrong = first_wrong_block(file, data.offset, blocks, &hasher, &expected)
        .map_err(Error::io("read", path))?;
    Ok(wrong.map_or(Verdict::Whole { data_blocks: blocks }, Verdict::DataBlock))
}

fn first_wrong_block(
    file: &File,
    offset: u64,
    blocks: u64,
    hasher: &BlockHasher,
    expected: &[u8],
) -> io::Result<Option<u64>> {
    let (next, wrong) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BLOCKS as usize * BLOCK];
        loop {
            let first = next.fetch_add(CHUNK_BLOCKS, Ordering::Relaxed);
            // Chunks are handed out in order: what lies behind a wrong block is of no interest.
            if first >= blocks.min(wrong.load(Ordering::Relaxed)) {
                return Ok(());
            }
            let len = (blocks - first).min(CHUNK_BLOCKS) as usize * BLOCK;
            file.read_exact_at(&mut buffer[..len], offset + first * BLOCK as u64)?;
            for (number, block) in (first..).zip(buffer[..len].chunks_exact(BLOCK)) {
                let at = number as usize * HASH_LEN;
                if expected[at..at + HASH_LEN] != hasher.hash(block) {
                    wrong.fetch_min(number, Ordering::Relaxed);
                    break;
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            result = result.and(other.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        }
        result
    })?;
    let wrong = wrong.into_inner();
    Ok((wrong != u64::MAX).then_some(wrong))
}

/// The partition GUIDs that the Discoverable Partitions Specification derives from a root hash:
/// root (the first 128 bits) and verity (the last).
pub fn partition_guids(root_hash: &Hash) -> (Guid, Guid) {
    let number = |from: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&root_hash[from..from + 16]);
        Guid::from_u128(u128::from_be_bytes(bytes))
    };
    (number(0), number(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(blocks: u64) -> (Vec<u8>, Built, Params) {
        let params = Params { salt: [5; 32], uuid: [6; 16] };
        let data: Vec<u8> = (0..blocks as usize * BLOCK).map(|i| (i / 7) as u8).collect();
        let mut leaves = Leaves::of_zeros(blocks, &params.salt);
        let hasher = leaves.hasher();
        // In two parts and backwards: order must not matter.
        let half = blocks / 2;
        leaves.put(half, &hasher.hash_all(&data[half as usize * BLOCK..]));
        leaves.put(0, &hasher.hash_all(&data[..half as usize * BLOCK]));
        let built = build(&params, leaves);
        (data, built, params)
    }

    fn check(data: &[u8], tree: &[u8], root_hash: &Hash) -> Verdict {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(data, 0).expect("write");
        file.write_all_at(tree, data.len() as u64).expect("write");
        let data = Range { offset: 0, len: data.len() as u64 };
        let tree = Range { offset: data.len, len: tree.len() as u64 };
        verify(&file, Path::new("x"), data, tree, root_hash).expect("readable")
    }

    #[test]
    fn sizes_are_those_of_the_bytes() {
        for blocks in [1, 2, 127, 128, 129, 300] {
            let (_, built, _) = sample(blocks);
            assert_eq!(built.bytes.len() as u64, size(blocks), "{blocks}");
        }
    }

    #[test]
    fn untouched_data_is_whole_and_zeros_count_as_written() {
        for blocks in [1, 2, 128, 129, 700] {
            let (data, built, params) = sample(blocks);
            let expected = Verdict::Whole { data_blocks: blocks };
            assert_eq!(check(&data, &built.bytes, &built.root_hash), expected);
            let zeros = build(&params, Leaves::of_zeros(blocks, &params.salt));
            let data = vec![0; blocks as usize * BLOCK];
            assert_eq!(check(&data, &zeros.bytes, &zeros.root_hash), expected);
        }
    }

    #[test]
    fn the_first_wrong_block_is_named() {
        let (data, built, _) = sample(700);
        for block in [0, 1, 255, 256, 699] {
            let mut bad = data.clone();
            bad[block * BLOCK + 9] ^= 1;
            bad[699 * BLOCK] ^= 2;
            let verdict = check(&bad, &built.bytes, &built.root_hash);
            assert_eq!(verdict, Verdict::DataBlock(block as u64));
        }
        for block in 1..built.bytes.len() / BLOCK {
            let mut bad = built.bytes.clone();
            bad[block * BLOCK + 4] ^= 1;
            let verdict = check(&data, &bad, &built.root_hash);
            assert_eq!(verdict, Verdict::TreeBlock(block as u64));
        }
        assert_eq!(check(&data, &built.bytes, &[0; 32]), Verdict::TreeBlock(1));
        assert_eq!(check(&data, &[0; BLOCK], &built.root_hash), Verdict::NoTree);
        assert_eq!(check(&data, &built.bytes[..BLOCK], &built.root_hash), Verdict::NoTree);
    }

    #[test]
    fn guids_show_the_root_hash() {
        let mut hash = [0; 32];
        hash.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let (root, verity) = partition_guids(&hash);
        assert_eq!(root.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(verity.to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
    }
}
