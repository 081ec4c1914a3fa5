//! Publishing: a changed catalog, signed and written so that a host sees either all of it or none.

use super::catalog::Catalog;
use super::content::described;
use super::lifetime::{Lifetime, Lifetimes, is_due};
use super::repository::{HISTORY, Repository, require};
use super::roots::{KeyFolder, SPEC_VERSION, root_name};
use super::signing::{Role, sign};
use super::store::{Store, TIMESTAMP};
use crate::{Error, Result};
use contract::hex;
use contract::release::{
    CONTENT_DIR, MAX_LEN, METADATA_DIR, TARGETS_DIR, channel_target, release_target,
};
use jiff::Timestamp as Time;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::Path;
use tough::editor::signed::SignedRole;
use tough::schema::{
    Hashes, Metafile, Role as TufRole, Root, Snapshot, Target, Targets, Timestamp,
};
use tough::{ExpirationEnforcement, TargetName};

/// Targets by name.
type TargetMap = HashMap<TargetName, Target>;
/// Names and bytes of files.
type Files = Vec<(String, Vec<u8>)>;

/// A repository that is open for change, with the keys to sign it.
#[derive(Debug)]
pub struct Publisher<'a> {
    /// Its files.
    pub store: Store,
    /// What it offers. What is changed here is published by [`Publisher::publish`].
    pub catalog: Catalog,
    keys: &'a KeyFolder,
    /// The newest root metadata in the repository; 0 when there is none.
    root_version: u64,
    /// As it was read; `None` for a new repository.
    before: Option<Repository>,
}

