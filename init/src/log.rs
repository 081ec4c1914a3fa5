//! Lines for people: on the consoles with `berth: ` before each, and in the kernel's log.
//!
//! In the kernel's log they have level 7 (debug), which the kernel does not print on the console
//! by itself; so no line stands there twice.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use sys::console;

/// A console that takes nothing for so long is passed over.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest text of one line, in bytes. The kernel's log takes no more than 1024.
const LONGEST: usize = 900;

/// Lines kept in memory for the status screen: more than it has room for is of no use.
const RECENT: usize = 60;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Whether the status screen is up, which shows the lines itself.
static SCREEN: AtomicBool = AtomicBool::new(false);

/// Writes one line to the consoles and to the kernel's log.
pub fn line(text: &str) {
    let text = printable(text);
    let mut consoles = console::all();
    if consoles.is_empty() {
        consoles.push(console::PREFERRED.to_owned());
    }
    let screen = SCREEN.load(Ordering::Relaxed);
    for name in consoles.iter().filter(|name| !screen || *name != console::SCREEN) {
        // A host without a console, or with one that hangs, boots all the same.
        let _ = console::write(name, format!("berth: {text}\r\n").as_bytes(), PATIENCE);
    }
    kernel(&text);
    // One who panicked while holding it has other worries.
    if let Ok(mut lines) = LINES.lock() {
        if lines.len() == RECENT {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

/// The latest lines, oldest first.
pub fn recent() -> Vec<String> {
    LINES.lock().map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
}

/// From now on the status screen shows the lines, or no longer. Returns whether it did before.
pub fn on_screen(up: bool) -> bool {
    SCREEN.swap(up, Ordering::Relaxed)
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

/// Control characters never reach a terminal: texts may quote what a disk holds. Cut at 900 bytes.
pub fn printable(text: &str) -> String {
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
