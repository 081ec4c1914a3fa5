//! What the updater remembers across restarts: two small files below `/var`, each replaced whole.

use crate::reserve;
use contract::update_status::Event;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where the files lie on a host.
pub const FOLDER: &str = "/var/lib/berth/updater";

const SAVED: &str = "state.json";
const HISTORY: &str = "history.json";
/// Most events that are kept; the oldest go first.
const MAX_EVENTS: usize = 200;
/// Most bytes of a file that are read.
const MAX_FILE: u64 = 4 << 20;

/// What is remembered besides events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// The release that the host stays with.
    pub pinned: Option<String>,
    /// Nothing below this version is accepted.
    pub min_version: Option<String>,
    /// Releases that failed here and are not tried again unless forced.
    pub failed: Vec<FailedRelease>,
    /// What was begun and has not ended.
    pub attempt: Option<Attempt>,
    /// The release that the channel named last.
    pub offered: Option<String>,
    /// When the repository was last looked at with success, seconds since 1970 UTC.
    pub checked: Option<u64>,
    /// When the root metadata of the repository expires, seconds since 1970 UTC.
    pub root_expires: Option<u64>,
    /// When the slots were last checked, seconds since 1970 UTC.
    pub scrubbed: Option<u64>,
}

/// A release that failed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRelease {
    /// Its version.
    pub version: String,
    /// Its root hash: a release that is published anew under the same version is another.
    pub root_hash: String,
    /// Why.
    pub why: String,
}

/// An update that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The release.
    pub version: String,
    /// Its root hash.
    pub root_hash: String,
    /// The slot that it goes to, `a` or `b`.
    pub slot: String,
    /// The release that ran when it began.
    pub from: String,
    /// What the release forbids to go below once it is healthy.
    pub min_version: Option<String>,
    /// Whether a person asked for it.
    #[serde(default)]
    pub asked: bool,
    /// Whether a person leaves the restart to someone else.
    #[serde(default)]
    pub no_reboot: bool,
}

/// The files.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// What is remembered.
    pub saved: Saved,
    events: Vec<Event>,
}

impl Store {
    /// Reads what there is. A file that cannot be read counts as empty: the updater has to work
    /// on a host whose `/var` was lost. The second value says what was wrong.
    pub fn open(folder: &Path) -> (Store, Vec<String>) {
        let mut problems = Vec::new();
        if let Err(e) = fs::create_dir_all(folder) {
            problems.push(format!("make {}: {e}", folder.display()));
        }
        reserve::set_aside(folder);
        let saved = read(&folder.join(SAVED), &mut problems);
        let events = read(&folder.join(HISTORY), &mut problems);
        (Store { folder: folder.to_owned(), saved, events }, problems)
    }

    /// Makes durable what is remembered.
    pub fn save(&self) -> io::Result<()> {
        write(&self.folder.join(SAVED), &self.saved)
    }

    /// What happened, oldest first.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Adds an event and makes it durable.
    pub fn add(&mut self, event: Event) -> io::Result<()> {
        self.events.push(event);
        let excess = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..excess);
        write(&self.folder.join(HISTORY), &self.events)
    }
}

fn read<T: DeserializeOwned + Default>(path: &Path, problems: &mut Vec<String>) -> T {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    let parsed = match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return T::default(),
        Err(e) => Err(e.to_string()),
        Ok(_) => serde_json::from_slice(&bytes).map_err(|e| e.to_string()),
    };
    parsed.unwrap_or_else(|why| {
        problems.push(format!("{} counts as empty: {why}", path.display()));
        T::default()
    })
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    reserve::replace(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: u64) -> Event {
        let (version, what, why) = ("1".to_owned(), "installed".to_owned(), String::new());
        Event { time, version, slot: None, what, why, console: Vec::new() }
    }

    #[test]
    fn what_is_saved_is_there_again_and_history_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut store, problems) = Store::open(&folder.path().join("new"));
        assert_eq!((problems.len(), &store.saved), (0, &Saved::default()));
        store.saved.pinned = Some("1.2".to_owned());
        store.save().expect("saved");
        for time in 0..MAX_EVENTS as u64 + 5 {
            store.add(event(time)).expect("saved");
        }
        let (again, _) = Store::open(&folder.path().join("new"));
        assert_eq!(again.saved, store.saved);
        assert_eq!((again.events().len(), again.events()[0].time), (MAX_EVENTS, 5));
    }

    #[test]
    fn a_broken_file_counts_as_empty_and_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(SAVED), "{ half").expect("written");
        let (store, problems) = Store::open(folder.path());
        assert_eq!(store.saved, Saved::default());
        assert!(problems[0].contains("state.json"), "{problems:?}");
    }
}
