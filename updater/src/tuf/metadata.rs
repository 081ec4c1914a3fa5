//! The four kinds of metadata files (TUF specification 1.0, section 4), bounded and checked.

use super::Refusal;
use super::canonical::canonical;
use super::key::Key;
use contract::hex;
use jiff::Timestamp as Time;
use ring::digest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A metadata file before its signatures were looked at.
#[derive(Deserialize)]
pub struct Envelope {
    signed: Value,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// What every kind of metadata says first.
#[derive(Deserialize)]
struct Common {
    _type: String,
    spec_version: String,
    version: u64,
}

/// A kind of metadata.
pub trait Role: DeserializeOwned {
    /// What it calls itself.
    const TYPE: &'static str;
    /// Its version, from 1.
    fn version(&self) -> u64;
    /// From when on it counts no more.
    fn expires(&self) -> Time;

    /// Refuses what has expired at `now`: somebody may be holding back what came after it.
    fn check_expiry(&self, now: Time) -> Result<(), Refusal> {
        let expires = self.expires();
        if now < expires { Ok(()) } else { Err(Refusal::Expired { expires, now }) }
    }
}

macro_rules! role {
    ($kind:ty, $name:literal) => {
        impl Role for $kind {
            const TYPE: &'static str = $name;
            fn version(&self) -> u64 {
                self.version
            }
            fn expires(&self) -> Time {
                self.expires
            }
        }
    };
}
role!(Root, "root");
role!(Timestamp, "timestamp");
role!(Snapshot, "snapshot");
role!(Targets, "targets");

/// Whose signatures count for what.
#[derive(Clone, Debug, Deserialize)]
pub struct Root {
    version: u64,
    expires: Time,
    #[serde(default)]
    pub(super) consistent_snapshot: bool,
    keys: BTreeMap<String, Key>,
    roles: BTreeMap<String, Keys>,
}

/// Keys of a role, and how many of them have to sign.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Keys {
    pub(super) keyids: BTreeSet<String>,
    threshold: usize,
}

/// Which snapshot is the newest.
#[derive(Clone, Debug, Deserialize)]
pub struct Timestamp {
    version: u64,
    expires: Time,
    meta: BTreeMap<String, MetaFile>,
}

/// Which version of every other metadata file belongs to it.
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    version: u64,
    expires: Time,
    pub(super) meta: BTreeMap<String, MetaFile>,
}

/// What files there are, by size and digest.
#[derive(Clone, Debug, Deserialize)]
pub struct Targets {
    version: u64,
    expires: Time,
    pub(super) targets: BTreeMap<String, Target>,
    pub(super) delegations: Option<Delegations>,
}

/// A metadata file as another one describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct MetaFile {
    pub(super) version: u64,
    pub(super) length: Option<u64>,
    hashes: Option<BTreeMap<String, String>>,
}

/// A file that is no metadata.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// Bytes.
    pub length: u64,
    pub(super) hashes: BTreeMap<String, String>,
}

/// Who else may speak about targets.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Delegations {
    keys: BTreeMap<String, Key>,
    #[serde(default)]
    pub(super) roles: Vec<Delegation>,
}

/// Who may speak about the targets of these names.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Delegation {
    pub(super) name: String,
    #[serde(flatten)]
    keys: Keys,
    #[serde(default)]
    pub(super) terminating: bool,
    pub(super) paths: Option<Vec<String>>,
    pub(super) path_hash_prefixes: Option<Vec<String>>,
}

impl Envelope {
    /// Reads a file; nothing that it says may be believed yet.
    pub fn parse(bytes: &[u8]) -> Result<Envelope, Refusal> {
        serde_json::from_slice(bytes).map_err(Refusal::malformed)
    }

    /// What it says, if enough of `keys` signed it.
    fn verify<R: Role>(&self, all: &BTreeMap<String, Key>, keys: &Keys) -> Result<R, Refusal> {
        let message = canonical(&self.signed)
            .ok_or_else(|| Refusal::Malformed("a number that is not an integer".to_owned()))?;
        let mut named = BTreeSet::new();
        let mut signed = BTreeSet::new();
        for Signature { keyid, sig } in &self.signatures {
            if !named.insert(keyid) {
                return Err(Refusal::SignedTwice);
            }
            if !keys.keyids.contains(keyid) {
                continue;
            }
            let (Some(key), Some(sig)) = (all.get(keyid), hex::decode(sig)) else { continue };
            if key.verify(&message, &sig) {
                // By what the key is, so that one key under two names counts once.
                signed.extend(key.identity());
            }
        }
        if keys.threshold == 0 || signed.len() < keys.threshold {
            return Err(Refusal::Signatures { good: signed.len(), needed: keys.threshold });
        }
        self.read()
    }

