//! A folder of keys: private keys, and the chain of root metadata that says which keys count.
//!
//! | file | content |
//! |---|---|
//! | `ROLE-ID.pem` | a private key, found by its content: the name serves people |
//! | `retired/ROLE-ID.pem` | one that was rotated out, of use for one more publication |
//! | `N.root.json` | version N of the root metadata |
//! | `root.json` | a copy of the newest, for image definitions |

use super::lifetime::Lifetime;
use super::signing::{KeyId, Role, SigningKey, sign};
use super::store;
use crate::new_file::NewFile;
use crate::{Error, Result};
use contract::hex;
use contract::release::limits;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tough::schema::{RoleKeys, Root, Signed};

/// Version of the TUF specification that metadata is written for.
pub const SPEC_VERSION: &str = "1.0.0";
/// Most keys of a role.
const MAX_KEYS: u64 = 16;
/// Keys that were rotated out.
const RETIRED: &str = "retired";
/// The newest root metadata, for people.
const NEWEST: &str = "root.json";

/// What `berth keys init` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct NewKeys {
    /// How many root keys to make.
    pub root_keys: u64,
    /// How many of them have to sign.
    pub root_threshold: u64,
    /// How long the root metadata is good for.
    pub expires: Lifetime,
}

/// A version of the root metadata.
#[derive(Clone, Debug)]
pub struct RootFile {
    /// The file as it is.
    pub bytes: Vec<u8>,
    /// What it says.
    pub root: Root,
}

impl RootFile {
    /// Reads root metadata that is signed by its own keys.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<RootFile> {
        let wrong = |why: String| Error::corrupt(format!("{}: {why}", path.display()));
        let signed: Signed<Root> = serde_json::from_slice(&bytes)
            .map_err(|e| wrong(format!("it is not TUF root metadata: {e}")))?;
        signed.signed.verify_role(&signed).map_err(|e| wrong(format!("signatures: {e}")))?;
        Ok(RootFile { bytes, root: signed.signed })
    }

    /// Reads the file in `path`.
    pub fn read(path: &Path) -> Result<RootFile> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(limits::ROOT + 1).read_to_end(&mut bytes))
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > limits::ROOT {
            return Err(Error::corrupt(format!("{}: too large for metadata", path.display())));
        }
        RootFile::parse(path, bytes)
    }

    fn follows(&self, older: &RootFile) -> Result<(), String> {
        let signed: Signed<Root> =
            serde_json::from_slice(&self.bytes).map_err(|e| e.to_string())?;
        match self.root.version.get() == older.root.version.get() + 1 {
            false => Err(format!("it is version {}", self.root.version)),
            true => older.root.verify_role(&signed).map_err(|e| {
                format!("the keys of version {} did not sign it: {e}", older.root.version)
            }),
        }
    }
}

/// The name of a version of the root metadata.
pub fn root_name(version: u64) -> String {
    format!("{version}.root.json")
}

/// An open folder of keys.
#[derive(Debug)]
pub struct KeyFolder {
    /// The folder.
    pub path: PathBuf,
    /// All versions of the root metadata, from 1.
    chain: Vec<RootFile>,
    /// Private keys that are at hand.
    pub keys: Vec<SigningKey>,
}

impl KeyFolder {
    /// Makes keys for all roles in `path`, which is empty or does not exist.
    pub fn init(path: &Path, new: &NewKeys, now: Timestamp) -> Result<KeyFolder> {
        let NewKeys { root_keys, root_threshold, expires } = *new;
        if !(1..=MAX_KEYS).contains(&root_keys) || !(1..=root_keys).contains(&root_threshold) {
            return Err(Error::refused(format!(
                "{root_threshold} of {root_keys} root keys cannot be asked for: \
                 at most {MAX_KEYS} keys, and no more signatures than keys"
            )));
        }
        if store::names(path)?.iter().any(|name| name != ".lock") {
            let what = format!("{} is not empty: it may hold keys", path.display());
            return Err(Error::refused(what).with_hint("choose a folder that does not exist yet"));
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))?;
        let _lock = store::lock(path)?;
        let mut root = Root {
            spec_version: SPEC_VERSION.to_owned(),
            consistent_snapshot: true,
            version: NonZeroU64::MIN,
            expires: expires.after(now)?,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        let mut folder = KeyFolder { path: path.to_owned(), chain: Vec::new(), keys: Vec::new() };
        for role in Role::ALL {
            let (keys, threshold) = match role {
                Role::Root => (root_keys, root_threshold),
                _ => (1, 1),
            };
            folder.replace_keys(&mut root, role, keys, threshold)?;
        }
        folder.append(root)?;
        Ok(folder)
    }

