//! A disk in memory that records what is done to it.

use contract::Slot;
use contract::layout::{BLOCK, RECORD_OFFSETS, STATE_SIZE};
use contract::manifest::File;
use contract::record::{Record, SlotEntry};
use contract::release::{FORMAT, Parts, Release, Root};
use contract::text::Text;
use contract::trailer::Trailer;
use contract::verity::{Superblock, size};
use contract::{hex, version};
use delta::{Digest as PieceDigest, Image, Origin, Piece};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use sys::block::BlockDevice;
use updater::Result;
use updater::disk::{Disk, Expected, Flaw};
use updater::install::Assembly;

/// What tears.
pub const SECTOR: usize = 512;

const ROOT_BLOCKS: u64 = 20;
const UKI_LEN: u64 = 2 * BLOCK as u64 + 700;
const PIECE: u64 = 2 * BLOCK as u64;

/// Which partition: the state, then boot, root and verity of both slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    State,
    Boot(Slot),
    Root(Slot),
    Verity(Slot),
}

impl Part {
    fn size(self) -> u64 {
        match self {
            Part::State => STATE_SIZE,
            Part::Boot(_) => 8 * BLOCK as u64,
            Part::Root(_) => (ROOT_BLOCKS + 4) * BLOCK as u64,
            Part::Verity(_) => size(ROOT_BLOCKS) + BLOCK as u64,
        }
    }
}

/// What was done to the disk.
#[derive(Clone, Debug)]
pub enum Op {
    Write { part: Part, offset: u64, sectors: Arc<[Arc<Sector>]> },
    Flush(Part),
}

impl Op {
    pub fn is_flush(&self) -> bool {
        matches!(self, Op::Flush(_))
    }
    pub fn is_of_state(&self) -> bool {
        matches!(self, Op::Flush(Part::State) | Op::Write { part: Part::State, .. })
    }
    pub fn is_write_to_state(&self) -> bool {
        self.is_of_state() && !self.is_flush()
    }
}

/// Sectors that were ever written. Shared, because every state has nearly all of them in common.
pub type Sectors = BTreeMap<(Part, u64), Arc<Sector>>;

/// A sector, with something to tell it from others by.
#[derive(Debug)]
pub struct Sector {
    pub bytes: [u8; SECTOR],
    pub digest: u64,
}

impl Sector {
    pub fn of(bytes: [u8; SECTOR]) -> Arc<Sector> {
        let digest = array(&Sha256::digest(bytes)[..8]);
        Arc::new(Sector { bytes, digest: u64::from_le_bytes(digest) })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as long as asked for")
}

/// Cuts bytes into sectors.
pub fn cut(bytes: &[u8]) -> Arc<[Arc<Sector>]> {
    bytes.as_chunks::<SECTOR>().0.iter().map(|bytes| Sector::of(*bytes)).collect()
}

/// Applies sectors of a write.
pub fn apply(to: &mut Sectors, part: Part, offset: u64, sectors: &[Arc<Sector>]) {
    for (number, sector) in (offset / SECTOR as u64..).zip(sectors) {
        to.insert((part, number), sector.clone());
    }
}

#[derive(Debug, Default)]
struct Content {
    sectors: Sectors,
    ops: Vec<Op>,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Content>>);

/// A partition of it.
#[derive(Clone, Debug)]
pub struct SimPart {
    disk: SimDisk,
    part: Part,
}

impl BlockDevice for SimPart {
    fn size(&self) -> u64 {
        self.part.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inside(offset, buffer.len())?;
        let content = self.disk.0.lock().expect("not poisoned");
        let first = offset / SECTOR as u64;
        for (number, out) in (first..).zip(buffer.as_chunks_mut::<SECTOR>().0) {
            *out = content.sectors.get(&(self.part, number)).map_or([0; SECTOR], |s| s.bytes);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inside(offset, bytes.len())?;
        let mut content = self.disk.0.lock().expect("not poisoned");
        let sectors = cut(bytes);
        apply(&mut content.sectors, self.part, offset, &sectors);
        content.ops.push(Op::Write { part: self.part, offset, sectors });
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.0.lock().expect("not poisoned").ops.push(Op::Flush(self.part));
        Ok(())
    }
}

impl SimPart {
    fn inside(&self, offset: u64, len: usize) -> io::Result<()> {
        let aligned = offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK);
        match aligned && offset + len as u64 <= self.size() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{:?}: {len} bytes at {offset}", self.part))),
        }
    }
}

