//! The table: what an image consists of, piece by piece. It is small, is fetched whole and is
//! trusted by its digest in the signed metadata; the pack beside it is then read by ranges.
//!
//! On the wire: the magic, the length of the body (u32, little-endian), and the body compressed by
//! zstd. In the body numbers are LEB128. For each image: its length and the number of pieces; for
//! each piece: its kind, its length and, unless it is all zeros, the first 16 bytes of its SHA-256;
//! then, for a copy, image and offset in the old release; for a frame or a script its length in the
//! pack, and for a script the digest of that. Offsets in the image and in the pack follow from the lengths before.

use crate::error::{Error, Result};
use crate::image::{BLOCK, Image, MAX_IMAGE};
use sha2::{Digest as _, Sha256};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"BRTHTAB3";
/// Largest body of a table, in bytes: some 380,000 chunks.
const MAX_BODY: usize = 8 << 20;
/// Most bytes of a table on the wire. Digests do not compress.
pub const MAX_TABLE: u64 = MAX_BODY as u64 + (64 << 10);
/// Most pieces of an image: 8 GiB image in chunks of 32 KiB.
const MAX_PIECES: u64 = 1 << 18;
/// Longest output of a piece, in bytes.
pub const MAX_PIECE: u64 = 64 << 20;
/// Longest chunk, in bytes.
pub const MAX_CHUNK: u64 = 256 << 10;
/// Longest payload of a piece, in bytes. The receiver holds one in memory.
pub const MAX_PAYLOAD: u64 = 4 << 20;

/// The first 16 bytes of a SHA-256. Enough against chance and against a second preimage; the
/// updater checks the whole slot against full digests afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of what the hasher was fed.
    pub fn finish(hasher: Sha256) -> Digest {
        let full = hasher.finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&full[..16]);
        Digest(short)
    }
}

/// Where the bytes of a piece come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are all zero.
    Zero,
    /// The old release has them.
    Copy {
        /// In which image.
        image: Image,
        /// Where, in bytes.
        offset: u64,
    },
    /// A zstd frame in the pack, or the bytes themselves if that range is as long as the piece.
    Frame(Range<u64>),
    /// Operations on the old release, coded in this range of the pack; with the digest of that
    /// range, so that nothing unsigned is ever run.
    Script(Range<u64>, Digest),
}

/// A stretch of an image that can be made and checked on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which image it belongs to.
    pub image: Image,
    /// Where it starts there, in bytes: a multiple of [`BLOCK`].
    pub offset: u64,
    /// How long it is, in bytes: a multiple of [`BLOCK`] unless it is the image's last.
    pub len: u64,
    /// What it must be; of a piece of zeros `None`.
    pub digest: Option<Digest>,
    /// What it is made from.
    pub origin: Origin,
}

impl Piece {
    /// The range of the pack that it needs.
    pub fn payload(&self) -> Option<Range<u64>> {
        match &self.origin {
            Origin::Frame(range) | Origin::Script(range, _) => Some(range.clone()),
            Origin::Zero | Origin::Copy { .. } => None,
        }
    }

    /// Checks bytes against this piece as they come.
    pub fn check(&self) -> Check {
        Check {
            left: self.len,
            wanted: self.digest,
            zero: true,
            hasher: self.digest.map(|_| Sha256::new()),
        }
    }
}

/// Compares a piece with bytes that come in slices: read from the slot, or just made.
pub struct Check {
    left: u64,
    wanted: Option<Digest>,
    zero: bool,
    hasher: Option<Sha256>,
}

impl Check {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // More than there should be leaves an impossible rest, which `matches` refuses.
        self.left = self.left.checked_sub(bytes.len() as u64).unwrap_or(u64::MAX);
        match &mut self.hasher {
            Some(hasher) => hasher.update(bytes),
            None => self.zero &= bytes.iter().all(|&byte| byte == 0),
        }
    }

    /// Whether all bytes have come and are the right ones.
    pub fn matches(self) -> bool {
        self.left == 0 && self.zero && self.hasher.map(Digest::finish) == self.wanted
    }
}

/// The pieces of both images, in the order in which they are written: the UKI's, then the root's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pieces: Vec<Piece>,
}

