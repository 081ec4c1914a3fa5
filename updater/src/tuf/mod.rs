//! A client of The Update Framework (TUF), specification 1.0, section 5: which files of a
//! repository are what its owner published last.
//!
//! An attacker who owns the network or the web server, and even one who stole the online keys for a
//! while, cannot make a host take other files, older files, or files that never belonged together;
//! and cannot keep it from noticing for longer than metadata is valid.
//!
//! Synchronous, without threads, and bounded: see [`contract::release::limits`].

mod canonical;
mod key;
mod metadata;
mod search;
mod store;

pub use metadata::Target;
pub use store::Store;

use crate::source::SourceError;
use contract::release::limits;
use jiff::Timestamp as Time;
use metadata::{Envelope, MetaFile, Role, Root, Snapshot, Targets, Timestamp};
use std::path::PathBuf;
use store::{file_name, root_name};

/// New roots in one refresh; the next refresh goes on from there.
const MAX_ROOTS: usize = 256;
/// Delegated roles that the search for one target may visit.
const MAX_DELEGATIONS: usize = 32;

/// Why a refresh or a search failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be had.
    #[error(transparent)]
    Fetch(#[from] SourceError),
    /// A file was had, and is not to be trusted.
    #[error("refuse {file}")]
    Refused {
        /// The file.
        file: String,
        /// The reason.
        #[source]
        why: Refusal,
    },
    /// The memory of earlier refreshes cannot be written.
    #[error("{what} {path}")]
    Store {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Why a file is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such metadata.
    #[error("not what metadata of this kind looks like: {0}")]
    Malformed(String),
    /// Not signed by those who may.
    #[error("{good} of the {needed} signatures that it needs are right")]
    Signatures {
        /// Signatures by different keys that may sign it.
        good: usize,
        /// How many it needs.
        needed: usize,
    },
    /// One key is said to have signed twice.
    #[error("one key is listed twice among its signatures")]
    SignedTwice,
    /// Older than what was seen before.
    #[error("version {found} of {what}, after version {seen} was seen")]
    Rollback {
        /// The metadata that is older.
        what: String,
        /// Its version now.
        found: u64,
        /// The highest version that was trusted.
        seen: u64,
    },
    /// Metadata has vanished from a snapshot.
    #[error("it no longer lists {0}")]
    Removed(String),
    /// Not the version that it was announced as.
    #[error("it is version {found} instead of {expected}")]
    Version {
        /// What it says.
        found: u64,
        /// What was announced.
        expected: u64,
    },
    /// Not the bytes that were announced.
    #[error("its size or digest is not the one that was signed")]
    Digest,
    /// Valid no longer.
    #[error("it expired at {expires}, and it is {now} by the clock")]
    Expired {
        /// Since when.
        expires: Time,
        /// The clock.
        now: Time,
    },
    /// Not there.
    #[error("the repository does not have it")]
    Missing,
    /// A delegated role that must not be called that.
    #[error("a delegated role cannot have this name")]
    RoleName,
}

impl Refusal {
    fn malformed(error: serde_json::Error) -> Refusal {
        Refusal::Malformed(error.to_string())
    }

    fn of(self, file: impl Into<String>) -> Error {
        Error::Refused { file: file.into(), why: self }
    }
}

impl From<Error> for SourceError {
    fn from(error: Error) -> SourceError {
        match error {
            Error::Fetch(error) => error,
            Error::Refused { file, why } => SourceError::Refused(format!("{file}: {why}")),
            Error::Store { what, path, source } => {
                SourceError::State { what: format!("{what} {}", path.display()), source }
            }
        }
    }
}

/// Gets files of one folder of a repository.
pub trait Fetch {
    /// The file `name`, whose parts are already encoded for a URL; `None` when there is none. More
    /// than `limit` bytes are an error.
    fn get(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError>;
}

/// The newest metadata of a repository, verified.
#[derive(Debug)]
pub struct Trusted {
    now: Time,
    root: Root,
    snapshot: Snapshot,
    targets: Targets,
}

impl Trusted {
    /// When the root expires, and nothing is taken from the repository any more.
    pub fn root_expires(&self) -> Time {
        self.root.expires()
    }
}

/// Brings `store` up to date with the repository. `shipped_root` is the root that is trusted
/// without further proof; `now` is when the refresh began.
pub fn refresh(
    store: &Store,
    shipped_root: &[u8],
    metadata: &mut dyn Fetch,
    now: Time,
) -> Result<Trusted, Error> {
    let root = update_root(store, shipped_root, metadata)?;
    root.check_expiry(now).map_err(|why| why.of(file_name(Root::TYPE)))?;
    let mut refresh = Refresh { store, metadata, root: &root, now };
    let timestamp = refresh.timestamp()?;
    let snapshot = refresh.snapshot(&timestamp)?;
    let targets = refresh.targets(&snapshot)?;
    Ok(Trusted { now, root, snapshot, targets })
}

/// 5.2 and 5.3: follows the chain of roots from the one in the image to the newest.
fn update_root(
    store: &Store,
    shipped_root: &[u8],
    metadata: &mut dyn Fetch,
) -> Result<Root, Error> {
    let mut root =
        Root::trusted(shipped_root).map_err(|why| why.of("the trusted root of this image"))?;
    let mut bytes = shipped_root.to_vec();
    while let Some(stored) = store.read(&root_name(root.version().saturating_add(1)))
        && let Ok(next) = root.successor(&stored)
    {
        (root, bytes) = (next, stored);
    }
    // Another root may have served last: a new image brings a newer one; an older image, or a
    // stored root that is lost, begins before it.
    let former = store.read(&file_name(Root::TYPE)).and_then(|bytes| Root::former(&bytes));
    let served = former.as_ref().map_or(0, Root::version);
    if root.version() > served && former.is_some_and(|former| root.rotates(&former)) {
        store.forget()?;
    }
    if root.version() >= served {
        store.write(&file_name(Root::TYPE), &bytes)?;
    }

    for _ in 0..MAX_ROOTS {
        let version = root.version().saturating_add(1);
        let name = format!("{version}.{}", file_name(Root::TYPE));
        let Some(next_bytes) = metadata.get(&name, limits::ROOT)? else { break };
        let next = root.successor(&next_bytes).map_err(|why| why.of(name))?;
        if version > served && next.rotates(&root) {
            store.forget()?;
        }
        (root, bytes) = (next, next_bytes);
        store.write(&root_name(version), &bytes)?;
        if version >= served {
            store.write(&file_name(Root::TYPE), &bytes)?;
        }
    }
    store.write(&file_name(Root::TYPE), &bytes)?;
    Ok(root)
}

/// A refresh once the root is known.
struct Refresh<'a> {
    store: &'a Store,
    metadata: &'a mut dyn Fetch,
    root: &'a Root,
    now: Time,
}

impl Refresh<'_> {
    /// 5.4.
    fn timestamp(&mut self) -> Result<Timestamp, Error> {
        let name = file_name(Timestamp::TYPE);
        let bytes = self.metadata.get(&name, limits::TIMESTAMP)?;
        let bytes = bytes.ok_or_else(|| Refusal::Missing.of(name.as_str()))?;
        let timestamp = self.accept_timestamp(&bytes).map_err(|why| why.of(name.as_str()))?;
        let Some(timestamp) = timestamp else {
            let stored = self.store.trusted::<Timestamp>(self.root);
            let (stored, _) = stored.ok_or_else(|| Refusal::Missing.of(name.as_str()))?;
            stored.check_expiry(self.now).map_err(|why| why.of(name))?;
            return Ok(stored);
        };
        self.store.write(&name, &bytes)?;
        Ok(timestamp)
    }

    /// The new timestamp; `None` when it is the one that was trusted already.
    fn accept_timestamp(&self, bytes: &[u8]) -> Result<Option<Timestamp>, Refusal> {
        let new: Timestamp = self.root.verify(&Envelope::parse(bytes)?)?;
        let snapshot = new.snapshot()?;
        if let Some((seen, _)) = self.store.trusted::<Timestamp>(self.root) {
            not_older(Timestamp::TYPE, new.version(), seen.version())?;
            if new.version() == seen.version() {
                return Ok(None);
            }
            not_older(Snapshot::TYPE, snapshot.version, seen.snapshot()?.version)?;
        }
        if let Some((seen, _)) = self.store.trusted::<Snapshot>(self.root) {
            not_older(Snapshot::TYPE, snapshot.version, seen.version())?;
        }
        new.check_expiry(self.now)?;
        Ok(Some(new))
    }

    /// 5.5.
    fn snapshot(&mut self, timestamp: &Timestamp) -> Result<Snapshot, Error> {
        let meta = timestamp.snapshot().map_err(|why| why.of(file_name(Timestamp::TYPE)))?;
        let seen = self.store.trusted::<Snapshot>(self.root).map(|(snapshot, _)| snapshot);
        let targets = self.store.trusted::<Targets>(self.root).map(|(targets, _)| targets);
        self.role(meta, limits::SNAPSHOT, |new: &Snapshot| {
            for (name, seen) in seen.iter().flat_map(|seen| &seen.meta) {
                let new = new.meta.get(name).ok_or_else(|| Refusal::Removed(name.clone()))?;
                not_older(name, new.version, seen.version)?;
            }
            let seen = targets.as_ref().map_or(0, Role::version);
            not_older(Targets::TYPE, new.targets()?.version, seen)
        })
    }

    /// 5.6.
    fn targets(&mut self, snapshot: &Snapshot) -> Result<Targets, Error> {
        let meta = snapshot.targets().map_err(|why| why.of(file_name(Snapshot::TYPE)))?;
        self.role(meta, limits::TARGETS, |_| Ok(()))
    }

    /// The metadata of the role that `meta` describes: what is stored, or else what the repository
    /// has, if `check` agrees.
    fn role<R: Role>(
        &mut self,
        meta: &MetaFile,
        limit: u64,
        check: impl FnOnce(&R) -> Result<(), Refusal>,
    ) -> Result<R, Error> {
        let name = file_name(R::TYPE);
        if let Some((stored, bytes)) = self.store.trusted::<R>(self.root)
            && stored.version() == meta.version
            && meta.check(&bytes).is_ok()
        {
            stored.check_expiry(self.now).map_err(|why| why.of(name))?;
            return Ok(stored);
        }
        let remote = versioned(self.root, meta.version, &name);
        let bytes = fetch(self.metadata, &remote, meta, limit)?;
        let verify = || {
            meta.check(&bytes)?;
            let new: R = self.root.verify(&Envelope::parse(&bytes)?)?;
            same_version(new.version(), meta.version)?;
            check(&new)?;
            new.check_expiry(self.now)?;
            Ok(new)
        };
        let new = verify().map_err(|why: Refusal| why.of(remote))?;
        self.store.write(&name, &bytes)?;
        Ok(new)
    }
}

/// The name in the repository of a metadata file that lies in the store as `name`.
fn versioned(root: &Root, version: u64, name: &str) -> String {
    if root.consistent_snapshot { format!("{version}.{name}") } else { name.to_owned() }
}

fn fetch(
    metadata: &mut dyn Fetch,
    name: &str,
    meta: &MetaFile,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    let limit = meta.length.map_or(limit, |length| length.min(limit));
    metadata.get(name, limit)?.ok_or_else(|| Refusal::Missing.of(name))
}

fn not_older(what: &str, found: u64, seen: u64) -> Result<(), Refusal> {
    if found >= seen {
        return Ok(());
    }
    Err(Refusal::Rollback { what: what.to_owned(), found, seen })
}

fn same_version(found: u64, expected: u64) -> Result<(), Refusal> {
    if found == expected { Ok(()) } else { Err(Refusal::Version { found, expected }) }
}