impl SimDisk {
    /// Zeros.
    pub fn empty() -> SimDisk {
        SimDisk::default()
    }

    /// With this content.
    pub fn of(sectors: Sectors) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(Content { sectors, ops: Vec::new() })))
    }

    /// Its content.
    pub fn sectors(&self) -> Sectors {
        self.0.lock().expect("not poisoned").sectors.clone()
    }

    fn part(&self, part: Part) -> SimPart {
        SimPart { disk: self.clone(), part }
    }

    /// As the updater sees it.
    pub fn parts(&self) -> Disk<SimPart> {
        let both = |make: fn(Slot) -> Part| Slot::ALL.map(|slot| self.part(make(slot)));
        Disk::new(self.part(Part::State), both(Part::Boot), both(Part::Root), both(Part::Verity))
    }

    /// Runs `act` on a copy and returns what it did.
    pub fn record_ops(&self, act: impl Fn(&SimDisk)) -> Vec<Op> {
        let copy = SimDisk::of(self.sectors());
        act(&copy);
        std::mem::take(&mut copy.0.lock().expect("not poisoned").ops)
    }

    /// A copy after these operations, all of them durable.
    pub fn after(&self, ops: &[Op]) -> SimDisk {
        let mut sectors = self.sectors();
        for op in ops {
            if let Op::Write { part, offset, sectors: written } = op {
                apply(&mut sectors, *part, *offset, written);
            }
        }
        SimDisk::of(sectors)
    }

    /// Puts a whole system into a slot.
    pub fn write_slot(&self, slot: Slot, version: u8, sequence: u64) {
        let put = |part, offset, bytes: &[u8]| {
            let mut content = self.0.lock().expect("not poisoned");
            apply(&mut content.sectors, part, offset, &cut(bytes));
        };
        let mut uki = uki(version);
        uki.resize(uki.len().next_multiple_of(BLOCK), 0);
        put(Part::Boot(slot), 0, &uki);
        put(Part::Root(slot), 0, &root(version));
        let trailer = Trailer::of(&entry(version), sequence).encode();
        put(Part::Boot(slot), Part::Boot(slot).size() - BLOCK as u64, &trailer);
        let parts = self.parts();
        parts.write_tree(slot, &superblock(), &mut || {}).expect("in memory");
        self.0.lock().expect("not poisoned").ops.clear();
    }

    /// Writes both copies, as if there had been a change before.
    pub fn write_record(&self, record: &Record) {
        let mut content = self.0.lock().expect("not poisoned");
        let older = Record { sequence: record.sequence - 1, ..*record };
        for (copy, offset) in [record, &older].into_iter().zip(RECORD_OFFSETS) {
            apply(&mut content.sectors, Part::State, offset, &cut(&copy.encode()));
        }
    }

    /// Flips a bit of the root and one of the tree, and wipes the trailer.
    pub fn rot(&self, slot: Slot) {
        let mut content = self.0.lock().expect("not poisoned");
        for place in [(Part::Root(slot), 77), (Part::Verity(slot), 9)] {
            let mut bytes = content.sectors.get(&place).map_or([0; SECTOR], |s| s.bytes);
            bytes[5] ^= 4;
            content.sectors.insert(place, Sector::of(bytes));
        }
        let trailer = Part::Boot(slot).size() / SECTOR as u64 - 8;
        content.sectors.insert((Part::Boot(slot), trailer), Sector::of([0; SECTOR]));
    }

    /// Whether a slot holds what `entry` says, all of it.
    pub fn whole(&self, slot: Slot, entry: &SlotEntry) -> std::result::Result<(), Flaw> {
        let parts = self.parts();
        match parts.check(slot, &Expected::from(entry), &mut || {}).expect("in memory") {
            None => Ok(()),
            Some(flaw) => Err(flaw),
        }
    }
}

