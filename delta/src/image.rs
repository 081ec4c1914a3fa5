//! The two images of a release, and how they are read.

use crate::error::{Error, Result};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Unit in which content moves: the block of the root's ext4, and the granularity of the cutter.
pub const BLOCK: usize = 4096;

/// The largest image, in bytes: four times the root partition's default size.
pub const MAX_IMAGE: u64 = 8 << 30;

/// One of the two images of a release. The order is the one in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Image {
    /// The unified kernel image.
    Uki,
    /// The root filesystem, without its verity tree.
    Root,
}

impl Image {
    /// Both, in order.
    pub const ALL: [Image; 2] = [Image::Uki, Image::Root];
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Image::Uki => "uki",
            Image::Root => "root",
        })
    }
}

/// Bytes that can be read at any place, by several threads at once.
pub trait ReadAt: Sync {
    /// Fills `buf` from `offset` on; an error if there are fewer bytes.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_at(self.as_slice(), buf, offset)
    }
}

/// A readable image of a known length. The length is not asked of the file: a partition is longer
/// than the image in it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The bytes.
    pub bytes: &'a dyn ReadAt,
    /// How many of them are the image.
    pub len: u64,
}

/// The images of one release.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// The unified kernel image.
    pub uki: Source<'a>,
    /// The root image.
    pub root: Source<'a>,
}

impl<'a> Images<'a> {
    /// One of the two.
    pub fn get(&self, image: Image) -> Source<'a> {
        match image {
            Image::Uki => self.uki,
            Image::Root => self.root,
        }
    }

    /// Reads a range of one image; an error if it does not lie within it.
    pub(crate) fn read(&self, image: Image, buf: &mut [u8], offset: u64) -> Result<()> {
        let source = self.get(image);
        let end = offset.checked_add(buf.len() as u64);
        let result = match end.is_some_and(|end| end <= source.len) {
            true => source.bytes.read_at(buf, offset),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        result.map_err(|source| Error::Read { image, offset, source })
    }
}
