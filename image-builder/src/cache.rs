//! The cache: what was downloaded, by SHA-256, and what was made from it, by a key of its own.
//!
//! Every file appears whole, by rename, so several `berth` may run at once and any may be killed.
//! Nothing is flushed: after a power cut a file may be damaged, and everything read from here is
//! checked by its reader. It is always safe to delete the cache while no `berth` runs, and
//! [`Cache::clean`] makes sure of that.

mod clean;

use crate::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub use clean::{Count, Usage};

/// A SHA-256.
pub type Digest = [u8; 32];

pub use contract::hex::encode as hex;

/// Reads the hexadecimal form of a SHA-256.
pub fn parse_hex(text: &str) -> Option<Digest> {
    let nibble = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(digest)
}

/// SHA-256 of `parts`, each preceded by its length: a key for [`Cache::derived`].
pub fn key(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A folder of files that can all be made again.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    /// Held shared by who uses the cache, alone by who cleans it.
    lock: Arc<File>,
}

/// The lock's name, below the root.
const LOCK: &str = "lock";
/// Where files are written before they get their names.
const TMP: &str = "tmp";
/// What a killed process left there goes after this long, if others are always at work.
const STALE: Duration = Duration::from_secs(24 * 3600);

impl Cache {
    /// The cache at `path`, else at `$XDG_CACHE_HOME/berth`, else at `$HOME/.cache/berth`.
    pub fn open(path: Option<&Path>) -> Result<Cache> {
        let root = match path {
            Some(path) => path.to_owned(),
            None => default_root(|name| std::env::var_os(name).map(PathBuf::from))?,
        };
        let temporary = root.join(TMP);
        fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        let lock = open_lock(&root.join(LOCK))?;
        // What lies there while nobody else is at work was left by one that was killed.
        let alone = lock.try_lock().is_ok();
        sweep(&temporary, if alone { Duration::ZERO } else { STALE });
        lock.lock_shared().map_err(Error::io("lock", root.join(LOCK)))?;
        // Unless somebody cleaned in between.
        fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        Ok(Cache { root, lock: Arc::new(lock) })
    }

    /// Keeps other processes that use this cache from writing the same file, until the claim is
    /// dropped.
    pub fn claim(&self, file: &Path) -> Result<File> {
        let absolute =
            fs::canonicalize(file.parent().filter(|p| *p != "").unwrap_or(Path::new(".")));
        let folder = absolute.map_err(Error::io("find", file))?;
        let name = file.file_name().unwrap_or_default();
        let place = folder.join(name).into_os_string().into_encoded_bytes();
        let path = self.derived("claims", &key(&[&place]));
        let above = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(above).map_err(Error::io("create", above))?;
        let claim = open_lock(&path)?;
        match claim.try_lock() {
            Ok(()) => Ok(claim),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { what: file.display().to_string() }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &path)(e)),
        }
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the content with this SHA-256 lies, or would.
    pub fn blob(&self, sha256: &Digest) -> PathBuf {
        self.place("blobs", sha256)
    }

    /// Where the first part of a download of this content lies, or would.
    pub fn partial(&self, sha256: &Digest) -> PathBuf {
        self.blob(sha256).with_extension("part")
    }

    /// Where something made of other content lies, or would. `key` covers everything that it was
    /// made of and the version of what made it: see [`key`].
    pub fn derived(&self, kind: &str, key: &Digest) -> PathBuf {
        self.place(kind, key)
    }

    fn place(&self, kind: &str, key: &Digest) -> PathBuf {
        let name = hex(key);
        self.root.join(kind).join(&name[..2]).join(&name)
    }

    /// Starts a file that will appear at `target` when committed.
    pub fn create(&self, target: impl Into<PathBuf>) -> Result<Pending> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let target = target.into();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(TMP).join(format!("{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        Ok(Pending { file: file.map_err(Error::io("create", &path))?, path, target })
    }

    /// Keeps a small derived value, with a digest of its own.
    pub fn write_derived(&self, kind: &str, key: &Digest, bytes: &[u8]) -> Result<()> {
        let mut pending = self.create(self.derived(kind, key))?;
        pending.write(bytes)?;
        pending.write(&Sha256::digest(bytes))?;
        pending.commit()?;
        Ok(())
    }

    /// Reads what [`Cache::write_derived`] kept. A damaged value counts as absent.
    pub fn read_derived(&self, kind: &str, key: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.derived(kind, key);
        let mut bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", &path))?,
        };
        let Some(len) = bytes.len().checked_sub(32) else { return Ok(None) };
        if Sha256::digest(&bytes[..len])[..] != bytes[len..] {
            return Ok(None);
        }
        bytes.truncate(len);
        Ok(Some(bytes))
    }
}

