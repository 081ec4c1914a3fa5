//! Installing a release into the slot that does not run.
//!
//! The order of writes is what keeps a host from being bricked; each step is flushed before the
//! next one begins:
//!
//! 1. the record forgets the slot, so that nothing starts what is about to be overwritten;
//! 2. its trailer is wiped, so that neither does a machine that lost its record;
//! 3. UKI and root are written, the hash tree is computed from what the disk then holds, and all
//!    is checked against the release;
//! 4. the trailer, and at last one write of the record: the slot is on trial.
//!
//! Interrupted anywhere before the last write, the running slot is what starts, and the next
//! attempt goes on from the pieces that are already right on the disk.

use crate::disk::{CHUNK, Disk, Expected};
use crate::error::{Error, On, Result};
use contract::Slot;
use contract::layout::{BLOCK, Partition};
use contract::record::{Record, SlotEntry, State};
use contract::release::Release;
use contract::text::Text;
use contract::trailer::Trailer;
use contract::verity::{Superblock, size};
use contract::{hex, version};
use delta::{Image, Origin, Piece};
use sys::block::{BlockDevice, Buffer};

/// Makes the pieces of a release from what is fetched and from what the running slot has.
pub trait Assembly {
    /// All pieces, in the order of images and offsets; together they are the images.
    fn pieces(&self) -> &[Piece];
    /// Makes the pieces with these numbers, which rise. The bytes of a piece come in order, and
    /// pieces in the order asked for.
    fn make(
        &mut self,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, &[u8]) -> std::io::Result<()>,
    ) -> Result<()>;
}

/// How far an installation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looking for what the slot already has: bytes done, of all.
    Looking(u64, u64),
    /// Writing: bytes done, of all.
    Writing(u64, u64),
    /// Reading back and checking.
    Checking,
    /// It is on the disk and will be tried at the next start.
    Committed,
}

/// What the slot to be written holds before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing, or parts of this release from an attempt that was interrupted.
    Parts,
    /// Another release.
    Other,
}

impl Found {
    /// Whether to look for `piece` there. What another release happens to have in the same place
    /// saves a download, but reading all of it only to save the work of a patch is no gain.
    fn may_have(self, piece: &Piece) -> bool {
        self == Found::Parts || !matches!(piece.origin, Origin::Copy { .. } | Origin::Script(..))
    }
}

/// A release that was checked against this disk.
#[derive(Clone, Debug)]
pub struct Plan {
    target: Slot,
    expected: Expected,
    version: Text<64>,
    superblock: Superblock,
    root_size: u64,
    tries: u8,
}

impl Plan {
    /// Checks that `release` can be installed beside the `running` slot. Writes nothing.
    pub fn new<D: BlockDevice>(
        disk: &Disk<D>,
        running: Slot,
        release: &Release,
        tries: u8,
    ) -> Result<Plan> {
        let refused = |why: String| Err(Error::Refused(why));
        let target = running.other();
        let record = read_record(disk)?;
        if record[running].state != State::Healthy {
            // The other slot is all that there is to fall back to.
            return refused(format!("slot {running}, which runs, is not known to be healthy yet"));
        }
        let (Some(uki_sha256), Some(root_hash), Some(salt), Some(uuid)) = (
            hex::decode_array(&release.uki.sha256),
            hex::decode_array(&release.root.root_hash),
            hex::decode(&release.root.salt),
            hex::decode_array(&release.root.uuid),
        ) else {
            return refused("a digest in the release is not one".to_owned());
        };
        let version = Text::new(&release.version);
        if version.as_str() != release.version || !version::is_valid(&release.version) {
            return refused(format!("`{}` is not a version", release.version));
        }
        let blocks = release.root.size / BLOCK as u64;
        let room = [
            (
                "kernel image",
                release.uki.size,
                disk.trailer_offset(target),
                Partition::Boot(target),
            ),
            (
                "root filesystem",
                release.root.size,
                disk.root(target).size(),
                Partition::Root(target),
            ),
            ("hash tree", size(blocks), disk.verity(target).size(), Partition::Verity(target)),
        ];
        for (what, needed, there, part) in room {
            if needed > there {
                return refused(format!(
                    "the {what} of {} has {needed} bytes, {} more than {} holds",
                    release.version,
                    needed - there,
                    part.label()
                ));
            }
        }
        let expected = Expected { uki_len: release.uki.size, uki_sha256, root_hash };
        let superblock = Superblock { uuid, data_blocks: blocks, salt };
        Ok(Plan { target, expected, version, superblock, root_size: release.root.size, tries })
    }