impl<'a> Publisher<'a> {
    /// Opens the repository in `path`, or makes a new one where there is nothing.
    pub fn open_or_create(path: &Path, keys: &'a KeyFolder, now: Time) -> Result<Publisher<'a>> {
        let expires = keys.newest().expires;
        if expires <= now {
            let path = keys.path.display();
            return Err(Error::refused(format!("the root metadata in {path} expired {expires}"))
                .with_hint(format!("`berth keys rotate {path}` gives it a new date")));
        }
        let store = Store::open(path)?;
        if require(path).is_err() {
            let catalog = Catalog::default();
            return Ok(Publisher { store, catalog, keys, root_version: 0, before: None });
        }
        let root_version = root_version(&store, keys)?;
        let root = &keys.chain()[root_version as usize - 1];
        // What has expired is signed anew.
        let before = Repository::read(path, &root.bytes, ExpirationEnforcement::Unsafe)?;
        let catalog = before.catalog.clone();
        Ok(Publisher { store, catalog, keys, root_version, before: Some(before) })
    }

    /// Opens the repository in `path`, which has to be there.
    pub fn open(path: &Path, keys: &'a KeyFolder, now: Time) -> Result<Publisher<'a>> {
        require(path)?;
        Publisher::open_or_create(path, keys, now)
    }

    /// Fails when the keys are not there that a changed catalog has to be signed with. Asked before
    /// long work.
    pub fn require_keys(&self) -> Result<()> {
        let roles = [Role::Targets, Role::Snapshot, Role::Timestamp];
        roles.into_iter().try_for_each(|role| self.keys.require(self.keys.newest(), role))
    }

    /// Signs the catalog and lets the world see it. Files of `content/` that it refers to are
    /// there already.
    pub fn publish(&mut self, lifetimes: &Lifetimes, now: Time) -> Result<Vec<Role>> {
        let newest = self.keys.newest();
        let (map, files) = self.targets()?;
        let before = self.before.as_ref().map(|before| &before.metadata);
        let plan =
            plan(before, &map, newest, lifetimes, now, |role| self.keys.can_sign(newest, role));
        let mut signer = Signer { keys: self.keys, roots: self.roots(), seamless: true };

        let targets = match (plan.targets, before) {
            (false, Some(before)) => Metadata::Kept(before.snapshot().signed.meta.clone()),
            _ => {
                let version = next(before.map(|b| b.targets().signed.version));
                let mut targets =
                    Targets::new(SPEC_VERSION.to_owned(), version, lifetimes.targets.after(now)?);
                targets.targets = map;
                Metadata::New(signer.sign(Role::Targets, targets)?)
            }
        };
        let snapshot = match (plan.snapshot, before) {
            (false, Some(before)) => Metadata::Kept(before.timestamp().signed.meta.clone()),
            _ => {
                let version = next(before.map(|b| b.snapshot().signed.version));
                let expires = lifetimes.snapshot.after(now)?;
                let mut snapshot = Snapshot::new(SPEC_VERSION.to_owned(), version, expires);
                snapshot.meta = targets.described("targets.json");
                Metadata::New(signer.sign(Role::Snapshot, snapshot)?)
            }
        };
        let version = next(before.map(|b| b.timestamp().signed.version));
        let expires = lifetimes.timestamp.after(now)?;
        let mut timestamp = Timestamp::new(SPEC_VERSION.to_owned(), version, expires);
        timestamp.meta = snapshot.described("snapshot.json");
        let timestamp = signer.sign(Role::Timestamp, timestamp)?;

        // Everything is decided. Nothing refers to what is written now until the timestamp does.
        let seamless = signer.seamless && self.root_version > 0;
        for (name, bytes) in &files {
            self.store.write(TARGETS_DIR, name, bytes)?;
        }
        self.store.sync(TARGETS_DIR)?;
        self.store.sync(CONTENT_DIR)?;
        if !seamless {
            self.write_roots()?;
        }
        if let Metadata::New(targets) = &targets {
            self.write_metadata(&versioned(&targets.signed().signed, "targets"), targets.buffer())?;
        }
        if let Metadata::New(snapshot) = &snapshot {
            let name = versioned(&snapshot.signed().signed, "snapshot");
            self.write_metadata(&name, snapshot.buffer())?;
        }
        self.store.sync(METADATA_DIR)?;
        self.store.keep();
        self.write_metadata(TIMESTAMP, timestamp.buffer())?;
        self.store.sync(METADATA_DIR)?;
        if seamless {
            self.write_roots()?;
            self.store.sync(METADATA_DIR)?;
        }
        let signed = [(plan.targets, Role::Targets), (plan.snapshot, Role::Snapshot)];
        let signed = signed.into_iter().filter(|(signed, _)| *signed).map(|(_, role)| role);
        Ok(signed.chain([Role::Timestamp]).collect())
    }

    /// The root metadata that hosts may go by while this is published, the newest last.
    fn roots(&self) -> Vec<&'a Root> {
        let from = match self.root_version {
            0 => self.keys.chain().len() - 1,
            version => version as usize - 1,
        };
        self.keys.chain()[from..].iter().map(|file| &file.root).collect()
    }

    /// Root metadata that the repository does not have yet, in the order in which hosts walk it.
    fn write_roots(&self) -> Result<()> {
        for file in &self.keys.chain()[self.root_version as usize..] {
            self.write_metadata(&root_name(file.root.version.get()), &file.bytes)?;
            self.store.sync(METADATA_DIR)?;
        }
        Ok(())
    }

    fn write_metadata(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.store.write(METADATA_DIR, name, bytes)
    }

    /// What the catalog is as targets, and the files among them that are new.
    fn targets(&self) -> Result<(TargetMap, Files)> {
        let mut map = TargetMap::new();
        let mut files = Vec::new();
        let old = self.before.as_ref().map(|before| (&before.metadata, &before.catalog));
        let kept = |name: &TargetName| {
            let (metadata, _) = old?;
            metadata.targets().signed.targets.get(name).cloned()
        };
        for release in &self.catalog.releases {
            let name = target_name(&release_target(&release.version))?;
            let target = match kept(&name) {
                Some(target) => target,
                None => new_target(&name, release, HashMap::new(), &mut files)?,
            };
            map.insert(name, target);
        }
        for (channel, line) in &self.catalog.channels {
            let name = target_name(&channel_target(channel))?;
            let unchanged = old.is_some_and(|(_, old)| old.channels.get(channel) == Some(line));
            let target = match kept(&name).filter(|_| unchanged) {
                Some(target) => target,
                None => {
                    let history = [(HISTORY.to_owned(), line.history.clone().into())];
                    new_target(&name, &line.channel, history.into(), &mut files)?
                }
            };
            map.insert(name, target);
        }
        Ok((map, files))
    }
}

/// The newest root metadata in the repository. All of it has to be of these keys.
fn root_version(store: &Store, keys: &KeyFolder) -> Result<u64> {
    let (path, folder) = (store.root().display(), keys.path.display());
    let mut version = 0;
    loop {
        let file = store.root().join(METADATA_DIR).join(root_name(version + 1));
        if !file.exists() {
            break;
        }
        let bytes = std::fs::read(&file).map_err(Error::io("read", &file))?;
        match keys.chain().get(version as usize) {
            Some(ours) if ours.bytes == bytes => version += 1,
            None if version > 0 => {
                let what = format!(
                    "{path} has version {} of the root metadata, {folder} only version {version}",
                    version + 1
                );
                return Err(
                    Error::refused(what).with_hint(format!("copy {} to {folder}", file.display()))
                );
            }
            _ => {
                let what = format!("{path} is of other keys than those in {folder}");
                return Err(Error::refused(what).with_hint("give its own keys with --keys"));
            }
        }
    }
    match version {
        0 => Err(Error::corrupt(format!("{path}: {METADATA_DIR}/{} is missing", root_name(1)))),
        version => Ok(version),
    }
}

/// What has to be signed. The timestamp always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    targets: bool,
    snapshot: bool,
}

