//! Giving free space of `/var` back to the disk: a solid-state disk lives longer, and one that is
//! thin below takes less.
//!
//! Once in some days and not at each deletion (the mount option `discard`): many disks stall on such
//! commands, and those of a week in a row are fewer and larger. A thread of PID 1 does it piece by
//! piece, with pauses, so that whoever else needs the disk waits for one piece at most.

use crate::log;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FOLDER: &str = "/var";
/// Seconds since 1970 UTC of the last time.
const STAMP: &str = "/var/lib/berth/trimmed";

/// After the host is ready: it has other things to do first.
const FIRST_LOOK: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Bytes that are looked at at once.
const PIECE: u64 = 1 << 30;
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time that an end of the machine waits for a piece.
const PIECE_WITHIN: Duration = Duration::from_secs(5);

static ENDING: AtomicBool = AtomicBool::new(false);
/// Held during a piece.
static WORKING: Mutex<()> = Mutex::new(());

/// Does it now, if it is due, and whenever `days` have passed, for as long as the machine runs.
pub fn keep(days: u32) {
    if days == 0 {
        return;
    }
    let work = move || {
        let every = Duration::from_secs(u64::from(days) * 24 * 3600);
        thread::sleep(FIRST_LOOK);
        loop {
            if is_due(last(), now(), every) && !once() {
                return;
            }
            thread::sleep(LOOK_AGAIN);
        }
    };
    let started = thread::Builder::new().name("trim".into()).stack_size(128 << 10).spawn(work);
    if let Err(e) = started {
        log::warning(&format!("free space is not given back to the disk: {e}"));
    }
}

/// Lets go of `/var`: nothing more is done.
pub fn end() {
    ENDING.store(true, Ordering::SeqCst);
    let start = Instant::now();
    while start.elapsed() < PIECE_WITHIN {
        match WORKING.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
}

/// Whether `every` has passed since `last`. A clock that was wrong then is not waited for.
fn is_due(last: Option<Duration>, now: Duration, every: Duration) -> bool {
    last.is_none_or(|last| now < last || now - last >= every)
}

fn last() -> Option<Duration> {
    let text = fs::read_to_string(STAMP).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Goes through the whole filesystem. Returns whether to go on another day.
fn once() -> bool {
    match whole() {
        Ok(bytes) => {
            log::line(&format!("/var: {} MiB of free space given back to the disk", bytes >> 20));
            let text = format!("{}\n", now().as_secs());
            if let Err(e) = sys::file::replace(Path::new(STAMP), text.as_bytes(), 0o600) {
                log::warning(&format!("write {STAMP}: {e}"));
            }
            true
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => false,
        Err(e) => {
            // Most often a disk that does not want to know, which it never will.
            log::detail(&format!("free space of {FOLDER} is not given back to the disk: {e}"));
            false
        }
    }
}

fn whole() -> io::Result<u64> {
    let len = sys::file::capacity(Path::new(FOLDER))?;
    let mut bytes = 0;
    // Overhead that statvfs leaves out lies at the end as well.
    for start in (0..len.saturating_add(PIECE)).step_by(PIECE as usize) {
        bytes += match piece(start) {
            // Beyond the end.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && start >= len => 0,
            other => other?,
        };
        thread::sleep(PAUSE);
    }
    Ok(bytes)
}

fn piece(start: u64) -> io::Result<u64> {
    let _working = WORKING.lock().unwrap_or_else(PoisonError::into_inner);
    if ENDING.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    // Opened for each piece: nothing of `/var` stays open when the machine ends.
    sys::ext4::trim(&File::open(FOLDER)?, start, PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_when_the_days_have_passed_or_the_clock_was_wrong() {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        for (last, now, expected) in [
            (None, 100, true),
            (Some(100), 100, false),
            (Some(100), 106, false),
            (Some(100), 107, true),
            (Some(200), 100, true),
        ] {
            assert_eq!(is_due(last.map(days), days(now), days(7)), expected, "{last:?} {now}");
        }
    }
}
