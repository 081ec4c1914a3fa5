//! The log of each boot, in `/var/log/berth`: the kernel's lines, our own, and what the daemons print,
//! in one file and in the order in which they came.
//!
//! `boot-7.log` is that of the seventh boot of this disk. When it has grown to a mebibyte it becomes
//! `boot-7.log.0`, which stays, as the beginning tells most; later ones become `boot-7.log.1`, each in
//! place of the one before. `current.log` and `previous.log` lead to the newest two. So all logs
//! together take no more than [`BOOTS`] times 3 MiB.
//!
//! A thread of its own writes: a disk that hangs, or is full, costs lines and holds up nobody.

use crate::error::{Error, On};
use crate::log;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use sys::clock::since_boot;
use sys::kernel_log::Records;

/// Folder of the logs.
const FOLDER: &str = "/var/log/berth";
/// Boots whose logs are kept, this one among them.
const BOOTS: usize = 10;
/// A file that has grown to this many bytes makes room for the next.
const MAX_FILE: u64 = 1 << 20;
/// Lines that wait for the disk; further ones are lost, and counted.
const WAITING: usize = 2048;
/// A file that could not be written is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// How long the end waits for the last lines, and then for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The last line. What stands in the kernel's log before it has come by then.
const LAST: &str = "the log of this boot ends";

enum Entry {
    Line(Duration, String, String),
    /// The last one; to be answered.
    Close(SyncSender<()>),
}

