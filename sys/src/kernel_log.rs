//! The kernel's log, in which the lines of the console are too.

use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

/// Longest record that `/dev/kmsg` gives.
const MAX_RECORD: usize = 8192;

/// The last `count` lines, without what the kernel puts before each
/// (Documentation/ABI/testing/dev-kmsg).
pub fn tail(count: usize) -> io::Result<Vec<String>> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
    let mut lines = VecDeque::new();
    let mut record = [0; MAX_RECORD];
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(len) => {
                if lines.len() == count {
                    lines.pop_front();
                }
                lines.push_back(text(&record[..len]));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            // Overwritten while it was read: the next one is there.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => return Err(e),
        }
    }
    Ok(lines.into())
}

/// `6,339,5140900,-;text` and lines of `KEY=value` behind it.
fn text(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    let text = text.split_once(';').map_or(&*text, |(_, text)| text);
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_of_a_record_is_kept() {
        let record = b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n";
        assert_eq!(text(record), "NET: Registered");
        assert_eq!(text(b"no semicolon"), "no semicolon");
    }
}
