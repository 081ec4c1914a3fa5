//! Signing keys: Ed25519, one PKCS#8 PEM file each, as `openssl genpkey -algorithm ed25519` writes
//! them too.

use crate::{Error, Result};
use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use contract::hex;
use contract::release::{ROOT_WARNING, limits};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{KeyHolder, RoleType, Root};
use tough::sign::Sign;

/// Most bytes of a key file.
const MAX_LEN: u64 = 16 << 10;
/// What PEM calls a PKCS#8 private key.
const TAG: &str = "PRIVATE KEY";

/// Identity of a key.
pub type KeyId = Decoded<Hex>;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Which keys count.
    Root,
    /// Which releases and channels there are.
    Targets,
    /// Which list of them counts.
    Snapshot,
    /// That it still counts.
    Timestamp,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp];

    /// As in metadata and file names.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Targets => "targets",
            Role::Snapshot => "snapshot",
            Role::Timestamp => "timestamp",
        }
    }

    /// Most bytes that hosts read of it.
    pub fn limit(self) -> u64 {
        match self {
            Role::Root => limits::ROOT,
            Role::Targets => limits::TARGETS,
            Role::Snapshot => limits::SNAPSHOT,
            Role::Timestamp => limits::TIMESTAMP,
        }
    }

    /// How long before it expires people are told, in seconds: what lives for years, long enough to
    /// find its key; what a timer signs, when that should have happened.
    pub fn warning(self) -> u64 {
        match self {
            Role::Root | Role::Targets => ROOT_WARNING,
            Role::Snapshot => 14 * 24 * 3600,
            Role::Timestamp => 7 * 24 * 3600,
        }
    }

    pub(super) fn tuf(self) -> RoleType {
        match self {
            Role::Root => RoleType::Root,
            Role::Targets => RoleType::Targets,
            Role::Snapshot => RoleType::Snapshot,
            Role::Timestamp => RoleType::Timestamp,
        }
    }

    /// Ids of the keys that count for it, and how many of them have to sign.
    pub(super) fn of(self, root: &Root) -> (&[KeyId], u64) {
        let keys = root.roles.get(&self.tuf());
        keys.map_or((&[], u64::MAX), |keys| (&keys.keyids, keys.threshold.get()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        let role = Role::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| "one of root, targets, snapshot, timestamp".to_owned())
    }
}

/// A key that is at hand.
pub struct SigningKey {
    /// Its file.
    pub path: PathBuf,
    /// Its public half.
    pub key: Key,
    /// Its identity.
    pub id: KeyId,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// Makes a key for `role` and writes it to a file of its own in `folder`, which only its owner
    /// can read.
    pub fn generate(folder: &Path, role: Role) -> Result<SigningKey> {
        let failed = || Error::refused("this system gives no random numbers");
        let pair = Ed25519KeyPair::generate().map_err(|_| failed())?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed())?;
        let mut key = SigningKey::new(PathBuf::new(), der.as_ref().to_vec())
            .ok_or_else(|| Error::corrupt("a new key that cannot be read"))?;
        key.path = folder.join(format!("{role}-{}.pem", short(&key.id)));
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = pem::encode_config(&pem::Pem::new(TAG, key.pkcs8.clone()), config);
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        options
            .open(&key.path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(Error::io("write", &key.path))?;
        Ok(key)
    }

    /// Reads the key in `path`.
    pub fn read(path: &Path) -> Result<SigningKey> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_LEN).read_to_end(&mut text))
            .map_err(Error::io("read", path))?;
        let parsed = pem::parse(&text).ok().filter(|pem| pem.tag() == TAG);
        parsed.and_then(|pem| SigningKey::new(path.to_owned(), pem.into_contents())).ok_or_else(
            || {
                Error::refused(format!("{} is not an Ed25519 private key", path.display()))
                    .with_hint("keys are unencrypted PKCS#8 in PEM, as `berth keys init` writes")
            },
        )
    }

    fn new(path: PathBuf, pkcs8: Vec<u8>) -> Option<SigningKey> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?;
        let key = pair.tuf_key();
        let id = key.key_id().ok()?;
        Some(SigningKey { path, key, id, pkcs8 })
    }
}

/// Without the secret.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The first digits of a key's identity, for file names and messages.
pub fn short(id: &KeyId) -> String {
    let mut text = hex::encode(id);
    text.truncate(8);
    text
}

#[derive(Debug)]
struct Pkcs8(Vec<u8>);

type Failed = Box<dyn std::error::Error + Send + Sync + 'static>;

#[async_trait]
impl KeySource for Pkcs8 {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Failed> {
        Ok(Box::new(Ed25519KeyPair::from_pkcs8(&self.0)?))
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Failed> {
        Err("keys are written when they are made".into())
    }
}

/// Signs `role` with those of `keys` that count for it in `root`. Whether they are enough is for
/// the caller to know.
pub fn sign<T>(role: T, root: &Root, keys: &[SigningKey]) -> Result<SignedRole<T>>
where
    T: tough::schema::Role + Serialize,
{
    let sources: Vec<Box<dyn KeySource>> =
        keys.iter().map(|key| Box::new(Pkcs8(key.pkcs8.clone())) as _).collect();
    let holder = KeyHolder::Root(root.clone());
    super::tuf::block_on(SignedRole::new(role, &holder, &sources, &SystemRandom::new()))?
        .map_err(|e| Error::corrupt(format!("sign {}: {e}", T::TYPE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_read_as_it_was_written_and_kept_from_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = SigningKey::generate(folder.path(), Role::Timestamp).expect("a key");
        let read = SigningKey::read(&key.path).expect("readable");
        assert_eq!((&read.id, &read.pkcs8), (&key.id, &key.pkcs8));
        let name = key.path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(name, format!("timestamp-{}.pem", short(&key.id)));
        let mode = std::fs::metadata(&key.path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{read:?}").contains("pkcs8"), "secrets are not printed");
    }

    #[test]
    fn a_key_of_openssl_is_taken() {
        // openssl genpkey -algorithm ed25519
        const TEXT: &str = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEICKYxq1Fu1MAmQpz9vx7eYYVd2DY8ov3OKJH5qK12f3P\n\
            -----END PRIVATE KEY-----\n";
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.pem");
        std::fs::write(&path, TEXT).expect("written");
        let key = SigningKey::read(&path).expect("a key");
        let Key::Ed25519 { keyval, .. } = key.key else { panic!("another kind of key") };
        assert_eq!(hex::encode(&keyval.public).len(), 64);
        for (text, why) in [
            ("", "empty"),
            ("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "no key"),
            ("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n", "no PKCS#8"),
        ] {
            std::fs::write(&path, text).expect("written");
            assert!(SigningKey::read(&path).is_err(), "{why}");
        }
    }
}
