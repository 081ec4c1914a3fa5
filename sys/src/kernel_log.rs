//! The kernel's log, in which the lines of the console are too.

use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Longest record that `/dev/kmsg` gives.
const MAX_RECORD: usize = 8192;

/// A line of the kernel's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Since the kernel's start.
    pub time: Duration,
    /// What is said, in one line.
    pub text: String,
    /// The kernel itself said it, and it is no warning: such lines do not reach a console.
    pub routine: bool,
}

/// Everything that the log holds, oldest first, and then what comes.
#[derive(Debug)]
pub struct Records {
    log: File,
}

impl Records {
    /// Opens the log. With `wait` a reader waits for more at its end.
    pub fn open(wait: bool) -> io::Result<Records> {
        let flags = if wait { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags.bits() as i32;
        let log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
        Ok(Records { log })
    }
}

impl Iterator for Records {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        let mut bytes = [0; MAX_RECORD];
        loop {
            return match self.log.read(&mut bytes) {
                Ok(0) => None,
                Ok(len) => Some(Ok(record(&bytes[..len]))),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // Overwritten while it was read: the next one is there.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => continue,
                Err(e) => Some(Err(e)),
            };
        }
    }
}

/// The last `count` lines of those that matter to a person: the kernel's routine is left out.
pub fn tail(count: usize) -> io::Result<Vec<String>> {
    let mut lines = VecDeque::new();
    for record in Records::open(false)? {
        let record = record?;
        if record.routine {
            continue;
        }
        if lines.len() == count {
            lines.pop_front();
        }
        lines.push_back(record.text);
    }
    Ok(lines.into())
}

/// `6,339,5140900,-;text` and lines of `KEY=value` behind it: level and eight times the facility,
/// number, microseconds, flags (Documentation/ABI/testing/dev-kmsg).
fn record(bytes: &[u8]) -> Record {
    /// KERN_NOTICE of linux/kern_levels.h: less urgent than a warning. What programs write has another
    /// facility, and so a greater number than any of the kernel.
    const ROUTINE: std::ops::RangeInclusive<u32> = 5..=7;
    let text = String::from_utf8_lossy(bytes);
    let (head, text) = text.split_once(';').unwrap_or(("", &text));
    let time = head.split(',').nth(2).and_then(|time| time.parse().ok());
    let text = text.lines().next().unwrap_or_default().to_owned();
    let priority = head.split(',').next().and_then(|number| number.parse().ok());
    let routine = priority.is_some_and(|number| ROUTINE.contains(&number));
    Record { time: Duration::from_micros(time.unwrap_or_default()), text, routine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_text_of_a_record_are_kept() {
        let expected = |micros, text: &str, routine| {
            let time = Duration::from_micros(micros);
            Record { time, text: text.to_owned(), routine }
        };
        let bytes = b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n";
        assert_eq!(record(bytes), expected(5_140_900, "NET: Registered", true));
        assert_eq!(record(b"no semicolon"), expected(0, "no semicolon", false));
        assert_eq!(record(b"6,1,no number,-;a;b"), expected(0, "a;b", true));
        assert_eq!(record(b"3,1,0,-;sda: error"), expected(0, "sda: error", false));
        assert_eq!(record(b"15,1,0,-;berth: up"), expected(0, "berth: up", false));
    }
}