impl Table {
    /// From pieces that follow one another; an encoder's last step.
    pub(crate) fn new(pieces: Vec<Piece>) -> Table {
        Table { pieces }
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(crate) fn pieces_mut(&mut self) -> &mut [Piece] {
        &mut self.pieces
    }

    /// Length of an image, in bytes.
    pub fn len(&self, image: Image) -> u64 {
        self.of(image).map(|piece| piece.len).sum()
    }

    /// Length of the pack, in bytes.
    pub fn pack_len(&self) -> u64 {
        self.pieces.iter().filter_map(Piece::payload).map(|range| range.end).max().unwrap_or(0)
    }

    fn of(&self, image: Image) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.image == image)
    }

    /// The bytes of the table.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        for image in Image::ALL {
            let count = self.of(image).count() as u64;
            if count > MAX_PIECES {
                return Err(Error::Refused("the images have too many pieces"));
            }
            number(&mut body, self.len(image));
            number(&mut body, count);
            for piece in self.of(image) {
                let kind = match piece.origin {
                    Origin::Zero => 0,
                    Origin::Copy { .. } => 1,
                    Origin::Frame(_) => 2,
                    Origin::Script(..) => 3,
                };
                body.push(kind);
                number(&mut body, piece.len);
                body.extend(piece.digest.iter().flat_map(|digest| digest.0));
                match &piece.origin {
                    Origin::Zero => {}
                    Origin::Copy { image, offset } => {
                        body.push(*image as u8);
                        number(&mut body, *offset);
                    }
                    Origin::Frame(range) => number(&mut body, range.end - range.start),
                    Origin::Script(range, digest) => {
                        number(&mut body, range.end - range.start);
                        body.extend(digest.0);
                    }
                }
            }
        }
        if body.len() > MAX_BODY {
            return Err(Error::Refused("the images have too many pieces"));
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(zstd::bulk::compress(&body, 19).map_err(Error::Compress)?);
        Ok(bytes)
    }

    /// Reads the bytes of a table. Whatever they are, memory and time stay within bounds, and what
    /// is returned keeps every promise of [`Piece`].
    pub fn decode(bytes: &[u8]) -> Result<Table> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Error::Corrupt("not a table of pieces"))?;
        let (len, packed) =
            rest.split_first_chunk::<4>().ok_or(Error::Corrupt("the table is cut off"))?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_BODY {
            return Err(Error::Corrupt("the table is too long"));
        }
        let body = zstd::bulk::decompress(packed, len)
            .map_err(|_| Error::Corrupt("the table does not decompress"))?;
        if body.len() != len {
            return Err(Error::Corrupt("the table has another length than it says"));
        }
        Body { rest: &body, pack: 0 }.table()
    }
}

/// The smallest possible piece is a kind and a length.
const MIN_ENTRY: u64 = 2;

struct Body<'a> {
    rest: &'a [u8],
    /// Where the next payload starts in the pack.
    pack: u64,
}

impl Body<'_> {
    fn table(mut self) -> Result<Table> {
        let mut pieces = Vec::new();
        for image in Image::ALL {
            let len = self.number(MAX_IMAGE)?;
            let count = self.number(MAX_PIECES.min(self.rest.len() as u64 / MIN_ENTRY))?;
            let mut offset = 0;
            for _ in 0..count {
                let piece = self.piece(image, offset, len - offset)?;
                offset += piece.len;
                pieces.push(piece);
            }
            if offset != len {
                return Err(Error::Corrupt("the pieces do not fill the image"));
            }
        }
        match self.rest.is_empty() {
            true => Ok(Table { pieces }),
            false => Err(Error::Corrupt("the table goes on after its end")),
        }
    }

    /// The next piece, which starts at `offset` when `left` bytes of the image are missing.
    fn piece(&mut self, image: Image, offset: u64, left: u64) -> Result<Piece> {
        let kind = self.byte()?;
        let limit = match kind {
            0 => MAX_IMAGE,
            1 | 3 => MAX_PIECE,
            2 => MAX_CHUNK,
            _ => return Err(Error::Corrupt("a piece of an unknown kind")),
        };
        let len = self.number(limit.min(left))?;
        if len == 0 || (len % BLOCK as u64 != 0 && len != left) {
            return Err(Error::Corrupt("a piece of an impossible length"));
        }
        let digest = match kind {
            0 => None,
            _ => Some(Digest(self.chunk()?)),
        };
        let origin = match kind {
            0 => Origin::Zero,
            1 => {
                let image = match self.byte()? {
                    0 => Image::Uki,
                    1 => Image::Root,
                    _ => return Err(Error::Corrupt("a copy from an unknown image")),
                };
                Origin::Copy { image, offset: self.number(MAX_IMAGE)? }
            }
            2 => Origin::Frame(self.payload(len)?),
            _ => Origin::Script(self.payload(MAX_PAYLOAD)?, Digest(self.chunk()?)),
        };
        Ok(Piece { image, offset, len, digest, origin })
    }

    fn payload(&mut self, limit: u64) -> Result<Range<u64>> {
        let len = self.number(limit)?;
        let start = self.pack;
        self.pack = start.checked_add(len).ok_or(Error::Corrupt("the pack is too long"))?;
        Ok(start..self.pack)
    }

    fn byte(&mut self) -> Result<u8> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (chunk, rest) =
            self.rest.split_first_chunk().ok_or(Error::Corrupt("the table is cut off"))?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn number(&mut self, limit: u64) -> Result<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return match value <= limit {
                    true => Ok(value),
                    false => Err(Error::Corrupt("a number in the table is too large")),
                };
            }
        }
        Err(Error::Corrupt("a number in the table does not end"))
    }
}

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