    /// The slot that will be written.
    pub fn target(&self) -> Slot {
        self.target
    }

    /// Whether the slot already holds exactly this release and the record says so.
    pub fn is_staged<D: BlockDevice>(&self, disk: &Disk<D>) -> Result<bool> {
        let entry = read_record(disk)?[self.target];
        let startable = matches!(entry.state, State::Trial { tries } if tries > 0);
        Ok(startable && Expected::from(&entry) == self.expected && entry.version == self.version)
    }

    /// Installs the release: see the module's documentation for the order. When it returns, the
    /// next start tries the new slot.
    pub fn run<D: BlockDevice>(
        &self,
        disk: &Disk<D>,
        assembly: &mut dyn Assembly,
        progress: &mut dyn FnMut(Step),
    ) -> Result<()> {
        self.check_pieces(assembly.pieces())?;
        let found = self.forget(disk)?;
        self.write_whole(disk, assembly, found, progress)?;
        self.commit(disk)?;
        progress(Step::Committed);
        Ok(())
    }

    /// Writes what has rotted in the slot that does not run. The record names exactly this release
    /// there and stays as it is: every block that is written becomes what the record says.
    pub fn repair<D: BlockDevice>(
        &self,
        disk: &Disk<D>,
        assembly: &mut dyn Assembly,
        progress: &mut dyn FnMut(Step),
    ) -> Result<()> {
        self.check_pieces(assembly.pieces())?;
        let entry = read_record(disk)?[self.target];
        if entry.state == State::Empty || Expected::from(&entry) != self.expected {
            return Err(Error::Refused(format!("slot {} holds another release", self.target)));
        }
        self.write_whole(disk, assembly, Found::Parts, progress)
    }

    /// Images, tree and trailer, all of it checked by reading it back.
    fn write_whole<D: BlockDevice>(
        &self,
        disk: &Disk<D>,
        assembly: &mut dyn Assembly,
        found: Found,
        progress: &mut dyn FnMut(Step),
    ) -> Result<()> {
        self.write_images(disk, assembly, found, progress)?;
        progress(Step::Checking);
        self.make_tree(disk, progress)?;
        let mut alive = || progress(Step::Checking);
        // The data was read back when the tree was made from it.
        let uki = disk.uki_digest(self.target, self.expected.uki_len, &mut alive)?;
        if uki != Some(self.expected.uki_sha256) {
            return Err(self.flawed("the kernel image has another SHA-256"));
        }
        let tree = disk.check_root(self.target, &self.expected.root_hash, false, &mut alive)?;
        if let Some(flaw) = tree {
            return Err(self.flawed(flaw));
        }
        self.write_trailer(disk)
    }

    fn flawed(&self, flaw: impl std::fmt::Display) -> Error {
        Error::Flawed { slot: self.target, flaw: flaw.to_string() }
    }

    /// Pieces come from an index that a stranger may have written: they must be the images, no
    /// more and no less.
    fn check_pieces(&self, pieces: &[Piece]) -> Result<()> {
        let mut ends = [0, 0];
        for piece in pieces {
            let end = &mut ends[piece.image as usize];
            if piece.offset != *end || !piece.offset.is_multiple_of(BLOCK as u64) || piece.len == 0
            {
                return Err(Error::Content("its pieces are not in order".to_owned()));
            }
            *end = piece.offset.saturating_add(piece.len);
        }
        match ends == [self.expected.uki_len, self.root_size] {
            true => Ok(()),
            false => Err(Error::Content("its pieces do not make up the images".to_owned())),
        }
    }

    /// Steps 1 and 2. Returns what the slot holds.
    fn forget<D: BlockDevice>(&self, disk: &Disk<D>) -> Result<Found> {
        let changed = disk.state.change(|record| forgotten(record, self.target));
        let changed = changed.on("write", "the boot record")?;
        let (boot, offset) = (disk.boot(self.target), disk.trailer_offset(self.target));
        let label = Partition::Boot(self.target).label();
        let mut block = [0; BLOCK];
        boot.read_at(offset, &mut block).on("read", label)?;
        if block != [0; BLOCK] {
            boot.write_at(offset, &[0; BLOCK]).on("write", label)?;
            boot.flush().on("flush", label)?;
        }
        Ok(if changed.is_some() { Found::Other } else { Found::Parts })
    }

