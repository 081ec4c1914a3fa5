//! The guest's serial console: cleaned of control sequences, line by line, with times.
//!
//! Firmware clears the screen and moves the cursor; a guest may write anything. Nothing here grows
//! without bound and nothing depends on the bytes being text.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer lines are cut here.
pub const LINE_MAX: usize = 4096;

/// Older lines are forgotten beyond this number.
pub const LINES_MAX: usize = 50_000;

/// A line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its end arrived, since the machine was started, by the clock of this machine: the
    /// guest's own runs wrong under emulation.
    pub at: Duration,
    /// The line without control characters. Bytes that are not UTF-8 are U+FFFD.
    pub text: String,
}

/// What else happens with the console, on the thread that reads it.
pub trait Sink: Send {
    /// Bytes, cleaned for a terminal.
    fn bytes(&mut self, bytes: &[u8]);
    /// A whole line.
    fn line(&mut self, line: &Line);
    /// The machine ended.
    fn end(&mut self);
}

/// Takes control sequences out of a stream of bytes, wherever it is cut into pieces.
#[derive(Debug, Default)]
pub struct Cleaner {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    Escape,
    /// `ESC [`: parameters until a final byte.
    Control(Vec<u8>),
    /// `ESC ]`, `ESC P`...: a text for the terminal, until BEL or ST.
    Message(usize),
}

/// What is left of the bytes.
enum Piece {
    Byte(u8),
    /// Colours and the like, of which a terminal may be told.
    Style(Vec<u8>),
    /// The cursor went elsewhere.
    Moved,
}

/// A control sequence longer than this is none.
const SEQUENCE_MAX: usize = 64;

impl Cleaner {
    fn feed(&mut self, byte: u8) -> Option<Piece> {
        match (&mut self.state, byte) {
            (_, 0x1b) => {
                self.state = State::Escape;
                None
            }
            (State::Text, b'\n' | b'\t' | 0x20..=0x7e | 0x80..) => Some(Piece::Byte(byte)),
            (State::Text, _) => None,
            (State::Escape, b'[') => {
                self.state = State::Control(Vec::new());
                None
            }
            (State::Escape, b']' | b'P' | b'^' | b'_') => {
                self.state = State::Message(0);
                None
            }
            // `ESC ( B` and its like have bytes in between.
            (State::Escape, 0x20..=0x2f) => None,
            (State::Escape, 0x30..=0x7e) => {
                self.state = State::Text;
                None
            }
            (State::Control(sequence), 0x20..=0x3f) if sequence.len() < SEQUENCE_MAX => {
                sequence.push(byte);
                None
            }
            (State::Control(sequence), 0x40..=0x7e) => {
                let sequence = std::mem::take(sequence);
                self.state = State::Text;
                match byte {
                    b'm' => Some(Piece::Style([b"\x1b[", &sequence[..], b"m"].concat())),
                    b'A' | b'B' | b'H' | b'J' | b'f' => Some(Piece::Moved),
                    _ => None,
                }
            }
            (State::Message(_), 0x07) => {
                self.state = State::Text;
                None
            }
            (State::Message(length), 0x20..) if *length < SEQUENCE_MAX => {
                *length += 1;
                None
            }
            // Not a sequence after all.
            (State::Escape | State::Control(_) | State::Message(_), _) => {
                self.state = State::Text;
                self.feed(byte)
            }
        }
    }
}

/// Cuts a stream of bytes into lines, and gives a terminal what it may see.
#[derive(Debug, Default)]
pub struct Splitter {
    cleaner: Cleaner,
    line: Vec<u8>,
}

impl Splitter {
    /// Takes bytes; returns those for a terminal, and calls `line` with each line that ended.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(String)) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match self.cleaner.feed(byte) {
                None => {}
                Some(Piece::Style(sequence)) => shown.extend(sequence),
                Some(Piece::Byte(b'\n')) => {
                    shown.extend(b"\r\n");
                    line(self.take());
                }
                Some(Piece::Byte(byte)) => {
                    shown.push(byte);
                    if self.line.len() < LINE_MAX {
                        self.line.push(byte);
                    }
                }
                Some(Piece::Moved) if self.line.is_empty() => {}
                Some(Piece::Moved) => {
                    shown.extend(b"\r\n");
                    line(self.take());
                }
            }
        }
        shown
    }

    fn take(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        text
    }
}

/// What was captured so far; shared by the thread that reads and whoever waits.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<(Mutex<Captured>, Condvar)>,
}

#[derive(Debug, Default)]
struct Captured {
    lines: VecDeque<Line>,
    /// Number of the first of `lines`, counted from the start.
    first: usize,
    ended: bool,
}

/// How waiting for a line ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited<T> {
    /// The value that the line gave.
    Found(T),
    /// The time is over.
    Late,
    /// The machine ended.
    Ended,
}

