//! Tables of chunks: the whole content, of which a host fetches what it does not hold.

use crate::Progress;
use crate::cut::cut;
use crate::error::{Error, Result};
use crate::image::{Image, Images};
use crate::table::{Digest, Origin, Piece, Table};
use std::collections::HashMap;
use std::io::Write;

/// The level of zstd that is worth its time for what many hosts download.
pub const LEVEL: i32 = 19;

/// Cuts both images, writes each chunk into the pack, compressed on its own, and returns the
/// table. `level` is zstd's, from 1 to 22.
pub fn chunks(
    new: &Images<'_>,
    level: i32,
    pack: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Table> {
    let total = new.uki.len + new.root.len;
    let (mut done, mut written, mut pieces) = (0, 0, Vec::new());
    let mut compressor = zstd::bulk::Compressor::new(level).map_err(Error::Compress)?;
    for image in Image::ALL {
        cut(new, image, &mut |cut| {
            let (digest, origin) = match cut.bytes {
                None => (None, Origin::Zero),
                Some(bytes) => {
                    let packed = compressor.compress(bytes).map_err(Error::Compress)?;
                    // As long as the content means that it is the content.
                    let frame = if packed.len() < bytes.len() { &packed } else { bytes };
                    pack.write_all(frame)
                        .map_err(|source| Error::Write { what: "the pack", source })?;
                    let start = written;
                    written += frame.len() as u64;
                    (Some(Digest::of(bytes)), Origin::Frame(start..written))
                }
            };
            pieces.push(Piece { image, offset: cut.offset, len: cut.len, digest, origin });
            done += cut.len;
            progress(done, total);
            Ok(())
        })?;
    }
    Ok(Table::new(pieces))
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
