//! The decoder: makes one piece after the other.

use crate::bytes::{Bytes, RUN, Run};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::image::Images;
use crate::range;
use crate::script::{Kind, MAX_LITERALS, Model, Op, address, place};
use crate::table::{Check, Digest, MAX_CHUNK, MAX_PAYLOAD, MAX_PIECE, Origin, Piece};
use std::io;

/// How much is handed over at once, in bytes.
const SLICE: usize = MAX_CHUNK as usize;

/// Receives the output: the offset in the image, and the bytes.
pub type Sink<'a> = &'a mut dyn FnMut(u64, &[u8]) -> io::Result<()>;

/// Makes pieces. Its buffers, and nothing else of size, live as long as it does.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    literals: Vec<u8>,
    old: Cache,
    slice: Vec<u8>,
}

impl Decoder {
    /// Allocates what does not depend on input.
    pub fn new() -> Result<Decoder> {
        Ok(Decoder {
            zstd: zstd::bulk::Decompressor::new().map_err(Error::Compress)?,
            literals: Vec::new(),
            old: Cache::new(),
            slice: Vec::with_capacity(SLICE),
        })
    }

    /// Makes a piece from its payload and the old release, and hands it over in order, in slices
    /// of at most 256 KiB that are whole blocks except at the image's end. When the result is not
    /// what the table says ([`Error::Content`]) the slices were handed over all the same.
    pub fn decode(
        &mut self,
        piece: &Piece,
        payload: &[u8],
        old: &Images<'_>,
        sink: Sink<'_>,
    ) -> Result<()> {
        let limit = match piece.origin {
            Origin::Zero => u64::MAX,
            Origin::Frame(_) => MAX_CHUNK,
            Origin::Copy { .. } | Origin::Script(..) => MAX_PIECE,
        };
        let expected = piece.payload().map_or(0, |range| range.end.saturating_sub(range.start));
        if piece.len > limit || expected > MAX_PAYLOAD || payload.len() as u64 != expected {
            return Err(Error::Corrupt("a payload of another length than the table says"));
        }
        self.slice.clear();
        let mut out = Output {
            slice: &mut self.slice,
            offset: piece.offset,
            left: piece.len,
            check: piece.check(),
            sink,
        };
        match &piece.origin {
            Origin::Zero => out.fill(piece.len, |_, part| {
                part.fill(0);
                Ok(())
            })?,
            Origin::Copy { image, offset } => {
                out.fill(piece.len, |at, part| old.read(*image, part, offset.saturating_add(at)))?;
            }
            Origin::Frame(_) if expected == piece.len => {
                out.put(payload)?;
            }
            Origin::Frame(_) => {
                inflate(&mut self.zstd, payload, piece.len as usize, &mut self.literals)?;
                let chunk = &self.literals;
                out.put(chunk)?;
            }
            Origin::Script(_, digest) => {
                if Digest::of(payload) != *digest {
                    return Err(Error::Corrupt("a script is not the one that its table names"));
                }
                let rest = unpack_literals(&mut self.zstd, payload, &mut self.literals)?;
                self.old.forget();
                run(
                    range::Decoder::new(rest),
                    piece,
                    &self.literals,
                    old,
                    &mut self.old,
                    &mut out,
                )?;
            }
        }
        out.finish(piece)
    }
}

/// Decompresses a frame that has exactly this many bytes.
fn inflate(
    zstd: &mut zstd::bulk::Decompressor<'_>,
    frame: &[u8],
    len: usize,
    into: &mut Vec<u8>,
) -> Result<()> {
    into.clear();
    into.reserve(len);
    match zstd.decompress_to_buffer(frame, into) {
        Ok(made) if made == len => Ok(()),
        _ => Err(Error::Corrupt("a frame does not decompress to its length")),
    }
}