static END: Mutex<Option<Receiver<()>>> = Mutex::new(None);
static TO_WRITER: Mutex<Option<SyncSender<Entry>>> = Mutex::new(None);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Begins the log of this boot; `/var` is there. `first_line` says which boot it is.
pub fn begin(first_line: &str) -> Result<(), Error> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder).on("make", FOLDER)?;
    let path = next(folder).on("list", FOLDER)?;
    if let Err(e) = lead_to(&path) {
        log::warning(&format!("{FOLDER}: lead to the log of this boot: {e}"));
    }
    let (sender, entries) = sync_channel(WAITING);
    *TO_WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    write("berth", first_line);
    let log = BootLog::new(path);
    spawn("boot log", move || follow(&entries, log))?;
    let (ended, end) = sync_channel(1);
    *END.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    let records = Records::open(true).on("open", "/dev/kmsg")?;
    spawn("kernel log", move || {
        for record in records.map_while(Result::ok) {
            // Ours are in the kernel's log, too.
            let ours = record.text.strip_prefix("berth: ");
            let source = if ours.is_some() { "berth" } else { "kernel" };
            send(record.time, source, ours.unwrap_or(&record.text));
            // Anyone may write there; only we are asked to end.
            let ending = || END.lock().is_ok_and(|end| end.is_none());
            if ours == Some(LAST) && ending() {
                return close(&ended);
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop).on("start", format!("the thread of the {name}"))
}

/// Adds a line of `source`. Never waits.
pub fn write(source: &str, text: &str) {
    send(since_boot(), source, text);
}

fn send(time: Duration, source: &str, text: &str) {
    let Ok(sender) = TO_WRITER.lock().map(|sender| sender.clone()) else { return };
    let Some(sender) = sender else { return };
    let entry = Entry::Line(time, source.to_owned(), log::printable(text));
    if let Err(TrySendError::Full(_)) = sender.try_send(entry) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes what has come, and lets go of the file, so that its filesystem can be unmounted.
pub fn end() {
    let Some(end) = END.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    log::detail(LAST);
    if end.recv_timeout(CLOSE_WITHIN).is_err() {
        // The kernel's log takes no lines, or too many.
        let (done, closed) = sync_channel(1);
        close(&done);
        let _ = closed.recv_timeout(CLOSE_WITHIN);
    }
}

/// No further lines; `done` is told when the file is closed. A writer that does not take even this
/// hangs on the disk.
fn close(done: &SyncSender<()>) {
    let sender = TO_WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(sender) = sender {
        let _ = sender.try_send(Entry::Close(done.clone()));
    }
}

fn follow(entries: &Receiver<Entry>, mut log: BootLog) {
    for entry in entries {
        match entry {
            Entry::Line(time, source, text) => {
                let lost = LOST.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    log.add(time, "berth", &format!("{lost} lines are missing here"));
                }
                log.add(time, &source, &text);
            }
            Entry::Close(done) => {
                drop(log);
                let _ = done.send(());
                return;
            }
        }
    }
}

/// The files of one boot.
#[derive(Debug)]
struct BootLog {
    path: PathBuf,
    file: Option<(File, u64)>,
    retry_at: Duration,
}

impl BootLog {
    fn new(path: PathBuf) -> BootLog {
        BootLog { path, file: None, retry_at: Duration::ZERO }
    }

    /// A file that cannot be written costs the log, not the host.
    fn add(&mut self, time: Duration, source: &str, text: &str) {
        if self.file.is_none() && time >= self.retry_at {
            self.file = open(&self.path).ok();
        }
        let Some((file, len)) = &mut self.file else { return };
        let line = format!("{:>12.6} {source}: {text}\n", time.as_secs_f64());
        if file.write_all(line.as_bytes()).is_err() {
            self.file = None;
            self.retry_at = time + RETRY;
            return;
        }
        *len += line.len() as u64;
        if *len >= MAX_FILE {
            self.file = None;
            let named = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
            let number = u32::from(named(0).exists());
            let _ = fs::rename(&self.path, named(number));
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// Removes what is too old, and names the file of this boot.
fn next(folder: &Path) -> io::Result<PathBuf> {
    let mut boots = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().and_then(boot_number) {
            boots.push((number, folder.join(name)));
        }
    }
    let last = boots.iter().map(|(number, _)| *number).max();
    let this = last.map_or(1, |last| last + 1);
    for (number, path) in boots {
        if number + BOOTS as u64 <= this {
            fs::remove_file(path)?;
        }
    }
    Ok(folder.join(format!("boot-{this}.log")))
}

/// Makes `current.log` lead to `path`, and `previous.log` to where it led before.
fn lead_to(path: &Path) -> io::Result<()> {
    let [current, previous] = ["current.log", "previous.log"].map(|name| path.with_file_name(name));
    if let Ok(last) = fs::read_link(&current) {
        lead(&previous, &last)?;
    }
    lead(&current, Path::new(path.file_name().unwrap_or_default()))
}

/// The number in `boot-NUMBER.log`, and in what was split off it.
fn boot_number(name: &str) -> Option<u64> {
    let (number, rest) = name.strip_prefix("boot-")?.split_once('.')?;
    // Far from where adding would overflow.
    let number = number.parse().ok().filter(|number| *number < 1 << 48)?;
    matches!(rest, "log" | "log.0" | "log.1").then_some(number)
}

/// A link that is there at every instant, once it was.
fn lead(link: &Path, target: &Path) -> io::Result<()> {
    let new = link.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => std::os::unix::fs::symlink(target, &new)?,
    }
    fs::rename(new, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |e: io::Result<fs::DirEntry>| e.expect("an entry").file_name().into_string();
        let mut names: Vec<_> = entries.map(|e| name(e).expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn each_boot_has_a_file_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let other = ["boot-.log", "boot-99999999999999999999.log", "boot-5.txt", "dockerd.log"];
        other.iter().for_each(|name| fs::write(folder.join(name), "").expect("written"));
        for boot in 1..=13 {
            let path = next(folder).expect("a name");
            assert_eq!(path, folder.join(format!("boot-{boot}.log")));
            lead_to(&path).expect("links");
            fs::write(path.with_extension("log.0"), "").expect("written");
            let mut log = BootLog::new(path);
            log.add(Duration::from_millis(1500), "kernel", &format!("boot {boot}"));
        }
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("text");
        assert_eq!(read("current.log"), "    1.500000 kernel: boot 13\n");
        assert_eq!(read("previous.log"), "    1.500000 kernel: boot 12\n");
        let names = names(folder);
        let kept = |boot: u64| names.contains(&format!("boot-{boot}.log"));
        assert_eq!((1..=13).filter(|boot| kept(*boot)).collect::<Vec<_>>(), Vec::from_iter(4..=13));
        assert!(other.iter().all(|other| names.contains(&(*other).to_owned())), "{names:?}");
        assert_eq!(names.len(), 2 * BOOTS + 2 + other.len(), "{names:?}");
    }

    #[test]
    fn the_beginning_and_the_latest_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = BootLog::new(folder.path().join("boot-1.log"));
        let text = "x".repeat(900);
        for n in 0..MAX_FILE / 900 * 4 {
            log.add(Duration::from_secs(n), "kernel", &text);
        }
        assert_eq!(names(folder.path()), ["boot-1.log", "boot-1.log.0", "boot-1.log.1"]);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("text");
        assert!(read("boot-1.log.0").starts_with("    0.000000 kernel: xxx"));
        for name in names(folder.path()) {
            assert!(read(&name).len() as u64 <= MAX_FILE + 1000, "{name}");
        }
        let last = format!("{:>12.6}", (MAX_FILE / 900 * 4 - 1) as f64);
        assert!(read("boot-1.log").contains(&last));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("missing/boot-1.log");
        let mut log = BootLog::new(path.clone());
        log.add(Duration::from_secs(1), "kernel", "lost");
        fs::create_dir(folder.path().join("missing")).expect("a folder");
        log.add(Duration::from_secs(2), "kernel", "written");
        assert_eq!(fs::read_to_string(path).expect("text"), "    2.000000 kernel: written\n");
    }
}
