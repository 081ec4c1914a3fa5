//! Compares two releases block by block: what moved as a whole, what is zero, and what is left
//! over on either side.

use crate::cut::is_zero;
use crate::error::{Error, Result};
use crate::image::{BLOCK, Image, Images, MAX_IMAGE};
use crate::script::{Kind, Op, address, place};
use crate::table::Digest;
use std::collections::HashMap;

/// How much is read at once.
const READ: usize = 1 << 20;

/// The content of a new image as runs of equal origin; what has none yet is `Literal`.
pub struct Runs {
    /// In order, filling the image.
    pub ops: Vec<Op>,
}

/// The old release, by the digests of its blocks.
pub struct Old {
    digests: HashMap<u64, Digest>,
    places: HashMap<Digest, u64>,
    used: std::collections::HashSet<u64>,
}

impl Old {
    /// Reads both images.
    pub fn read(old: &Images<'_>, progress: &mut dyn FnMut(u64)) -> Result<Old> {
        let (mut digests, mut places) = (HashMap::new(), HashMap::new());
        for image in Image::ALL {
            each_block(old, image, progress, &mut |offset, block| {
                if !is_zero(block) {
                    let (address, digest) = (address(image, offset), Digest::of(block));
                    digests.insert(address, digest);
                    places.entry(digest).or_insert(address);
                }
            })?;
        }
        Ok(Old { digests, places, used: Default::default() })
    }

    /// Compares a new image.
    pub fn runs(
        &mut self,
        new: &Images<'_>,
        image: Image,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Runs> {
        let mut ops: Vec<Op> = Vec::new();
        each_block(new, image, progress, &mut |offset, block| {
            let op = self.origin(address(image, offset), block, ops.last());
            match ops.last_mut() {
                Some(last) if follows(last, &op) => last.len += op.len,
                _ => ops.push(op),
            }
        })?;
        Ok(Runs { ops })
    }

    /// Where a block comes from: best from where the one before it came from, then from the same
    /// place, then from anywhere.
    fn origin(&mut self, at: u64, block: &[u8], before: Option<&Op>) -> Op {
        let len = block.len() as u64;
        if is_zero(block) {
            return Op { kind: Kind::Zero, len, from: 0 };
        }
        let digest = Digest::of(block);
        let next = before.filter(|op| op.kind == Kind::Copy).map(|op| op.from + op.len);
        let here = next.into_iter().chain([at]).find(|at| self.digests.get(at) == Some(&digest));
        match here.or_else(|| self.places.get(&digest).copied()) {
            Some(from) => {
                self.used.insert(from);
                Op { kind: Kind::Copy, len, from }
            }
            None => Op { kind: Kind::Literal, len, from: 0 },
        }
    }

    /// Addresses of the whole blocks that no copy used, in order: those that were changed or
    /// removed. A changed block is looked for among them.
    pub fn left_over(&self, old: &Images<'_>) -> Vec<u64> {
        let mut left: Vec<u64> = self
            .digests
            .keys()
            .filter(|&&at| {
                let (image, offset) = place(at);
                !self.used.contains(&at) && offset + BLOCK as u64 <= old.get(image).len
            })
            .copied()
            .collect();
        left.sort_unstable();
        left
    }
}

fn follows(last: &Op, next: &Op) -> bool {
    last.kind == next.kind && (last.kind != Kind::Copy || last.from + last.len == next.from)
}

fn each_block(
    images: &Images<'_>,
    image: Image,
    progress: &mut dyn FnMut(u64),
    take: &mut dyn FnMut(u64, &[u8]),
) -> Result<()> {
    let len = images.get(image).len;
    if len > MAX_IMAGE {
        return Err(Error::Refused("the image is larger than 8 GiB"));
    }
    let mut buffer = vec![0; READ];
    let mut offset = 0;
    while offset < len {
        let part = &mut buffer[..(len - offset).min(READ as u64) as usize];
        images.read(image, part, offset)?;
        for (number, block) in part.chunks(BLOCK).enumerate() {
            take(offset + (number * BLOCK) as u64, block);
        }
        offset += part.len() as u64;
        progress(part.len() as u64);
    }
    Ok(())
}