impl Console {
    /// Captures `source` on a thread until it ends.
    pub fn capture(
        mut source: impl Read + Send + 'static,
        started: Instant,
        mut sink: Option<Box<dyn Sink>>,
        mut log: Option<std::fs::File>,
    ) -> Console {
        let console = Console { shared: Arc::default() };
        let writer = console.clone();
        std::thread::spawn(move || {
            let mut splitter = Splitter::default();
            let mut buffer = [0; 4096];
            loop {
                let n = match source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                if let Some(file) = &mut log {
                    // A full disk must not stop the machine.
                    let _ = std::io::Write::write_all(file, &buffer[..n]);
                }
                let mut lines = Vec::new();
                let shown = splitter.feed(&buffer[..n], |text| {
                    lines.push(Line { at: started.elapsed(), text });
                });
                if let Some(sink) = &mut sink {
                    sink.bytes(&shown);
                    lines.iter().for_each(|line| sink.line(line));
                }
                writer.append(lines);
            }
            if let Some(sink) = &mut sink {
                sink.end();
            }
            writer.lock().ended = true;
            writer.shared.1.notify_all();
        });
        console
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, lines: Vec<Line>) {
        let mut captured = self.lock();
        captured.lines.extend(lines);
        let over = captured.lines.len().saturating_sub(LINES_MAX);
        captured.lines.drain(..over);
        captured.first += over;
        self.shared.1.notify_all();
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.iter().cloned().collect()
    }

    /// The last lines that are not empty.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let captured = self.lock();
        let lines = captured.lines.iter().rev().filter(|line| !line.text.is_empty()).take(count);
        let mut texts: Vec<String> = lines.map(|line| line.text.clone()).collect();
        texts.reverse();
        texts
    }

    /// Waits for the first line from number `*from` on for which `pick` gives a value, and leaves
    /// `*from` behind it.
    pub fn wait<T>(
        &self,
        from: &mut usize,
        within: Duration,
        mut pick: impl FnMut(&Line) -> Option<T>,
    ) -> Waited<T> {
        let end = Instant::now() + within;
        let mut captured = self.lock();
        loop {
            *from = (*from).max(captured.first);
            while let Some(line) = captured.lines.get(*from - captured.first) {
                *from += 1;
                if let Some(value) = pick(line) {
                    return Waited::Found(value);
                }
            }
            if captured.ended {
                return Waited::Ended;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::Late;
            }
            let woken = self.shared.1.wait_timeout(captured, left);
            captured = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
        let mut lines = Vec::new();
        let shown = Splitter::default().feed(bytes, |line| lines.push(line));
        (lines, shown)
    }

    #[test]
    fn lines_come_clean() {
        let cases: [(&[u8], &[&str]); 9] = [
            (b"a\r\nb\n", &["a", "b"]),
            (b"no end", &[]),
            (b"\x1b[2J\x1b[01;01H\x1b[=3hfirmware\r\n", &["firmware"]),
            (b"one\x1b[05;01Htwo\n", &["one", "two"]),
            (b"\x1b[1;31mred\x1b[0m!\n", &["red!"]),
            (b"\x1b]0;title\x07text\x1b(B\n", &["text"]),
            (b"bell\x07 \x00nul\n", &["bell nul"]),
            (b"\xff\xfe\n", &["\u{fffd}\u{fffd}"]),
            (b"broken \x1b[12\nnext\n", &["broken", "next"]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(split(bytes).0, expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_terminal_keeps_its_screen_and_gets_colours() {
        assert_eq!(split(b"\x1b[2J\x1b[31mred\x1b[m\n").1, b"\x1b[31mred\x1b[m\r\n");
    }

    #[test]
    fn long_lines_are_cut() {
        let long = [vec![b'x'; 3 * LINE_MAX], b"\nnext\n".to_vec()].concat();
        let lines = split(&long).0;
        assert_eq!(lines[0].len(), LINE_MAX);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn old_lines_are_forgotten_and_waiting_goes_on_behind_them() {
        let bytes = "line\n".repeat(LINES_MAX + 10) + "last\n";
        let console = Console::capture(std::io::Cursor::new(bytes), Instant::now(), None, None);
        let mut from = 0;
        let minute = Duration::from_secs(60);
        let found = console.wait(&mut from, minute, |l| (l.text == "last").then_some(()));
        assert_eq!(found, Waited::Found(()));
        assert_eq!(from, LINES_MAX + 11);
        assert_eq!(console.lines().len(), LINES_MAX);
        assert_eq!(console.tail(2), ["line", "last"]);
        assert_eq!(console.wait(&mut from, minute, |_| Some(())), Waited::Ended);
    }

    #[test]
    fn each_line_is_found_once() {
        let bytes = std::io::Cursor::new("ready 1\nready 2\n");
        let console = Console::capture(bytes, Instant::now(), None, None);
        let mut from = 0;
        let mut next = || {
            console.wait(&mut from, Duration::from_secs(60), |line| {
                line.text.strip_prefix("ready ").map(str::to_owned)
            })
        };
        assert_eq!(next(), Waited::Found("1".into()));
        assert_eq!(next(), Waited::Found("2".into()));
        assert_eq!(next(), Waited::Ended);
    }

    proptest! {
        /// Whatever comes, in whatever pieces, the lines are the same, bounded and printable.
        #[test]
        fn pieces_do_not_matter(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'\n'), Just(b'H')], 0..400),
            cut in 0usize..400,
        ) {
            let (whole, shown) = split(&bytes);
            let cut = cut.min(bytes.len());
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            let mut pieces = splitter.feed(&bytes[..cut], |line| lines.push(line));
            pieces.extend(splitter.feed(&bytes[cut..], |line| lines.push(line)));
            prop_assert_eq!(&lines, &whole);
            prop_assert_eq!(pieces, shown);
            for line in &lines {
                prop_assert!(line.chars().all(|c| c == '\t' || !c.is_ascii_control()));
            }
        }
    }
}
