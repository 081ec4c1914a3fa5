//! The parts of the disk that an update reads and writes, and how a slot is checked.

use crate::error::{On, Result};
use boot_state::BootState;
use contract::Slot;
use contract::layout::{BLOCK, Partition};
use contract::record::SlotEntry;
use contract::trailer::Trailer;
use contract::verity::{BlockHasher, HASH_LEN, Hash, Superblock, TOP_OFFSET, level_sizes, size};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use sys::block::{BlockDevice, Buffer, Direct};

/// Read at once: small enough to be nothing beside the bound on memory.
pub const CHUNK: usize = 1 << 20;

/// The disk, without the ESP and `data`: an update has no business there.
#[derive(Debug)]
pub struct Disk<D> {
    /// Boot record and boot journal.
    pub state: BootState<D>,
    boot: [D; 2],
    root: [D; 2],
    verity: [D; 2],
}

/// What a slot is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Length of the UKI in bytes.
    pub uki_len: u64,
    /// Its SHA-256.
    pub uki_sha256: Hash,
    /// Root hash of the root filesystem.
    pub root_hash: Hash,
}

impl From<&SlotEntry> for Expected {
    fn from(entry: &SlotEntry) -> Expected {
        let SlotEntry { uki_len, uki_sha256, root_hash, .. } = *entry;
        Expected { uki_len, uki_sha256, root_hash }
    }
}

/// The first thing that is wrong with a slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The UKI is not the one of the release.
    #[error("the kernel image has another SHA-256")]
    Uki,
    /// It is the right one, but a machine without a boot record would not find it.
    #[error("the trailer of the boot partition is lost")]
    Trailer,
    /// There is no hash tree, or not one of this root.
    #[error("no hash tree of this root: {0}")]
    NoTree(String),
    /// A block of the tree, counted from the superblock.
    #[error("block {0} of the hash tree is wrong")]
    TreeBlock(u64),
    /// A block of the root filesystem.
    #[error("block {0} of the root filesystem is wrong")]
    DataBlock(u64),
}

impl Disk<Direct> {
    /// Opens the partitions by the device nodes that `init` found, by GPT name.
    pub fn open(devices: &BTreeMap<String, String>) -> Result<Disk<Direct>> {
        let open = |partition: Partition, writable| {
            let label = partition.label();
            let node = devices.get(label).ok_or_else(|| {
                crate::Error::Refused(format!("this disk has no partition `{label}`"))
            })?;
            Direct::open(Path::new(node), writable).on("open", format!("{label} ({node})"))
        };
        let both = |make: fn(Slot) -> Partition| -> Result<[Direct; 2]> {
            Ok([open(make(Slot::A), true)?, open(make(Slot::B), true)?])
        };
        Ok(Disk {
            state: BootState::new(open(Partition::State, true)?),
            boot: both(Partition::Boot)?,
            root: both(Partition::Root)?,
            verity: both(Partition::Verity)?,
        })
    }
}

impl<D: BlockDevice> Disk<D> {
    /// A disk made of these partitions, each pair in the order of the slots.
    pub fn new(state: D, boot: [D; 2], root: [D; 2], verity: [D; 2]) -> Disk<D> {
        Disk { state: BootState::new(state), boot, root, verity }
    }

    /// The boot partition of `slot`.
    pub fn boot(&self, slot: Slot) -> &D {
        &self.boot[slot.index()]
    }

    /// The root partition of `slot`.
    pub fn root(&self, slot: Slot) -> &D {
        &self.root[slot.index()]
    }

    /// The verity partition of `slot`.
    pub fn verity(&self, slot: Slot) -> &D {
        &self.verity[slot.index()]
    }

    /// Length in bytes of the root filesystem of `slot`, as its hash tree says.
    pub fn root_len(&self, slot: Slot) -> Result<u64> {
        let part = Partition::Verity(slot);
        let mut first = [0; BLOCK];
        self.verity(slot).read_at(0, &mut first).on("read", part.label())?;
        let superblock = Superblock::decode(&first);
        let superblock =
            superblock.map_err(|why| crate::Error::Refused(format!("{}: {why}", part.label())))?;
        Ok((superblock.data_blocks * BLOCK as u64).min(self.root(slot).size()))
    }