    fn write_images<D: BlockDevice>(
        &self,
        disk: &Disk<D>,
        assembly: &mut dyn Assembly,
        found: Found,
        progress: &mut dyn FnMut(Step),
    ) -> Result<()> {
        let pieces = assembly.pieces().to_vec();
        let all = self.expected.uki_len + self.root_size;
        let (mut wanted, mut looked, mut have) = (Vec::new(), 0, 0);
        for (number, piece) in pieces.iter().enumerate() {
            match found.may_have(piece) && self.holds(disk, piece)? {
                true => have += piece.len,
                false => wanted.push(number),
            }
            looked += piece.len;
            progress(Step::Looking(looked, all));
        }
        let mut done = have;
        let mut writer = Writer::new(disk, self.target);
        assembly.make(&wanted, &mut |number, bytes| {
            let piece = pieces.get(number).ok_or_else(|| std::io::Error::other("no such piece"))?;
            writer.take(number, piece, bytes)?;
            done += bytes.len() as u64;
            progress(Step::Writing(done, all));
            Ok(())
        })?;
        writer.finish().on("write", format_args!("slot {}", self.target))?;
        for (device, part) in self.images(disk) {
            device.flush().on("flush", part.label())?;
        }
        Ok(())
    }

    fn images<'a, D>(&self, disk: &'a Disk<D>) -> [(&'a D, Partition); 2]
    where
        D: BlockDevice,
    {
        [
            (disk.boot(self.target), Partition::Boot(self.target)),
            (disk.root(self.target), Partition::Root(self.target)),
        ]
    }

    /// Whether the slot already holds a piece. One that begins with so many zeros is not looked at
    /// further: nothing was ever written there, or making it again is soon done.
    fn holds<D: BlockDevice>(&self, disk: &Disk<D>, piece: &Piece) -> Result<bool> {
        let (device, part) = self.images(disk)[piece.image as usize];
        let mut start = [0; 4 * BLOCK];
        if piece.len >= start.len() as u64 && piece.origin != Origin::Zero {
            device.read_at(piece.offset, &mut start).on("read", part.label())?;
            if start.iter().all(|byte| *byte == 0) {
                return Ok(false);
            }
        }
        let mut check = piece.check();
        let mut buffer = Buffer::new(CHUNK.min(piece.len as usize));
        let mut done = 0;
        while done < piece.len {
            let now = (piece.len - done).min(buffer.len() as u64) as usize;
            let whole = now.next_multiple_of(BLOCK);
            device.read_at(piece.offset + done, &mut buffer[..whole]).on("read", part.label())?;
            check.update(&buffer[..now]);
            done += now as u64;
        }
        Ok(check.matches())
    }

    /// Makes the tree from what the disk holds, which is thereby read back and checked.
    fn make_tree<D: BlockDevice>(
        &self,
        disk: &Disk<D>,
        progress: &mut dyn FnMut(Step),
    ) -> Result<()> {
        let mut alive = || progress(Step::Checking);
        let root_hash = disk.write_tree(self.target, &self.superblock, &mut alive)?;
        if root_hash != self.expected.root_hash {
            return Err(self.flawed(format_args!(
                "root hash {} instead of {}",
                hex::encode(&root_hash),
                hex::encode(&self.expected.root_hash)
            )));
        }
        let part = Partition::Verity(self.target);
        disk.verity(self.target).flush().on("flush", part.label())
    }

    fn entry(&self) -> SlotEntry {
        SlotEntry {
            state: State::Trial { tries: self.tries },
            priority: 2,
            uki_len: self.expected.uki_len,
            uki_sha256: self.expected.uki_sha256,
            root_hash: self.expected.root_hash,
            version: self.version,
            reason: Text::EMPTY,
        }
    }

    fn write_trailer<D: BlockDevice>(&self, disk: &Disk<D>) -> Result<()> {
        let sequence = read_record(disk)?.sequence;
        let block = Trailer::of(&self.entry(), sequence).encode();
        let (boot, label) = (disk.boot(self.target), Partition::Boot(self.target).label());
        let offset = disk.trailer_offset(self.target);
        boot.write_at(offset, &block).on("write", label)?;
        boot.flush().on("flush", label)?;
        let mut back = [0; BLOCK];
        boot.read_at(offset, &mut back).on("read", label)?;
        match back == block {
            true => Ok(()),
            false => Err(self.flawed("the trailer reads back other than written")),
        }
    }

    /// The one write that counts.
    fn commit<D: BlockDevice>(&self, disk: &Disk<D>) -> Result<()> {
        let entry = self.entry();
        let decide = |record: &Record| preferred(record, self.target, entry);
        match disk.state.change(decide).on("write", "the boot record")? {
            Some(_) => Ok(()),
            None => Err(Error::Refused("the running slot is no longer healthy".to_owned())),
        }
    }
}

/// The record that counts. Without one nothing may be written: nobody would know what boots.
pub fn read_record<D: BlockDevice>(disk: &Disk<D>) -> Result<Record> {
    let stored = disk.state.stored().on("read", "the boot record")?;
    stored.record.ok_or_else(|| {
        Error::Refused("both copies of the boot record are lost; restart the host".to_owned())
    })
}

/// The record once `target` holds nothing that may start; `None` when it says so already.
fn forgotten(record: &Record, target: Slot) -> Option<Record> {
    let mut next = *record;
    next[target] = SlotEntry::EMPTY;
    (next != *record).then_some(next)
}

/// The record that makes `target`, as `entry` says, start before the running slot; `None` when
/// that one is not healthy, for then there is nothing to fall back to.
fn preferred(record: &Record, target: Slot, entry: SlotEntry) -> Option<Record> {
    let running = target.other();
    (record[running].state == State::Healthy).then(|| {
        let mut next = *record;
        next[running].priority = 1;
        next[target] = SlotEntry { priority: 2, ..entry };
        next
    })
}

/// Puts the other slot, which has to be whole, on trial: the way back. Returns its version.
pub fn roll_back<D: BlockDevice>(
    disk: &Disk<D>,
    running: Slot,
    tries: u8,
    alive: &mut dyn FnMut(),
) -> Result<Text<64>> {
    let target = running.other();
    let record = read_record(disk)?;
    let entry = record[target];
    let refused = |why: String| Err(Error::Refused(why));
    match entry.state {
        State::Healthy => {}
        State::Empty => return refused(format!("slot {target} holds nothing to go back to")),
        State::GivenUp => {
            return refused(format!("slot {target} was given up: {}", entry.reason));
        }
        State::Trial { .. } => {
            return refused(format!("slot {target} has not proved itself; it is on trial"));
        }
    }
    if let Some(flaw) = disk.check(target, &Expected::from(&entry), alive)? {
        return refused(format!("slot {target} has rotted: {flaw}"));
    }
    let tried = SlotEntry { state: State::Trial { tries }, ..entry };
    match disk.state.change(|r| preferred(r, target, tried)).on("write", "the boot record")? {
        Some(_) => Ok(entry.version),
        None => refused(format!("slot {running}, which runs, is not known to be healthy yet")),
    }
}

/// Writes pieces to their places in whole blocks, some at a time.
struct Writer<'a, D> {
    disk: &'a Disk<D>,
    target: Slot,
    /// Image and byte offset where the buffer belongs, and the piece that is being taken.
    at: Option<(Image, u64, usize)>,
    buffer: Buffer,
    /// Bytes in the buffer.
    len: usize,
}