    /// Opens `path` and checks the chain.
    pub fn open(path: &Path) -> Result<KeyFolder> {
        let missing = |why: &str| {
            Error::refused(format!("{} is not a folder of keys: {why}", path.display()))
                .with_hint("`berth keys init` makes one")
        };
        match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(missing("there is no such folder"));
            }
            Err(e) => return Err(Error::io("open", path)(e)),
            Ok(metadata) if !metadata.is_dir() => return Err(missing("it is no folder")),
            Ok(_) => {}
        }
        let mut chain: Vec<RootFile> = Vec::new();
        loop {
            let file = path.join(root_name(chain.len() as u64 + 1));
            match RootFile::read(&file) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
                Ok(next) => {
                    if let Some(last) = chain.last() {
                        let wrong = |why| Error::corrupt(format!("{}: {why}", file.display()));
                        next.follows(last).map_err(wrong)?;
                    }
                    chain.push(next);
                }
            }
        }
        if chain.is_empty() {
            return Err(missing(&format!("there is no {} in it", root_name(1))));
        }
        let mut keys = Vec::new();
        for folder in [path.to_owned(), path.join(RETIRED)] {
            for name in store::names(&folder)?.iter().filter(|name| name.ends_with(".pem")) {
                keys.push(SigningKey::read(&folder.join(name))?);
            }
        }
        Ok(KeyFolder { path: path.to_owned(), chain, keys })
    }

    /// All versions of the root metadata, from 1.
    pub fn chain(&self) -> &[RootFile] {
        &self.chain
    }

    /// What the newest root metadata says.
    pub fn newest(&self) -> &Root {
        // Neither `init` nor `open` leave the chain empty.
        &self.chain[self.chain.len() - 1].root
    }

    /// Gives `roles` new keys and the root metadata a new date. Both the old and the new root keys
    /// sign.
    pub fn rotate(&mut self, roles: &[Role], expires: Lifetime, now: Timestamp) -> Result<()> {
        let _lock = store::lock(&self.path)?;
        self.require(self.newest(), Role::Root)?;
        let mut root = self.newest().clone();
        let retired: Vec<KeyId> = Role::ALL
            .into_iter()
            .filter(|role| roles.contains(role))
            .flat_map(|role| role.of(self.newest()).0.to_vec())
            .collect();
        root.version = root.version.saturating_add(1);
        root.expires = expires.after(now)?;
        for role in Role::ALL.into_iter().filter(|role| roles.contains(role)) {
            let (keys, threshold) = role.of(self.newest());
            self.replace_keys(&mut root, role, keys.len() as u64, threshold)?;
        }
        self.append(root)?;
        self.retire(&retired)
    }

    fn replace_keys(&mut self, root: &mut Root, role: Role, keys: u64, needed: u64) -> Result<()> {
        let mut keyids = Vec::new();
        for _ in 0..keys {
            let key = SigningKey::generate(&self.path, role)?;
            root.keys.insert(key.id.clone(), key.key.clone());
            keyids.push(key.id.clone());
            self.keys.push(key);
        }
        let threshold = NonZeroU64::new(needed).unwrap_or(NonZeroU64::MIN);
        root.roles.insert(role.tuf(), RoleKeys { keyids, threshold, _extra: HashMap::new() });
        let used: Vec<KeyId> = root.roles.values().flat_map(|role| role.keyids.clone()).collect();
        root.keys.retain(|id, _| used.contains(id));
        Ok(())
    }

    /// Signs the next version and writes it. Keys were written before it.
    fn append(&mut self, root: Root) -> Result<()> {
        let mut signed = sign(root.clone(), &root, &self.keys)?;
        if let Some(last) = self.chain.last() {
            let by_old = sign(root.clone(), &last.root, &self.keys)?;
            signed = signed
                .add_old_signatures(by_old.signed().signatures.clone())
                .map_err(|e| Error::corrupt(format!("sign the root: {e}")))?;
        }
        let path = self.path.join(root_name(root.version.get()));
        let next = RootFile::parse(&path, signed.buffer().clone())?;
        if let Some(last) = self.chain.last() {
            let wrong = |why| Error::corrupt(format!("{}: {why}", path.display()));
            next.follows(last).map_err(wrong)?;
        }
        for path in [path, self.path.join(NEWEST)] {
            let new = NewFile::create(&path)?;
            io::Write::write_all(&mut new.file(), &next.bytes)
                .and_then(|()| new.file().sync_all())
                .map_err(Error::io("write", &path))?;
            new.finish()?;
            File::open(&self.path).and_then(|f| f.sync_all()).map_err(Error::io("write", &path))?;
        }
        self.chain.push(next);
        Ok(())
    }

    /// Puts keys aside that do not count any more.
    fn retire(&mut self, ids: &[KeyId]) -> Result<()> {
        let folder = self.path.join(RETIRED);
        for key in self.keys.iter_mut().filter(|key| ids.contains(&key.id)) {
            if key.path.parent() != Some(&folder)
                && let Some(name) = key.path.file_name()
            {
                let to = folder.join(name);
                let mut builder = DirBuilder::new();
                builder
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .and_then(|()| fs::rename(&key.path, &to))
                    .map_err(Error::io("move", &key.path))?;
                key.path = to;
            }
        }
        Ok(())
    }

    /// How many keys of `role` in `root` are at hand.
    pub fn at_hand(&self, root: &Root, role: Role) -> u64 {
        let ids = role.of(root).0;
        ids.iter().filter(|id| self.keys.iter().any(|key| key.id == **id)).count() as u64
    }

    /// Whether enough keys are at hand to sign as `role` of `root`.
    pub fn can_sign(&self, root: &Root, role: Role) -> bool {
        self.at_hand(root, role) >= role.of(root).1
    }

    /// Fails when too few keys are at hand to sign as `role` of `root`.
    pub fn require(&self, root: &Root, role: Role) -> Result<()> {
        if self.can_sign(root, role) {
            return Ok(());
        }
        let (ids, needed) = role.of(root);
        let missing = ids.iter().filter(|id| self.keys.iter().all(|key| key.id != **id));
        let names: Vec<String> =
            missing.map(|id| format!("{role}-{}.pem", super::signing::short(id))).collect();
        let what = format!(
            "{} holds {} of the {needed} private keys that have to sign as {role}",
            self.path.display(),
            self.at_hand(root, role),
        );
        Err(Error::refused(what).with_hint(format!("put {} there", names.join(" or "))))
    }

    /// What is in the folder.
    pub fn describe(&self) -> Description {
        let root = self.newest();
        let keys = |role: Role| {
            let ids = role.of(root).0.iter();
            let described = ids.map(|id| KeyDescription {
                id: hex::encode(id),
                file: self.keys.iter().find(|key| key.id == *id).map(|key| key.path.clone()),
            });
            described.collect()
        };
        Description {
            version: root.version.get(),
            expires: root.expires,
            roles: Role::ALL
                .map(|role| RoleDescription { role, threshold: role.of(root).1, keys: keys(role) })
                .into(),
        }
    }
}

/// What `berth keys show` tells.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Version of the root metadata.
    pub version: u64,
    /// When it expires.
    pub expires: Timestamp,
    /// All roles.
    pub roles: Vec<RoleDescription>,
}

/// A role and its keys.
#[derive(Clone, Debug, Serialize)]
pub struct RoleDescription {
    /// Its name.
    pub role: Role,
    /// How many of its keys have to sign.
    pub threshold: u64,
    /// The keys.
    pub keys: Vec<KeyDescription>,
}

/// A key that counts.
#[derive(Clone, Debug, Serialize)]
pub struct KeyDescription {
    /// Its identity.
    pub id: String,
    /// Where its private half is, if it is here.
    pub file: Option<PathBuf>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "root metadata version {}, expires {}", self.version, self.expires)?;
        for RoleDescription { role, threshold, keys } in &self.roles {
            writeln!(f, "{role}: {threshold} of {}", keys.len())?;
            for key in keys {
                match &key.file {
                    Some(file) => writeln!(f, "  {} {}", key.id, file.display())?,
                    None => writeln!(f, "  {} not here", key.id)?,
                }
            }
        }
        Ok(())
    }
}
