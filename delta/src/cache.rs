//! A small cache in front of the old images: a delta reads them in many short stretches.

use crate::error::{Error, Result};
use crate::image::{Image, Images};

/// Bytes of a line.
const LINE: u64 = 128 << 10;
/// How many lines there are: 8 MiB in all.
const LINES: usize = 64;

/// Lines, those used last first.
pub struct Cache {
    lines: Vec<Line>,
}

struct Line {
    holds: Option<(Image, u64)>,
    bytes: Vec<u8>,
}

impl Cache {
    pub fn new() -> Cache {
        Cache { lines: (0..LINES).map(|_| Line { holds: None, bytes: Vec::new() }).collect() }
    }

    /// The next piece may be made from other images.
    pub fn forget(&mut self) {
        self.lines.iter_mut().for_each(|line| line.holds = None);
    }

    /// Reads a range of one image.
    pub fn read(
        &mut self,
        old: &Images<'_>,
        image: Image,
        mut buf: &mut [u8],
        mut offset: u64,
    ) -> Result<()> {
        while !buf.is_empty() {
            let bytes = self.from(old, image, offset)?;
            let count = bytes.len().min(buf.len());
            let (now, later) = buf.split_at_mut(count);
            now.copy_from_slice(&bytes[..count]);
            offset = offset.saturating_add(count as u64);
            buf = later;
        }
        Ok(())
    }

    /// Bytes from `offset` on: at least one, at most to the end of the line.
    fn from(&mut self, old: &Images<'_>, image: Image, offset: u64) -> Result<&[u8]> {
        let number = offset / LINE;
        let wanted = |line: &Line| line.holds == Some((image, number));
        let at = self.lines.iter().position(wanted).unwrap_or(LINES - 1);
        self.lines[..=at].rotate_right(1);
        let line = &mut self.lines[0];
        if line.holds != Some((image, number)) {
            let start = number * LINE;
            line.holds = None;
            let len = old.get(image).len.saturating_sub(start).min(LINE);
            line.bytes.resize(len as usize, 0);
            old.read(image, &mut line.bytes, start)?;
            line.holds = Some((image, number));
        }
        match line.bytes.get((offset % LINE) as usize..) {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ => Err(Error::Corrupt("a script reads past the end of the old release")),
        }
    }
}