fn default_root(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    // The specification says that a relative path there is to be ignored.
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("berth"))
        .ok_or_else(|| {
            Error::refused("there is no place for the cache: HOME is not set")
                .with_hint("set XDG_CACHE_HOME to a folder that can be written")
        })
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = File::options();
    let open = options.read(true).write(true).create(true).truncate(false).open(path);
    open.map_err(Error::io("create", path))
}

/// Takes away what killed processes left behind this long ago. Not being able to is no reason to
/// fail.
fn sweep(temporary: &Path, age: Duration) {
    let long_ago = SystemTime::now() - age;
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|m| m.modified());
        if modified.is_ok_and(|at| at <= long_ago) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file that is being written and is in nobody's way: it goes away unless committed.
#[derive(Debug)]
pub struct Pending {
    /// The open file.
    pub file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Pending {
    /// Where it will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Makes it appear, in place of what was there.
    pub fn commit(self) -> Result<PathBuf> {
        if let Some(folder) = self.target.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        fs::rename(&self.path, &self.target).map_err(Error::io("write", &self.target))?;
        Ok(self.target.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a commit there is nothing at this path any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Passes on what is read or written, and hashes it on the way.
pub struct Hashing<T> {
    inner: T,
    hasher: Sha256,
    count: u64,
}

impl<T> Hashing<T> {
    /// Nothing hashed yet.
    pub fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hasher: Sha256::new(), count: 0 }
    }

    /// What is passed to, the digest and the number of bytes.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finalize().into(), self.count)
    }
}

impl<R: io::Read> io::Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        (folder, cache)
    }

    #[test]
    fn hexadecimal_round_trips_and_refuses_the_rest() {
        let digest: Digest = std::array::from_fn(|i| i as u8 * 7);
        assert_eq!(parse_hex(&hex(&digest)), Some(digest));
        for bad in ["", "00", &"g0".repeat(32), &"0".repeat(63), &"0".repeat(66)] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_keep_their_parts_apart() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }

    #[test]
    fn the_environment_names_the_place() {
        let with = |xdg: &'static str, home: &'static str| {
            default_root(move |name| {
                let value = if name == "HOME" { home } else { xdg };
                (!value.is_empty()).then(|| value.into())
            })
            .ok()
        };
        assert_eq!(with("/x", "/h"), Some("/x/berth".into()));
        assert_eq!(with("relative", "/h"), Some("/h/.cache/berth".into()));
        assert_eq!(with("", ""), None);
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let (_folder, cache) = cache();
        let target = cache.derived("kind", &[1; 32]);
        let mut pending = cache.create(&target).unwrap();
        pending.write(b"half").unwrap();
        drop(pending);
        assert!(!target.exists());
        let mut pending = cache.create(&target).unwrap();
        pending.write(b"whole").unwrap();
        assert!(!target.exists());
        pending.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(fs::read_dir(cache.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_goes_when_nobody_is_at_work() {
        let (folder, cache) = cache();
        let left = cache.root().join(TMP).join("1-0");
        fs::write(&left, "half").unwrap();
        let other = Cache::open(Some(folder.path())).unwrap();
        assert!(left.exists(), "it may be in use");
        drop((cache, other));
        Cache::open(Some(folder.path())).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn one_file_is_claimed_once() {
        let (folder, cache) = cache();
        let path = folder.path().join("x");
        let claim = cache.claim(&path).unwrap();
        assert!(cache.claim(&folder.path().join("y")).is_ok());
        let refused = cache.claim(&folder.path().join("./x")).unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
        drop(claim);
        cache.claim(&path).unwrap();
    }

    #[test]
    fn a_damaged_value_counts_as_absent() {
        let (_folder, cache) = cache();
        let key = [2; 32];
        assert_eq!(cache.read_derived("kind", &key).unwrap(), None);
        cache.write_derived("kind", &key, b"value").unwrap();
        assert_eq!(cache.read_derived("kind", &key).unwrap().as_deref(), Some(&b"value"[..]));
        let path = cache.derived("kind", &key);
        for damaged in [&b"short"[..], &[0; 37]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.read_derived("kind", &key).unwrap(), None);
        }
    }

    #[test]
    fn an_error_names_the_path() {
        let (folder, _) = cache();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Cache::open(Some(&file)).unwrap_err();
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
}