/// Takes the literals off a script's payload and returns its operations.
fn unpack_literals<'p>(
    zstd: &mut zstd::bulk::Decompressor<'_>,
    payload: &'p [u8],
    literals: &mut Vec<u8>,
) -> Result<&'p [u8]> {
    const CUT_OFF: Error = Error::Corrupt("a script is cut off");
    let (len, rest) = payload.split_first_chunk::<4>().ok_or(CUT_OFF)?;
    let (packed, rest) = rest.split_first_chunk::<4>().ok_or(CUT_OFF)?;
    let len = u32::from_le_bytes(*len) as usize;
    let (frame, rest) =
        rest.split_at_checked(u32::from_le_bytes(*packed) as usize).ok_or(CUT_OFF)?;
    if len > MAX_LITERALS {
        return Err(Error::Corrupt("a script has too many literals"));
    }
    if frame.len() == len {
        literals.clear();
        literals.extend_from_slice(frame);
    } else {
        inflate(zstd, frame, len, literals)?;
    }
    Ok(rest)
}

/// Runs the operations of a script until the piece is full. Each makes at least one byte, so this
/// ends.
fn run(
    mut bits: range::Decoder<'_>,
    piece: &Piece,
    mut literals: &[u8],
    old: &Images<'_>,
    cache: &mut Cache,
    out: &mut Output<'_, '_>,
) -> Result<()> {
    let mut model = Model::new();
    let mut bytes = Bytes::new();
    let (mut base, mut made) = (vec![0; RUN], Vec::new());
    while out.left > 0 {
        let at = address(piece.image, out.at());
        let Op { kind, len, from } =
            model.op(&mut bits, at, Op { kind: Kind::Zero, len: 0, from: 0 });
        // The last block of an image may be a part of one.
        let len = match kind {
            Kind::Zero | Kind::Copy => len.min(out.left),
            Kind::Delta | Kind::Literal => len,
        };
        if len == 0 || len > out.left || bits.overrun() {
            return Err(Error::Corrupt("a script makes more than its piece"));
        }
        let (image, offset) = place(from);
        match kind {
            Kind::Zero => out.fill(len, |_, part| {
                part.fill(0);
                Ok(())
            })?,
            Kind::Copy => {
                out.fill(len, |at, part| old.read(image, part, offset.saturating_add(at)))?;
            }
            Kind::Literal => {
                let (now, later) = usize::try_from(len)
                    .ok()
                    .and_then(|len| literals.split_at_checked(len))
                    .ok_or(Error::Corrupt("a script has fewer literals than it uses"))?;
                literals = later;
                out.put(now)?;
            }
            Kind::Delta => {
                let mut done = 0;
                while done < len {
                    let base = &mut base[..(len - done).min(RUN as u64) as usize];
                    cache.read(old, image, base, offset.saturating_add(done))?;
                    let run = Run { old: base, from: from.wrapping_add(done), at: at + done };
                    made.resize(base.len(), 0);
                    bytes.run(&mut bits, &run, &mut made);
                    out.put(&made)?;
                    done += base.len() as u64;
                }
            }
        }
        if matches!(kind, Kind::Copy | Kind::Delta) {
            bytes.moved(from, at, len);
        }
    }
    Ok(())
}

/// Collects slices, hashes them and hands them over.
struct Output<'s, 'k> {
    slice: &'s mut Vec<u8>,
    /// Where the slice starts in the image.
    offset: u64,
    /// How many bytes the piece still lacks.
    left: u64,
    check: Check,
    sink: Sink<'k>,
}

impl Output<'_, '_> {
    /// Offset in the image of the next byte.
    fn at(&self) -> u64 {
        self.offset + self.slice.len() as u64
    }

    /// Makes the next `len` bytes, part by part; `make` is told how many came before the part.
    fn fill(&mut self, len: u64, mut make: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
        let mut done = 0;
        while done < len {
            let start = self.slice.len();
            let count = (len - done).min((SLICE - start) as u64);
            self.slice.resize(start + count as usize, 0);
            make(done, &mut self.slice[start..])?;
            done += count;
            self.left -= count;
            if self.slice.len() == SLICE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.fill(bytes.len() as u64, |at, part| {
            part.copy_from_slice(&bytes[at as usize..][..part.len()]);
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.check.update(self.slice);
        (self.sink)(self.offset, self.slice)
            .map_err(|source| Error::Write { what: "the image", source })?;
        self.offset += self.slice.len() as u64;
        self.slice.clear();
        Ok(())
    }

    fn finish(mut self, piece: &Piece) -> Result<()> {
        if !self.slice.is_empty() {
            self.flush()?;
        }
        match self.check.matches() {
            true => Ok(()),
            false => Err(Error::Content { image: piece.image, offset: piece.offset }),
        }
    }
}
