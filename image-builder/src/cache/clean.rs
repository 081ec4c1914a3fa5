//! How much the cache takes, and making it smaller.

use super::{Cache, LOCK, TMP};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Some entries of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub entries: u64,
    /// Bytes of all together.
    pub bytes: u64,
}

/// What a cache holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// All of it.
    pub total: Count,
    /// By kind: the folders below its root.
    pub kinds: BTreeMap<String, Count>,
}

/// One file, or one folder that is used as a whole, such as a program with its libraries.
struct Entry {
    kind: String,
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// How much it holds.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for entry in self.entries()? {
            for count in [&mut usage.total, usage.kinds.entry(entry.kind).or_default()] {
                count.entries += 1;
                count.bytes += entry.bytes;
            }
        }
        Ok(usage)
    }

    /// Removes everything, or what was not used for `unused`; refuses while another process uses
    /// the cache. When a file was used is what its filesystem remembers: many note it once a day,
    /// and some only when it is written.
    pub fn clean(self, unused: Option<Duration>) -> Result<Count> {
        match self.lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy { what: format!("the cache {}", self.root.display()) });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", self.root.join(LOCK))(e)),
        }
        let since = unused.and_then(|unused| SystemTime::now().checked_sub(unused));
        let mut removed = Count::default();
        for entry in self.entries()? {
            if unused.is_some() && since.is_none_or(|since| entry.used > since) {
                continue;
            }
            let path = &entry.path;
            let gone = match fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
            gone.map_err(Error::io("remove", path))?;
            removed.entries += 1;
            removed.bytes += entry.bytes;
            // Only an empty one goes.
            let _ = path.parent().map(fs::remove_dir);
        }
        Ok(removed)
    }

    /// Everything below `KIND/XX/`, and files that lie higher.
    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (name, path, is_folder) in list(&self.root)? {
            match is_folder {
                true if name == TMP => {}
                true => {
                    for (_, path, is_folder) in list(&path)? {
                        let below = if is_folder { list(&path)? } else { Vec::new() };
                        let own = (!is_folder).then_some(path);
                        for path in own.into_iter().chain(below.into_iter().map(|b| b.1)) {
                            entries.push(entry(&name, path)?);
                        }
                    }
                }
                false if name == LOCK => {}
                false => entries.push(entry(&name, path)?),
            }
        }
        Ok(entries)
    }
}

fn entry(kind: &str, path: PathBuf) -> Result<Entry> {
    let (bytes, used) = measure(&path)?;
    Ok(Entry { kind: kind.to_owned(), path, bytes, used })
}

/// Bytes of a file, or of all files below a folder, and when one of them was used last.
fn measure(path: &Path) -> Result<(u64, SystemTime)> {
    let meta = fs::symlink_metadata(path).map_err(Error::io("read", path))?;
    let written = meta.modified().map_err(Error::io("read", path))?;
    if !meta.is_dir() {
        return Ok((meta.len(), meta.accessed().map_or(written, |read| read.max(written))));
    }
    let mut total = (0, written);
    for (_, path, _) in list(path)? {
        let (bytes, used) = measure(&path)?;
        total = (total.0 + bytes, total.1.max(used));
    }
    Ok(total)
}

/// Names and paths in a folder, and whether each is a folder itself. What went meanwhile is not
/// there.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf, bool)>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", folder))?,
    };
    let mut list = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", folder))?;
        let is_folder = entry.file_type().map_err(Error::io("read", folder))?.is_dir();
        list.push((entry.file_name().to_string_lossy().into_owned(), entry.path(), is_folder));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn count(entries: u64, bytes: u64) -> Count {
        Count { entries, bytes }
    }

    /// A value that was last used this many days ago.
    fn fill(cache: &Cache, kind: &str, key: u8, days: u32) {
        cache.write_derived(kind, &[key; 32], b"value").unwrap();
        let file = File::options().write(true).open(cache.derived(kind, &[key; 32])).unwrap();
        let then = SystemTime::now() - DAY * days;
        file.set_times(FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
    }

    #[test]
    fn what_was_not_used_for_long_goes_and_then_everything() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::open(Some(folder.path())).unwrap();
        let cache = open();
        for (kind, key, days) in [("index", 1, 0), ("index", 2, 31), ("tar", 3, 29)] {
            fill(&cache, kind, key, days);
        }
        fs::write(cache.root().join("accelerator"), "tcg").unwrap();
        let tool = cache.derived("tools", &[4; 32]).join("usr/bin");
        fs::create_dir_all(&tool).unwrap();
        fs::write(tool.join("qemu"), "program").unwrap();
        let usage = cache.usage().unwrap();
        assert_eq!(usage.total, count(5, 3 * 37 + 3 + 7));
        assert_eq!(usage.kinds["index"], count(2, 74));
        assert_eq!(usage.kinds["tools"], count(1, 7));

        assert_eq!(cache.clean(Some(30 * DAY)).unwrap(), count(1, 37));
        let left = open();
        assert_eq!(left.usage().unwrap().total, count(4, 2 * 37 + 3 + 7));
        assert!(left.read_derived("index", &[1; 32]).unwrap().is_some());
        assert_eq!(left.clean(None).unwrap(), count(4, 2 * 37 + 3 + 7));
        let empty = open();
        assert_eq!(empty.usage().unwrap(), Usage::default());
        empty.write_derived("index", &[1; 32], b"value").unwrap();
    }

    #[test]
    fn a_cache_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let user = Cache::open(Some(folder.path())).unwrap();
        fill(&user, "index", 1, 0);
        let refused = Cache::open(Some(folder.path())).unwrap().clean(None).unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
        assert!(user.read_derived("index", &[1; 32]).unwrap().is_some());
    }
}