fn bytes(version: u8, what: u8, len: u64) -> Vec<u8> {
    // Every third block is the same in all versions, as in real systems.
    let block = |number: u64| {
        let version = if number.is_multiple_of(3) { 0 } else { version };
        let seed = Sha256::digest([version, what, number as u8]);
        seed.iter().copied().cycle().take(BLOCK).collect::<Vec<u8>>()
    };
    let mut all: Vec<u8> = (0..len.div_ceil(BLOCK as u64)).flat_map(block).collect();
    all.truncate(len as usize);
    all
}

fn uki(version: u8) -> Vec<u8> {
    bytes(version, 1, UKI_LEN)
}

fn root(version: u8) -> Vec<u8> {
    bytes(version, 2, ROOT_BLOCKS * BLOCK as u64)
}

fn superblock() -> Superblock {
    Superblock { uuid: [8; 16], data_blocks: ROOT_BLOCKS, salt: vec![9; 32] }
}

fn root_hash(version: u8) -> [u8; 32] {
    // One block of hashes on top of twenty.
    let hasher = superblock().hasher();
    let mut top = hasher.hash_all(&root(version));
    top.resize(BLOCK, 0);
    hasher.hash(&top)
}

/// What the record says of a version.
pub fn entry(version: u8) -> SlotEntry {
    SlotEntry {
        uki_len: UKI_LEN,
        uki_sha256: Sha256::digest(uki(version)).into(),
        root_hash: root_hash(version),
        version: Text::new(&format!("{version}.0")),
        ..SlotEntry::EMPTY
    }
}

/// What a repository says of a version.
pub fn release(version: u8) -> Release {
    let entry = entry(version);
    let file = File { size: 1, sha256: hex::encode(&[0; 32]) };
    let name = entry.version.as_str().to_owned();
    assert!(version::is_valid(&name));
    Release {
        format: FORMAT,
        name: "sim".to_owned(),
        version: name,
        architecture: "amd64".to_owned(),
        created: 0,
        min_from: None,
        min_version: None,
        hardware: Vec::new(),
        uki: File { size: UKI_LEN, sha256: hex::encode(&entry.uki_sha256) },
        root: Root {
            size: ROOT_BLOCKS * BLOCK as u64,
            root_hash: hex::encode(&entry.root_hash),
            salt: hex::encode(&superblock().salt),
            uuid: hex::encode(&superblock().uuid),
        },
        content: Parts { table: file.clone(), pack: file },
        patches: Vec::new(),
    }
}

/// The pieces of a version, from memory.
pub struct Images {
    pieces: Vec<Piece>,
    uki: Vec<u8>,
    root: Vec<u8>,
}

impl Images {
    pub fn of(version: u8) -> Images {
        let (uki, root) = (uki(version), root(version));
        let mut pieces = Vec::new();
        for (image, bytes) in [(Image::Uki, &uki), (Image::Root, &root)] {
            for (offset, piece) in (0..).step_by(PIECE as usize).zip(bytes.chunks(PIECE as usize)) {
                pieces.push(Piece {
                    image,
                    offset,
                    len: piece.len() as u64,
                    digest: Some(PieceDigest::of(piece)),
                    origin: Origin::Frame(0..1),
                });
            }
        }
        Images { pieces, uki, root }
    }
}

impl Assembly for Images {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn make(
        &mut self,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        for number in wanted {
            let piece = &self.pieces[*number];
            let range: Range<usize> = piece.offset as usize..(piece.offset + piece.len) as usize;
            let image = if piece.image == Image::Uki { &self.uki } else { &self.root };
            sink(*number, &image[range]).expect("written");
        }
        Ok(())
    }
}
