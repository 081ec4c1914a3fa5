//! What programs print: into a file that does not grow without end, and the last lines in memory
//! for when something fails.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Folder of the log files.
pub const LOG_DIR: &str = "/var/log/berth";
/// A log file that has grown to this many bytes becomes `NAME.log.1`, in place of the one before.
const MAX_FILE: u64 = 1 << 20;
/// Lines kept in memory.
const TAIL_LINES: usize = 12;
/// A line is cut at this many bytes in memory.
const MAX_LINE: usize = 400;
/// Bytes taken in one go, so that a talkative program cannot keep PID 1 busy.
const MAX_READ: usize = 64 * 1024;

/// The last lines of a text that comes in pieces.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    unfinished: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.unfinished.len() < MAX_LINE => self.unfinished.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// Reads what one program, or one daemon through all its restarts, prints.
#[derive(Debug)]
pub struct Output {
    read: File,
    /// Kept open: what a daemon started may hold the pipe longer than the daemon itself, and must
    /// not be killed by writing into it.
    write: OwnedFd,
    path: PathBuf,
    file: Option<(File, u64)>,
    tail: Tail,
}

impl Output {
    /// Goes to `NAME.log` in `directory`, as far as that can be written.
    pub fn new(directory: &Path, name: &str) -> io::Result<Output> {
        let (read, write) = sys::process::pipe()?;
        let path = directory.join(format!("{name}.log"));
        Ok(Output { read: read.into(), write, file: None, path, tail: Tail::default() })
    }

    /// Where a program is to write.
    pub fn writer(&self) -> &OwnedFd {
        &self.write
    }

    /// Takes what has been printed since the last call.
    pub fn drain(&mut self) {
        let mut buffer = [0; 4096];
        let mut taken = 0;
        while taken < MAX_READ {
            match self.read.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    taken += n;
                    self.tail.push(&buffer[..n]);
                    self.append(&buffer[..n]);
                }
            }
        }
    }

    /// The last lines, oldest first. Forgets them.
    pub fn take_tail(&mut self) -> Vec<String> {
        self.drain();
        self.tail.end_line();
        self.tail.lines.drain(..).collect()
    }

    /// A file that cannot be written costs the log, not the host.
    fn append(&mut self, bytes: &[u8]) {
        if self.file.is_none() {
            self.file = open(&self.path).ok();
        }
        let Some((file, len)) = &mut self.file else { return };
        if file.write_all(bytes).is_err() {
            self.file = None;
            return;
        }
        *len += bytes.len() as u64;
        if *len >= MAX_FILE {
            self.file = None;
            let _ = fs::rename(&self.path, self.path.with_extension("log.1"));
        }
    }

    /// Lets go of the file, so that its filesystem can be unmounted.
    pub fn close_file(&mut self) {
        self.file = None;
        self.path = PathBuf::new();
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(output: &mut Output, text: &[u8]) {
        let mut pipe = File::from(output.writer().try_clone().expect("a descriptor"));
        for piece in text.chunks(4096) {
            pipe.write_all(piece).expect("room in the pipe");
            output.drain();
        }
    }

    #[test]
    fn the_last_lines_are_kept_and_all_goes_to_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut output = Output::new(directory.path(), "x").expect("an output");
        let text: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        print(&mut output, text.as_bytes());
        print(&mut output, b"unfinished");
        let tail = output.take_tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail.last().map(String::as_str), Some("unfinished"));
        let file = fs::read_to_string(directory.path().join("x.log")).expect("the file");
        assert_eq!(file, text + "unfinished");
        assert!(output.take_tail().is_empty());
    }

    #[test]
    fn files_do_not_grow_without_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut output = Output::new(directory.path(), "x").expect("an output");
        let line = [b'a'; 4096];
        for _ in 0..MAX_FILE / 4096 * 3 + 1 {
            print(&mut output, &line);
        }
        let len = |name: &str| fs::metadata(directory.path().join(name)).expect("a file").len();
        assert_eq!((len("x.log"), len("x.log.1")), (4096, MAX_FILE));
        let files = fs::read_dir(directory.path()).expect("the directory").count();
        assert_eq!(files, 2);
    }

    #[test]
    fn long_lines_are_cut_in_memory() {
        let mut tail = Tail::default();
        tail.push(&[b'x'; 10_000]);
        tail.end_line();
        assert_eq!(tail.lines[0].len(), MAX_LINE);
    }
}
