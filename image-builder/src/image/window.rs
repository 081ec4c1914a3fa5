//! A byte range of a file as a file of its own, for code that reads and writes filesystems.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// A range of an open file. It has a position of its own; the file's is not used.
#[derive(Debug)]
pub struct Window<'a> {
    file: &'a File,
    offset: u64,
    len: u64,
    at: u64,
}

impl<'a> Window<'a> {
    /// `len` bytes of `file` from `offset` on.
    pub fn new(file: &'a File, offset: u64, len: u64) -> Window<'a> {
        Window { file, offset, len, at: 0 }
    }

    /// The part of `len` bytes at the position that lies in the window.
    fn clip(&self, len: usize) -> usize {
        let left = self.len.saturating_sub(self.at);
        len.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.clip(buffer.len());
        let n = self.file.read_at(&mut buffer[..len], self.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let len = self.clip(buffer.len());
        let n = self.file.write_at(&buffer[..len], self.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_touched() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(b"0123456789", 0).expect("write");
        let mut window = Window::new(&file, 2, 4);
        let mut text = String::new();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "2345");
        window.seek(SeekFrom::End(-1)).expect("seek");
        assert!(window.write_all(b"xy").is_err());
        assert!(window.seek(SeekFrom::Start(0)).is_ok());
        assert!(window.seek(SeekFrom::Current(-1)).is_err());
        window.seek(SeekFrom::Start(u64::MAX)).expect("seek");
        assert_eq!(window.read(&mut [0; 4]).expect("read"), 0);
        let mut all = [0; 10];
        file.read_exact_at(&mut all, 0).expect("read");
        assert_eq!(&all, b"01234x6789");
    }
}