fn plan(
    before: Option<&tough::Repository>,
    map: &TargetMap,
    root: &Root,
    lifetimes: &Lifetimes,
    now: Time,
    can_sign: impl Fn(Role) -> bool,
) -> Plan {
    let Some(before) = before else { return Plan { targets: true, snapshot: true } };
    // What is not urgent waits for somebody with the key.
    let due = |role: Role, expires: Time, lifetime: Lifetime| {
        is_due(expires, lifetime, now) && (expires <= now || can_sign(role))
    };
    let (targets, snapshot) = (before.targets(), before.snapshot());
    let new_targets = targets.signed.targets != *map
        || root.verify_role(targets).is_err()
        || due(Role::Targets, targets.signed.expires, lifetimes.targets);
    let new_snapshot = new_targets
        || root.verify_role(snapshot).is_err()
        || due(Role::Snapshot, snapshot.signed.expires, lifetimes.snapshot);
    Plan { targets: new_targets, snapshot: new_snapshot }
}

/// Signs for every root metadata that a host may go by.
struct Signer<'a> {
    keys: &'a KeyFolder,
    roots: Vec<&'a Root>,
    /// Whether the keys were there to sign for all of them.
    seamless: bool,
}

impl Signer<'_> {
    fn sign<T>(&mut self, role: Role, content: T) -> Result<SignedRole<T>>
    where
        T: TufRole + serde::Serialize + Clone,
    {
        let Some((newest, older)) = self.roots.split_last() else {
            return Err(Error::refused("there is no root metadata to sign by"));
        };
        self.keys.require(newest, role)?;
        let mut signed = sign(content.clone(), newest, &self.keys.keys)?;
        for root in older {
            if !self.keys.can_sign(root, role) {
                self.seamless = false;
                continue;
            }
            let by_older = sign(content.clone(), root, &self.keys.keys)?;
            signed = signed
                .add_old_signatures(by_older.signed().signatures.clone())
                .map_err(|e| Error::corrupt(format!("sign {role}: {e}")))?;
        }
        match *signed.length() > role.limit() {
            false => Ok(signed),
            true => Err(too_large(&format!("the {role} metadata"), *signed.length(), role.limit())),
        }
    }
}

/// Metadata that is new, or how the old one is described by what refers to it.
enum Metadata<T> {
    New(SignedRole<T>),
    Kept(HashMap<String, Metafile>),
}

impl<T: TufRole + serde::Serialize> Metadata<T> {
    fn described(&self, name: &str) -> HashMap<String, Metafile> {
        match self {
            Metadata::Kept(meta) => meta.clone(),
            Metadata::New(signed) => {
                let file = Metafile {
                    length: Some(*signed.length()),
                    hashes: Some(hashes(signed.sha256().to_vec())),
                    version: signed.signed().signed.version(),
                    _extra: HashMap::new(),
                };
                HashMap::from([(name.to_owned(), file)])
            }
        }
    }
}

fn too_large(what: &str, len: u64, most: u64) -> Error {
    Error::refused(format!("{what} would have {len} bytes, and hosts read at most {most}"))
        .with_hint("`berth release gc` removes old releases")
}

fn hashes(sha256: Vec<u8>) -> Hashes {
    Hashes { sha256: sha256.into(), _extra: HashMap::new() }
}

fn next(version: Option<NonZeroU64>) -> NonZeroU64 {
    version.map_or(NonZeroU64::MIN, |version| version.saturating_add(1))
}

fn versioned(role: &impl TufRole, name: &str) -> String {
    format!("{}.{name}.json", role.version())
}

fn target_name(name: &str) -> Result<TargetName> {
    TargetName::new(name).map_err(|e| Error::refused(format!("{name}: {e}")))
}

/// The name of a target's file: that of consistent snapshots.
pub fn target_file(name: &TargetName, target: &Target) -> String {
    format!("{}.{}", hex::encode(&target.hashes.sha256), name.raw())
}

fn new_target(
    name: &TargetName,
    content: &impl serde::Serialize,
    custom: HashMap<String, serde_json::Value>,
    files: &mut Files,
) -> Result<Target> {
    let mut bytes = serde_json::to_vec_pretty(content)
        .map_err(|e| Error::corrupt(format!("{} as JSON: {e}", name.raw())))?;
    bytes.push(b'\n');
    if bytes.len() as u64 > MAX_LEN {
        return Err(too_large(name.raw(), bytes.len() as u64, MAX_LEN));
    }
    let file = described(&bytes);
    let sha256 = hex::decode(&file.sha256).unwrap_or_default();
    let target =
        Target { length: file.size, hashes: hashes(sha256), custom, _extra: HashMap::new() };
    files.push((target_file(name, &target), bytes));
    Ok(target)
}
