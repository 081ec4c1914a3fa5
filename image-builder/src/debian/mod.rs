//! Debian packages: which ones a request means ([`fn@resolve`]), and their files ([`fn@obtain`]).
//!
//! Trust goes down one chain: pinned keys ([`keyring`]) sign a suite's `InRelease` ([`release`]),
//! which lists the digest of each package index ([`index`]), which lists that of each package.
//! Nothing is used before it was found to be what the step above says. No maintainer script ever
//! runs.

pub mod cleartext;
pub mod deb822;
pub mod fetch;
pub mod index;
pub mod keyring;
pub mod lock;
mod metadata;
mod obtain;
pub mod package;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod sources;
pub mod unpack;
pub mod version;

use crate::cache::{Cache, Digest};
use crate::{Error, Result};
use keyring::Keyring;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

pub use lock::Lock;
pub use obtain::obtain;
pub use package::{Unpacked, add_to_tree};
pub use sources::Mirrors;

/// One of Debian's two archives of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// The suites and their updates.
    Main,
    /// Security fixes.
    Security,
}

/// Whether the network may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    Online,
    /// No: the cache alone.
    Offline,
    /// No: the cache alone, even where its metadata is out of date.
    OfflineExpired,
}

impl Network {
    /// Whether the cache alone counts.
    pub fn is_offline(self) -> bool {
        self != Network::Online
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Suite: `trixie`. Its updates and security fixes come with it.
    pub suite: String,
    /// Debian architecture: `amd64`.
    pub architecture: String,
    /// Names, or `name=version`. Order does not matter, but for choices among alternatives.
    pub packages: Vec<String>,
    /// Whether recommended packages are taken too, where that is possible.
    pub recommends: bool,
    /// Names that count as there and are never taken.
    pub assume: Vec<String>,
}

/// A package to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// The archive that has it.
    pub archive: Archive,
    /// Path below the archive's base.
    pub filename: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// SHA-256 of the `.deb`.
    #[serde(with = "hex_digest")]
    pub sha256: Digest,
}

impl Package {
    /// Refuses what would be dangerous to put into paths, addresses or texts.
    fn check(&self) -> Result<()> {
        let plain = |text: &str, signs: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits)
        };
        let up = self.filename.split('/').any(|part| ["", ".", ".."].contains(&part));
        let wrong = match () {
            () if !plain(&self.name, "+.-") => "name",
            () if !plain(&self.version, ".+-~:") => "version",
            () if !plain(&self.architecture, "-") => "architecture",
            () if !plain(&self.filename, "/+.-~_%:") || up => "filename",
            () => return Ok(()),
        };
        Err(Error::corrupt(format!("package {}: its {wrong} is not valid", self.name)))
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// All packages, sorted by name.
    pub packages: Vec<Package>,
    /// When the newest metadata was made, in seconds since 1970 UTC: a date for images that
    /// changes only when packages may have changed.
    pub release_date: u64,
}

/// What metadata is believed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Whose signatures count.
    pub keyring: Keyring,
    /// The present, in seconds since 1970 UTC.
    pub now: u64,
}

impl Trust {
    /// Debian's keys, at this moment.
    pub fn of_machine() -> Result<Trust> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Ok(Trust { keyring: Keyring::of_machine()?, now })
    }
}

/// The packages that fulfil `request`, by metadata that Debian signed.
///
/// Online, the mirrors are asked whether their metadata changed; offline, what was cached last is
/// used, as long as it has not expired. While nothing changes, the answer itself comes from the cache.
pub fn resolve(
    cache: &Cache,
    mirrors: &Mirrors,
    request: &Request,
    network: Network,
) -> Result<Resolved> {
    resolve_trusting(cache, mirrors, request, network, &Trust::of_machine()?)
}

/// [`fn@resolve`] with other keys or at another time.
pub fn resolve_trusting(
    cache: &Cache,
    mirrors: &Mirrors,
    request: &Request,
    network: Network,
    trust: &Trust,
) -> Result<Resolved> {
    metadata::answer(cache, mirrors, request, network, trust)
}

/// A digest as hexadecimal text.
mod hex_digest {
    use crate::cache::{Digest, hex, parse_hex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(digest))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        parse_hex(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no SHA-256")))
    }
}