/// Written at once.
const WRITE: usize = 1 << 20;

impl<D: BlockDevice> Writer<'_, D> {
    fn new(disk: &Disk<D>, target: Slot) -> Writer<'_, D> {
        Writer { disk, target, at: None, buffer: Buffer::new(WRITE), len: 0 }
    }

    fn take(&mut self, number: usize, piece: &Piece, mut bytes: &[u8]) -> std::io::Result<()> {
        if self.at.is_none_or(|(_, _, current)| current != number) {
            self.finish()?;
            self.at = Some((piece.image, piece.offset, number));
        }
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(WRITE - self.len));
            self.buffer[self.len..][..now.len()].copy_from_slice(now);
            self.len += now.len();
            bytes = rest;
            let end = piece.offset + piece.len;
            if self.at.is_some_and(|(_, at, _)| at + self.len as u64 > end) {
                return Err(std::io::Error::other("a piece is longer than it may be"));
            }
            if self.len == WRITE {
                self.write()?;
            }
        }
        Ok(())
    }

    /// Writes what is buffered, filled up with zeros to a whole block.
    fn write(&mut self) -> std::io::Result<()> {
        let Some((image, at, number)) = self.at else { return Ok(()) };
        if self.len == 0 {
            return Ok(());
        }
        let whole = self.len.next_multiple_of(BLOCK);
        self.buffer[self.len..whole].fill(0);
        let device = match image {
            Image::Uki => self.disk.boot(self.target),
            Image::Root => self.disk.root(self.target),
        };
        device.write_at(at, &self.buffer[..whole])?;
        self.at = Some((image, at + self.len as u64, number));
        self.len = 0;
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.write()?;
        self.at = None;
        Ok(())
    }
}
