//! Tables of chunks: the whole content, of which a host fetches what it does not hold.

use crate::Progress;
use crate::cut::cut;
use crate::error::{Error, Result};
use crate::image::{Image, Images};
use crate::in_order::in_order;
use crate::table::{Digest, Origin, Piece, Table};
use std::collections::HashMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use zstd::bulk::Compressor;

/// The level of zstd that is worth its time for what many hosts download.
pub const LEVEL: i32 = 19;

/// Cuts both images, writes each chunk into the pack, compressed on its own, and returns the
/// table. `level` is zstd's, from 1 to 22. The result is the same for any number of threads; each
/// takes some 10 MB of memory.
pub fn chunks(
    new: &Images<'_>,
    level: i32,
    threads: NonZeroUsize,
    pack: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Table> {
    let total = new.uki.len + new.root.len;
    let (mut done, mut written, mut pieces) = (0, 0, Vec::new());
    let feed = |put: &mut dyn FnMut(Job) -> Result<()>| {
        Image::ALL.into_iter().try_for_each(|image| {
            cut(new, image, &mut |cut| {
                put(Job {
                    image,
                    offset: cut.offset,
                    len: cut.len,
                    bytes: cut.bytes.map(<[u8]>::to_vec),
                })
            })
        })
    };
    let worker = || {
        let mut zstd = Compressor::new(level);
        move |job: Job| compress(zstd.as_mut(), job)
    };
    in_order(threads, worker, feed, |done_job: Result<Done>| {
        let Done { job, content } = done_job?;
        let (digest, origin) = match content {
            None => (None, Origin::Zero),
            Some((digest, frame)) => {
                pack.write_all(&frame)
                    .map_err(|source| Error::Write { what: "the pack", source })?;
                let start = written;
                written += frame.len() as u64;
                (Some(digest), Origin::Frame(start..written))
            }
        };
        pieces.push(Piece { image: job.image, offset: job.offset, len: job.len, digest, origin });
        done += job.len;
        progress(done, total);
        Ok(())
    })?;
    Ok(Table::new(pieces))
}

/// A stretch as cut, on its way to a thread.
struct Job {
    image: Image,
    offset: u64,
    len: u64,
    /// Of a run of zeros `None`.
    bytes: Option<Vec<u8>>,
}

/// What the thread made of it: digest and frame.
struct Done {
    job: Job,
    content: Option<(Digest, Vec<u8>)>,
}

fn compress(zstd: Result<&mut Compressor<'static>, &mut io::Error>, mut job: Job) -> Result<Done> {
    let Some(bytes) = job.bytes.take() else { return Ok(Done { job, content: None }) };
    let zstd = zstd.map_err(|e| Error::Compress(io::Error::new(e.kind(), e.to_string())))?;
    let packed = zstd.compress(&bytes).map_err(Error::Compress)?;
    let digest = Digest::of(&bytes);
    // As long as the content means that it is the content.
    let frame = if packed.len() < bytes.len() { packed } else { bytes };
    Ok(Done { job, content: Some((digest, frame)) })
}

/// The chunks that the running release has, and where.
pub struct Held {
    chunks: HashMap<(Digest, u64), (Image, u64)>,
}

impl Held {
    /// Reads both images once.
    pub fn scan(old: &Images<'_>, progress: Progress<'_>) -> Result<Held> {
        let total = old.uki.len + old.root.len;
        let (mut done, mut chunks) = (0, HashMap::new());
        for image in Image::ALL {
            cut(old, image, &mut |cut| {
                if let Some(bytes) = cut.bytes {
                    let place = (image, cut.offset);
                    chunks.entry((Digest::of(bytes), cut.len)).or_insert(place);
                }
                done += cut.len;
                progress(done, total);
                Ok(())
            })?;
        }
        Ok(Held { chunks })
    }
}

impl Table {
    /// The same table with copies in place of the chunks that are held already.
    pub fn using(mut self, held: &Held) -> Table {
        for piece in self.pieces_mut() {
            let found = piece.digest.and_then(|digest| held.chunks.get(&(digest, piece.len)));
            if let (Origin::Frame(_), Some(&(image, offset))) = (&piece.origin, found) {
                piece.origin = Origin::Copy { image, offset };
            }
        }
        self
    }
}