    /// Byte offset of the trailer in the boot partition of `slot`.
    pub fn trailer_offset(&self, slot: Slot) -> u64 {
        (self.boot(slot).size() / BLOCK as u64 - 1) * BLOCK as u64
    }

    /// Reads all of `slot` and says what is wrong with it first, if anything is. `alive` is called
    /// after each piece of work.
    pub fn check(
        &self,
        slot: Slot,
        expected: &Expected,
        alive: &mut dyn FnMut(),
    ) -> Result<Option<Flaw>> {
        if self.uki_digest(slot, expected.uki_len, alive)? != Some(expected.uki_sha256) {
            return Ok(Some(Flaw::Uki));
        }
        let mut block = [0; BLOCK];
        let offset = self.trailer_offset(slot);
        self.boot(slot).read_at(offset, &mut block).on("read", Partition::Boot(slot).label())?;
        let names_it = |t: &Trailer| {
            (t.uki_len, t.uki_sha256, t.root_hash)
                == (expected.uki_len, expected.uki_sha256, expected.root_hash)
        };
        if !Trailer::decode(&block).as_ref().is_some_and(names_it) {
            return Ok(Some(Flaw::Trailer));
        }
        self.check_root(slot, &expected.root_hash, true, alive)
    }

    /// SHA-256 of the first `len` bytes of the boot partition; `None` when it is not that long.
    pub fn uki_digest(
        &self,
        slot: Slot,
        len: u64,
        alive: &mut dyn FnMut(),
    ) -> Result<Option<Hash>> {
        if len > self.trailer_offset(slot) {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        let mut left = len as usize;
        read_through(self.boot(slot), 0, len, Partition::Boot(slot), |bytes| {
            let used = bytes.len().min(left);
            hasher.update(&bytes[..used]);
            left -= used;
            alive();
            None::<()>
        })?;
        Ok(Some(hasher.finalize().into()))
    }

    /// Checks tree and data of `slot` from the root hash down, each level by the one above it, in
    /// constant memory. Without `data` only the tree.
    pub fn check_root(
        &self,
        slot: Slot,
        root_hash: &Hash,
        data: bool,
        alive: &mut dyn FnMut(),
    ) -> Result<Option<Flaw>> {
        let (verity, part) = (self.verity(slot), Partition::Verity(slot));
        let mut first = [0; BLOCK];
        verity.read_at(0, &mut first).on("read", part.label())?;
        let superblock = match Superblock::decode(&first) {
            Ok(superblock) => superblock,
            Err(why) => return Ok(Some(Flaw::NoTree(why))),
        };
        let blocks = superblock.data_blocks;
        if blocks > self.root(slot).size() / BLOCK as u64 || size(blocks) > verity.size() {
            return Ok(Some(Flaw::NoTree("it does not fit its partition".to_owned())));
        }
        let hasher = superblock.hasher();
        verity.read_at(TOP_OFFSET, &mut first).on("read", part.label())?;
        if hasher.hash(&first) != *root_hash {
            return Ok(Some(Flaw::NoTree("it is the tree of another root".to_owned())));
        }
        let levels: Vec<u64> = level_sizes(blocks).into_iter().rev().collect();
        let mut above = TOP_OFFSET;
        let mut at = above + BLOCK as u64;
        for count in &levels[1..] {
            let below = Span { device: verity, part, offset: at, blocks: *count };
            if let Some(wrong) = first_wrong(&hasher, verity, part, above, &below, alive)? {
                return Ok(Some(Flaw::TreeBlock(at / BLOCK as u64 + wrong)));
            }
            (above, at) = (at, at + count * BLOCK as u64);
        }
        if !data {
            return Ok(None);
        }
        let below =
            Span { device: self.root(slot), part: Partition::Root(slot), offset: 0, blocks };
        let wrong = first_wrong(&hasher, verity, part, above, &below, alive)?;
        Ok(wrong.map(Flaw::DataBlock))
    }

    /// Hashes the data of `slot` as it lies on the disk and writes the tree over it, without
    /// flushing. Returns the root hash that came out.
    pub fn write_tree(
        &self,
        slot: Slot,
        superblock: &Superblock,
        alive: &mut dyn FnMut(),
    ) -> Result<Hash> {
        let (verity, part) = (self.verity(slot), Partition::Verity(slot));
        let hasher = superblock.hasher();
        let levels = level_sizes(superblock.data_blocks);
        // The level over the data lies last.
        let mut at = size(superblock.data_blocks);
        let mut from = Span {
            device: self.root(slot),
            part: Partition::Root(slot),
            offset: 0,
            blocks: superblock.data_blocks,
        };
        for count in &levels {
            at -= count * BLOCK as u64;
            write_level(&hasher, &from, verity, part, at, alive)?;
            from = Span { device: verity, part, offset: at, blocks: *count };
        }
        verity.write_at(0, &superblock.encode()).on("write", part.label())?;
        let mut top = [0; BLOCK];
        verity.read_at(TOP_OFFSET, &mut top).on("read", part.label())?;
        Ok(hasher.hash(&top))
    }
}

/// Blocks of a partition that are hashed one by one.
struct Span<'a, D> {
    device: &'a D,
    part: Partition,
    offset: u64,
    blocks: u64,
}

