//! Lines for people: on the console with `berth: ` before each, and in the kernel's log.
//!
//! In the kernel's log they have level 7 (debug), which the kernel does not print on the console
//! by itself; so no line stands there twice.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// A console that takes nothing for so long is passed over.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest text of one line, in bytes. The kernel's log takes no more than 1024.
const LONGEST: usize = 900;

/// Writes one line to the console and to the kernel's log.
pub fn line(text: &str) {
    let text = printable(text);
    // A host without a console, or with one that hangs, boots all the same.
    let _ = sys::console::write(format!("berth: {text}\r\n").as_bytes(), PATIENCE);
    kernel(&text);
}

/// Writes one line to the kernel's log only.
pub fn detail(text: &str) {
    kernel(&printable(text));
}

/// Something is wrong, and the host goes on.
pub fn warning(text: &str) {
    line(&format!("warning: {text}"));
}

/// What a person can do about the line before.
pub fn hint(text: &str) {
    line(&format!("hint: {text}"));
}

/// Lets every line into the kernel's log; by default it drops all but ten in five seconds.
pub fn unlimited() {
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
}

/// Control characters never reach a terminal: texts may quote what a disk holds.
fn printable(text: &str) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    out.truncate(out.floor_char_boundary(LONGEST));
    out
}

fn kernel(text: &str) {
    if let Ok(mut log) = File::options().write(true).open("/dev/kmsg") {
        // One write is one record. A full or absent log is no reason to stop.
        let _ = log.write_all(format!("<7>berth: {text}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_a_terminal_is_printable_and_short() {
        assert_eq!(printable("a\x1b[2J\nb"), "a [2J b");
        assert_eq!(printable(&"é".repeat(2000)).len(), LONGEST);
    }
}
