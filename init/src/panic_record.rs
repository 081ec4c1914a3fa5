//! What the firmware kept of a kernel that panicked: the kernel writes the end of its log into variables
//! of the firmware (`efi_pstore`), and the next boot finds it in the filesystem `pstore`.
//!
//! Kernel documentation, admin-guide/pstore; format of each record: `fs/pstore/platform.c`.

use crate::error::{Error, On};
use crate::log;
use std::fs;
use std::path::Path;

/// Where the kernel shows what was kept.
const FOLDER: &str = "/sys/fs/pstore";
/// The kernel keeps 10 KiB by default, and a machine may panic many times before a good boot.
const MOST_RECORDS: usize = 256;
/// Longest record that is read, in bytes. The firmware's are 1 KiB, unpacked some times that.
const LONGEST_RECORD: usize = 64 << 10;
/// Lines that are kept.
const LAST_LINES: usize = 30;
/// Of these, as many are from before the panic.
const BEFORE: usize = 10;
/// How the kernel says so.
const PANIC: &str = "Kernel panic";

/// Takes what was kept out of the firmware, which has little room, and returns the last lines before the
/// newest panic.
pub fn take() -> Result<Option<Vec<String>>, Error> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Ok(None) };
    let mut records = Vec::new();
    for entry in entries.take(MOST_RECORDS) {
        let path = entry.on("read", FOLDER)?.path();
        match read(&path) {
            Ok(text) => records.push(text),
            Err(e) => log::detail(&crate::error::chain(&e)),
        }
        fs::remove_file(&path).on("remove", path.display())?;
    }
    Ok(last_lines(&records))
}

fn read(path: &Path) -> Result<String, Error> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).on("open", path.display())?;
    file.take(LONGEST_RECORD as u64).read_to_end(&mut bytes).on("read", path.display())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of the newest dump. Each record begins with a line `Panic#2 Part1`: the number of the
/// dump in its boot, and that of the part, the last of which is the oldest.
fn last_lines(records: &[String]) -> Option<Vec<String>> {
    let mut parts: Vec<_> = records.iter().filter_map(|record| part(record)).collect();
    parts.sort_by_key(|&(dump, part, _)| (dump, std::cmp::Reverse(part)));
    let newest = parts.last()?.0;
    let text: String =
        parts.iter().filter(|(dump, ..)| *dump == newest).map(|(.., text)| *text).collect();
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    // The call trace below the panic may be long; what led to it stands above.
    let panic = lines.iter().position(|line| line.contains(PANIC));
    let end = lines.len().saturating_sub(LAST_LINES);
    let start = panic.map_or(end, |at| at.saturating_sub(BEFORE).min(end));
    Some(lines.into_iter().skip(start).take(LAST_LINES).collect())
}

/// Number of the dump, number of the part, and what follows.
fn part(record: &str) -> Option<(u32, u32, &str)> {
    let (first, text) = record.split_once('\n')?;
    let (dump, part) = first.strip_prefix("Panic#")?.split_once(" Part")?;
    Some((dump.parse().ok()?, part.trim().parse().ok()?, text))
}

/// A line of the kernel's log without its level.
fn plain(line: &str) -> String {
    let rest = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let text = match rest {
        Some((level, text)) if level.bytes().all(|b| b.is_ascii_digit()) => text,
        _ => line,
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().into()
}

/// The line that says why, for people.
pub fn reason(lines: &[String]) -> &str {
    let why = lines.iter().find(|line| line.contains(PANIC));
    why.or(lines.last()).map_or("", |line| line.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_and_the_newest_panic_counts() {
        let records = [
            "Panic#1 Part1\n<0>[    9.0] Kernel panic - not syncing: old\n",
            "Panic#2 Part1\n<4>[    3.2] more\n<0>[    3.3] Kernel panic - not syncing: new\n",
            "Oops#1 Part1\n<4>[    1.0] no panic\n",
            "Panic#2 Part2\n<6>[    3.0] before\n<4>[    3.1] it\x1b[2J\n",
            "",
            "nonsense",
        ];
        let lines = last_lines(&records.map(str::to_owned)).expect("a panic");
        let expected = ["[    3.0] before", "[    3.1] it [2J", "[    3.2] more"];
        assert_eq!(lines[..3], expected);
        assert_eq!(reason(&lines), "[    3.3] Kernel panic - not syncing: new");
        assert_eq!(last_lines(&[]), None);
        assert_eq!(last_lines(&["Panic#1".to_owned()]), None);
    }

    #[test]
    fn what_led_to_the_panic_is_kept() {
        let text = |panic: usize| -> String {
            let line =
                |n| if n == panic { format!("{PANIC} {n}\n") } else { format!("line {n}\n") };
            (0..100).map(line).collect()
        };
        for (panic, first) in [(40, "line 30"), (3, "line 0"), (95, "line 70"), (200, "line 70")] {
            let lines = last_lines(&[format!("Panic#1 Part1\n{}", text(panic))]).expect("a panic");
            assert_eq!((lines.len(), lines[0].as_str()), (30, first), "{panic}");
        }
    }
}