/// Writes the hashes of `from` to `at`, padded to whole blocks.
fn write_level<D: BlockDevice>(
    hasher: &BlockHasher,
    from: &Span<'_, D>,
    to: &D,
    part: Partition,
    mut at: u64,
    alive: &mut dyn FnMut(),
) -> Result<()> {
    let mut hashes = Vec::new();
    let len = from.blocks * BLOCK as u64;
    let failed = read_through(from.device, from.offset, len, from.part, |bytes| {
        hashes.extend(hasher.hash_all(bytes));
        alive();
        let whole = hashes.len() / BLOCK * BLOCK;
        let written = to.write_at(at, &hashes[..whole]).on("write", part.label());
        at += whole as u64;
        hashes.drain(..whole);
        written.err()
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    if hashes.is_empty() {
        return Ok(());
    }
    hashes.resize(BLOCK, 0);
    to.write_at(at, &hashes).on("write", part.label())
}

/// The first block of `below` whose hash is not the one that lies at `above` of the tree.
fn first_wrong<D: BlockDevice>(
    hasher: &BlockHasher,
    tree: &D,
    tree_part: Partition,
    above: u64,
    below: &Span<'_, D>,
    alive: &mut dyn FnMut(),
) -> Result<Option<u64>> {
    let mut number = 0;
    let mut hashes = Buffer::new(CHUNK / BLOCK * HASH_LEN);
    let mut at = above;
    let len = below.blocks * BLOCK as u64;
    let found = read_through(below.device, below.offset, len, below.part, |bytes| {
        alive();
        // A chunk of data has a whole number of blocks of hashes, but for the last one.
        let wanted = (bytes.len() / BLOCK * HASH_LEN).next_multiple_of(BLOCK);
        let expected = &mut hashes[..wanted];
        if let Err(e) = tree.read_at(at, expected).on("read", tree_part.label()) {
            return Some(Err(e));
        }
        at += wanted as u64;
        for (block, expected) in bytes.chunks_exact(BLOCK).zip(expected.chunks_exact(HASH_LEN)) {
            if hasher.hash(block) != expected {
                return Some(Ok(number));
            }
            number += 1;
        }
        None
    })?;
    found.transpose()
}

/// Hands `len` bytes from `offset` on to `see`, rounded up to blocks, until it returns something.
fn read_through<D: BlockDevice, T>(
    device: &D,
    offset: u64,
    len: u64,
    part: Partition,
    mut see: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Option<T>> {
    let len = len.next_multiple_of(BLOCK as u64);
    let mut buffer = Buffer::new(CHUNK.min(len as usize));
    let mut done = 0;
    while done < len {
        let now = (CHUNK as u64).min(len - done) as usize;
        let at = offset + done;
        device
            .read_at(at, &mut buffer[..now])
            .on("read", format_args!("{} at byte {at}", part.label()))?;
        if let Some(result) = see(&buffer[..now]) {
            return Ok(Some(result));
        }
        done += now as u64;
    }
    Ok(None)
}