    fn read<R: Role>(&self) -> Result<R, Refusal> {
        let common = Common::deserialize(&self.signed).map_err(Refusal::malformed)?;
        if common._type != R::TYPE {
            return Err(Refusal::Malformed(format!("it is of type `{}`", common._type)));
        }
        if !common.spec_version.starts_with("1.") {
            let version = &common.spec_version;
            return Err(Refusal::Malformed(format!("it follows version {version} of TUF")));
        }
        if common.version == 0 {
            return Err(Refusal::Malformed("version 0".to_owned()));
        }
        R::deserialize(&self.signed).map_err(Refusal::malformed)
    }
}

impl Root {
    /// A root that signs itself: what one starts with.
    pub fn trusted(bytes: &[u8]) -> Result<Root, Refusal> {
        let envelope = Envelope::parse(bytes)?;
        let root: Root = envelope.read()?;
        root.verify(&envelope)
    }

    /// A root that served before; it is not trusted.
    pub(super) fn former(bytes: &[u8]) -> Option<Root> {
        Envelope::parse(bytes).ok()?.read().ok()
    }

    /// The next root, signed by the keys of this one and by its own.
    pub fn successor(&self, bytes: &[u8]) -> Result<Root, Refusal> {
        let envelope = Envelope::parse(bytes)?;
        let next: Root = self.verify(&envelope)?;
        let next: Root = next.verify(&envelope)?;
        match self.version.checked_add(1) {
            Some(expected) if expected == next.version => Ok(next),
            _ => Err(Refusal::Version {
                found: next.version,
                expected: self.version.saturating_add(1),
            }),
        }
    }

    /// Metadata of one of the four top-level roles, if it is signed as this root demands.
    pub fn verify<R: Role>(&self, envelope: &Envelope) -> Result<R, Refusal> {
        let keys = self.roles.get(R::TYPE);
        let keys = keys.ok_or_else(|| Refusal::Malformed(format!("no keys for {}", R::TYPE)))?;
        envelope.verify(&self.keys, keys)
    }

    /// Whether timestamp or snapshot are signed with other keys than under `before`.
    pub fn rotates(&self, before: &Root) -> bool {
        let ids = |root: &Root, role| root.roles.get(role).map(|keys| keys.keyids.clone());
        [Timestamp::TYPE, Snapshot::TYPE].into_iter().any(|r| ids(self, r) != ids(before, r))
    }
}

impl Timestamp {
    /// The snapshot that it stands for.
    pub(super) fn snapshot(&self) -> Result<&MetaFile, Refusal> {
        let missing = || Refusal::Malformed("it names no snapshot".to_owned());
        self.meta.get("snapshot.json").ok_or_else(missing)
    }
}

impl Snapshot {
    /// The targets file that belongs to it.
    pub(super) fn targets(&self) -> Result<&MetaFile, Refusal> {
        let missing = || Refusal::Malformed("it names no targets".to_owned());
        self.meta.get("targets.json").ok_or_else(missing)
    }
}

impl MetaFile {
    /// Whether `bytes` are what it describes.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(Refusal::Digest);
        }
        self.hashes.as_ref().map_or(Ok(()), |hashes| check_digests(hashes, bytes))
    }
}

impl Target {
    /// Whether `bytes` are this target.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.length != bytes.len() as u64 {
            return Err(Refusal::Digest);
        }
        check_digests(&self.hashes, bytes)
    }

    /// The digest that its name in the repository starts with.
    pub(super) fn prefix(&self) -> Option<&str> {
        let digest = self.hashes.get("sha256").or_else(|| self.hashes.get("sha512"))?;
        hex::decode(digest).is_some().then_some(digest)
    }
}

impl Delegations {
    pub(super) fn verify(&self, to: &Delegation, envelope: &Envelope) -> Result<Targets, Refusal> {
        envelope.verify(&self.keys, &to.keys)
    }
}

/// All digests that are known here have to match, and there has to be one.
fn check_digests(hashes: &BTreeMap<String, String>, bytes: &[u8]) -> Result<(), Refusal> {
    let mut checked = false;
    for (name, expected) in hashes {
        let algorithm = match name.as_str() {
            "sha256" => &digest::SHA256,
            "sha512" => &digest::SHA512,
            _ => continue,
        };
        if hex::decode(expected).as_deref() != Some(digest::digest(algorithm, bytes).as_ref()) {
            return Err(Refusal::Digest);
        }
        checked = true;
    }
    if checked { Ok(()) } else { Err(Refusal::Digest) }
}
