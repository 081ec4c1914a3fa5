//! What programs print: into the log of this boot, and the last lines in memory for when something
//! fails.

use crate::{boot_log, log};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Lines kept in memory.
const TAIL_LINES: usize = 12;
/// A line is cut at this many bytes.
const MAX_LINE: usize = 800;
/// Bytes taken in one go, so that a talkative program cannot keep PID 1 busy.
const MAX_READ: usize = 64 * 1024;

/// The lines of a text that comes in pieces, and the last of them.
#[derive(Debug, Default)]
struct Lines {
    last: VecDeque<String>,
    unfinished: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(&mut each),
                _ if self.unfinished.len() < MAX_LINE => self.unfinished.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self, each: &mut impl FnMut(&str)) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
        if line.trim().is_empty() {
            return;
        }
        each(&line);
        if self.last.len() == TAIL_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

/// Where lines go, besides the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The log of this boot.
    Log,
    /// The console, and by the kernel's log that of this boot.
    Console,
}

/// Reads what one program, or one daemon through all its restarts, prints.
#[derive(Debug)]
pub struct Output {
    name: String,
    target: Target,
    read: File,
    /// Kept open: what a daemon started may hold the pipe longer than the daemon itself, and must
    /// not be killed by writing into it.
    write: OwnedFd,
    lines: Lines,
}

impl Output {
    /// Of the program called `name`.
    pub fn new(name: &str, target: Target) -> io::Result<Output> {
        let (read, write) = sys::process::pipe()?;
        let name = name.to_owned();
        Ok(Output { name, target, read: read.into(), write, lines: Lines::default() })
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
                    self.lines.push(&buffer[..n], |line| put(&self.name, self.target, line));
                }
            }
        }
    }

    /// The last lines, oldest first. Forgets them.
    pub fn take_tail(&mut self) -> Vec<String> {
        self.drain();
        self.lines.end_line(&mut |line: &str| put(&self.name, self.target, line));
        self.lines.last.drain(..).collect()
    }
}

fn put(name: &str, target: Target, line: &str) {
    match target {
        Target::Log => boot_log::write(name, line),
        Target::Console => log::line(line),
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_kept() {
        let mut output = Output::new("x", Target::Log).expect("an output");
        let mut pipe = File::from(output.writer().try_clone().expect("a descriptor"));
        let text: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        for piece in [text.as_bytes(), b"\n \n", b"unfin", b"ished"] {
            pipe.write_all(piece).expect("room in the pipe");
            output.drain();
        }
        let tail = output.take_tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail.last().map(String::as_str), Some("unfinished"));
        assert!(output.take_tail().is_empty());
    }

    #[test]
    fn every_line_is_told_once_and_long_ones_are_cut() {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        for piece in ["a\n\nb", "c\n", &"x".repeat(10_000), "\n"] {
            lines.push(piece.as_bytes(), |line| told.push(line.to_owned()));
        }
        assert_eq!(told, ["a", "bc", &"x".repeat(MAX_LINE)]);
    }
}
