//! The cutter: where an image is cut into chunks. Cuts lie only between blocks, as the content of
//! an ext4 file moves by whole blocks, and a cut depends only on the few blocks before it, so that
//! the same content is cut alike wherever it lies. The head of a kernel image is cut after every
//! block: its command line names the root hash, so one block of it differs in every release.
//! Changing anything here makes every host fetch everything once.

use crate::error::{Error, Result};
use crate::image::{BLOCK, Image, Images, MAX_IMAGE};
use crate::table::MAX_CHUNK;

/// Shortest chunk and run of zeros that is one, in blocks.
const MIN_BLOCKS: usize = 4;
const MAX_BLOCKS: usize = MAX_CHUNK as usize / BLOCK;
/// Bytes of a kernel image that are cut after every block. The EFI stub and the small sections
/// behind it, of which the command line is one, have some 90 KiB.
const HEAD: u64 = 128 << 10;
/// One block in 16 ends a chunk.
const MASK: u64 = 15;
/// How much is read at once.
const READ: usize = 1 << 20;

/// A stretch of an image, as cut.
pub struct Cut<'a> {
    pub offset: u64,
    pub len: u64,
    /// Its content; of a run of zeros `None`.
    pub bytes: Option<&'a [u8]>,
}

/// Cuts one image and hands over the stretches in order.
pub fn cut(
    images: &Images<'_>,
    image: Image,
    take: &mut dyn FnMut(Cut<'_>) -> Result<()>,
) -> Result<()> {
    let len = images.get(image).len;
    if len > MAX_IMAGE {
        return Err(Error::Refused("the image is larger than 8 GiB"));
    }
    let head = if image == Image::Uki { HEAD } else { 0 };
    let mut cutter = Cutter { offset: 0, chunk: Vec::new(), zeros: 0, head, take };
    let mut buffer = vec![0; READ];
    let mut offset = 0;
    while offset < len {
        let part = &mut buffer[..(len - offset).min(READ as u64) as usize];
        images.read(image, part, offset)?;
        offset += part.len() as u64;
        part.chunks(BLOCK).try_for_each(|block| cutter.block(block))?;
    }
    cutter.finish()
}

struct Cutter<'t> {
    /// Where what is collected starts.
    offset: u64,
    chunk: Vec<u8>,
    /// How many bytes of zeros follow the chunk. Short runs stay within it.
    zeros: u64,
    /// Where the part ends in which every block is a chunk.
    head: u64,
    take: &'t mut dyn FnMut(Cut<'_>) -> Result<()>,
}

impl Cutter<'_> {
    fn block(&mut self, block: &[u8]) -> Result<()> {
        if is_zero(block) {
            self.zeros += block.len() as u64;
            return Ok(());
        }
        self.settle_zeros()?;
        self.chunk.extend_from_slice(block);
        self.end_at(block)
    }

    /// Ends the chunk after this block if it is long enough and the block says so.
    fn end_at(&mut self, block: &[u8]) -> Result<()> {
        let blocks = self.chunk.len() / BLOCK;
        if self.offset < self.head
            || blocks >= MAX_BLOCKS
            || blocks >= MIN_BLOCKS && fingerprint(block) & MASK == 0
        {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Decides on the zeros seen last: a long run stands alone, a short one is content.
    fn settle_zeros(&mut self) -> Result<()> {
        let zeros = std::mem::take(&mut self.zeros);
        if zeros >= (MIN_BLOCKS * BLOCK) as u64 {
            self.hand_over()?;
            (self.take)(Cut { offset: self.offset, len: zeros, bytes: None })?;
            self.offset += zeros;
        } else {
            for start in (0..zeros as usize).step_by(BLOCK) {
                let block = &[0; BLOCK][..BLOCK.min(zeros as usize - start)];
                self.chunk.extend_from_slice(block);
                self.end_at(block)?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<()> {
        let len = self.chunk.len() as u64;
        if len > 0 {
            (self.take)(Cut { offset: self.offset, len, bytes: Some(&self.chunk) })?;
            self.offset += len;
            self.chunk.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.settle_zeros()?;
        self.hand_over()
    }
}

pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// A hash of a block that is quick rather than strong: it only places cuts.
fn fingerprint(block: &[u8]) -> u64 {
    let (words, _) = block.as_chunks::<8>();
    let hash = words.iter().fold(0, |hash: u64, word| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    hash >> 32
}
