//! A release: what `berth release` publishes and an updater installs.
//!
//! A repository is a folder of plain files:
//!
//! | path | content |
//! |---|---|
//! | `metadata/` | TUF metadata (The Update Framework, specification 1.0) with consistent snapshots |
//! | `targets/` | the TUF targets: one [`Release`] a version, one [`Channel`] a channel |
//! | `content/SHA256` | what releases are made of, by digest: tables and packs |
//!
//! Files in `content/` are no TUF targets themselves: a release, which is one, names them by size
//! and SHA-256. They never change, so that they can be cached for ever.

use crate::hex;
use crate::manifest::File;
use crate::version;
use serde::{Deserialize, Serialize};

/// Format of releases and channels. Readers refuse a higher number.
pub const FORMAT: u32 = 1;

/// Most bytes of a release or channel file.
pub const MAX_LEN: u64 = 1 << 20;

/// Most bytes of each kind of TUF metadata. Hosts read no more, and need about ten times as much
/// memory to parse it; publishers refuse to sign more.
pub mod limits {
    /// Root metadata.
    pub const ROOT: u64 = 1 << 20;
    /// The timestamp.
    pub const TIMESTAMP: u64 = 16 << 10;
    /// A snapshot.
    pub const SNAPSHOT: u64 = 256 << 10;
    /// A list of targets: some five thousand releases.
    pub const TARGETS: u64 = 1 << 20;
    /// Any of them.
    pub const ANY: u64 = 1 << 20;
}

/// So long before root metadata expires people are told, in seconds: the key that signs the next
/// lies in a safe, and hosts take nothing from a repository whose root has expired.
pub const ROOT_WARNING: u64 = 60 * 24 * 3600;

/// The warning about metadata of a role that expires in less than `early` seconds, or has expired.
/// `expires` and `now` are seconds since 1970 UTC.
pub fn expiry_warning(role: &str, expires: u64, now: u64, early: u64) -> Option<String> {
    match expires.saturating_sub(now) {
        left if left >= early => None,
        0 => Some(format!("the {role} metadata of the repository has expired")),
        left => {
            let days = left / (24 * 3600);
            let when = match days {
                0 => "in less than a day".to_owned(),
                1 => "in a day".to_owned(),
                days => format!("in {days} days"),
            };
            Some(format!("the {role} metadata of the repository expires {when}"))
        }
    }
}

/// The folder of TUF metadata in a repository.
pub const METADATA_DIR: &str = "metadata";
/// The folder of TUF targets in a repository.
pub const TARGETS_DIR: &str = "targets";
/// The folder of content in a repository.
pub const CONTENT_DIR: &str = "content";

/// Where the trusted TUF root metadata lies in an image.
pub const TRUSTED_ROOT: &str = "usr/lib/berth/update-root.json";

/// The TUF target that describes release `version`.
pub fn release_target(version: &str) -> String {
    format!("release-{version}.json")
}

/// The TUF target that describes channel `name`.
pub fn channel_target(name: &str) -> String {
    format!("channel-{name}.json")
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the image definition. A repository holds releases of one name.
    pub name: String,
    /// Its version: see [`version`].
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Seconds since 1970 UTC when it was published. A host's clock is never behind it.
    pub created: u64,
    /// Hosts that run an older version have to install another release first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_from: Option<String>,
    /// A host that has run this release accepts nothing below this version any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// Hardware classes that it is for. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hardware: Vec<String>,
    /// The unified kernel image.
    pub uki: File,
    /// The root file system.
    pub root: Root,
    /// All of UKI and root: the way from any release, or from none.
    pub content: Parts,
    /// Ways from one earlier release to this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Patch>,
}

/// A root file system by content. Its dm-verity tree is computed by the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Bytes; a multiple of 4096.
    pub size: u64,
    /// Root hash of the dm-verity tree, hexadecimal.
    pub root_hash: String,
    /// Salt of the tree, hexadecimal.
    pub salt: String,
    /// UUID in the superblock of the tree, 32 hexadecimal digits.
    pub uuid: String,
}

/// Two files of `content/` that make up images: a table of pieces, and the pack that it cuts into
/// ranges. Their format is that of the crate `delta`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// The table of pieces.
    pub table: File,
    /// What the pieces are made from.
    pub pack: File,
}

/// A way from one earlier release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Version of the earlier release, for people.
    pub from: String,
    /// Its root hash, hexadecimal: a patch fits only exactly this one.
    pub from_root_hash: String,
    /// What makes the images out of the earlier ones.
    pub content: Parts,
}

/// Which release the hosts of a channel run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name: see [`is_channel_name`].
    pub name: String,
    /// The release to run. `None` as long as nothing was promoted, or all was withdrawn.
    pub version: Option<String>,
    /// Releases that were found bad. A host that runs one goes to [`Channel::version`] even when
    /// that is older.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<String>,
}

/// What is wrong with a release or a channel whose signature is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not the JSON that is expected.
    #[error("not a description that is known here: {0}")]
    Json(String),
    /// Written for later hosts.
    #[error("format {0} is newer than this program, which knows {FORMAT}")]
    Format(u32),
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

/// Whether `name` can name a channel: lower-case letters, digits and hyphens, at most 32.
pub fn is_channel_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(allowed)
}

#[derive(Deserialize)]
struct OnlyFormat {
    format: u32,
}

/// The format is looked at before anything else, so that a newer file is told from a broken one.
fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Invalid> {
    let json = |e: serde_json::Error| Invalid::Json(e.to_string());
    let OnlyFormat { format } = serde_json::from_slice(bytes).map_err(json)?;
    if format > FORMAT {
        return Err(Invalid::Format(format));
    }
    serde_json::from_slice(bytes).map_err(json)
}

impl Release {
    /// Reads and checks a description.
    pub fn parse(bytes: &[u8]) -> Result<Release, Invalid> {
        let release: Release = parse(bytes)?;
        release.check().map_err(Invalid::Value)?;
        Ok(release)
    }

    fn check(&self) -> Result<(), String> {
        let versions = [Some(&self.version), self.min_from.as_ref(), self.min_version.as_ref()];
        for version in versions.into_iter().flatten() {
            if !version::is_valid(version) {
                return Err(format!("`{version}` is not a version"));
            }
        }
        if let Some(min) = &self.min_version
            && version::compare(min, &self.version).is_gt()
        {
            return Err(format!("min_version {min} is above the version itself"));
        }
        if self.root.size == 0 || !self.root.size.is_multiple_of(4096) {
            return Err(format!("root size {} is not a multiple of 4096", self.root.size));
        }
        if self.uki.size == 0 {
            return Err("an empty UKI".to_owned());
        }
        let parts = self.patches.iter().map(|patch| &patch.content).chain([&self.content]);
        for file in parts.flat_map(|parts| [&parts.table, &parts.pack]).chain([&self.uki]) {
            if hex::decode_array::<32>(&file.sha256).is_none() {
                return Err(format!("`{}` is not a SHA-256", file.sha256));
            }
        }
        let roots = self.patches.iter().map(|patch| &patch.from_root_hash);
        for hash in roots.chain([&self.root.root_hash]) {
            if hex::decode_array::<32>(hash).is_none() {
                return Err(format!("`{hash}` is not a root hash"));
            }
        }
        if hex::decode(&self.root.salt).is_none_or(|salt| salt.len() > 256) {
            return Err("a salt that is not one".to_owned());
        }
        if hex::decode_array::<16>(&self.root.uuid).is_none() {
            return Err("a UUID of the hash tree that is not one".to_owned());
        }
        Ok(())
    }
}

impl Channel {
    /// Reads and checks a description.
    pub fn parse(bytes: &[u8]) -> Result<Channel, Invalid> {
        let channel: Channel = parse(bytes)?;
        if !is_channel_name(&channel.name) {
            return Err(Invalid::Value(format!("`{}` is not a channel name", channel.name)));
        }
        match channel.version.iter().chain(&channel.withdrawn).find(|v| !version::is_valid(v)) {
            Some(bad) => Err(Invalid::Value(format!("`{bad}` is not a version"))),
            None => Ok(channel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        let file = File { size: 10, sha256: "ab".repeat(32) };
        Release {
            format: FORMAT,
            name: "docker".to_owned(),
            version: "1.1.0".to_owned(),
            architecture: "amd64".to_owned(),
            created: 1_763_000_000,
            min_from: None,
            min_version: None,
            hardware: Vec::new(),
            uki: file.clone(),
            root: Root {
                size: 8192,
                root_hash: "01".repeat(32),
                salt: "02".repeat(32),
                uuid: "03".repeat(16),
            },
            content: Parts { table: file.clone(), pack: file.clone() },
            patches: vec![Patch {
                from: "1.0.0".to_owned(),
                from_root_hash: "04".repeat(32),
                content: Parts { table: file.clone(), pack: file },
            }],
        }
    }

    fn parse_changed(change: impl Fn(&mut Release)) -> Result<Release, Invalid> {
        let mut changed = release();
        change(&mut changed);
        Release::parse(&serde_json::to_vec(&changed).expect("JSON"))
    }

    #[test]
    fn round_trips() {
        assert_eq!(parse_changed(|_| {}), Ok(release()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused: [fn(&mut Release); 8] = [
            |r| r.version = "1/0".to_owned(),
            |r| r.min_from = Some(String::new()),
            |r| r.min_version = Some("1.2".to_owned()),
            |r| r.root.size = 4097,
            |r| r.root.root_hash = "zz".repeat(32),
            |r| r.root.uuid = "03".repeat(15),
            |r| r.content.pack.sha256 = "../../x".to_owned(),
            |r| r.patches[0].from_root_hash = "ab".repeat(31),
        ];
        for (i, change) in refused.into_iter().enumerate() {
            assert!(matches!(parse_changed(change), Err(Invalid::Value(_))), "{i}");
        }
        assert!(matches!(Release::parse(b"{}"), Err(Invalid::Json(_))));
        let newer = br#"{"format": 2, "what": "ever"}"#;
        assert_eq!(Release::parse(newer), Err(Invalid::Format(2)));
    }

    #[test]
    fn people_are_told_before_it_is_too_late() {
        const DAY: u64 = 24 * 3600;
        let cases = [
            (61 * DAY, None),
            (60 * DAY, None),
            (60 * DAY - 1, Some("expires in 59 days")),
            (DAY, Some("expires in a day")),
            (DAY - 1, Some("expires in less than a day")),
            (0, Some("has expired")),
        ];
        for (left, expected) in cases {
            let warning = expiry_warning("root", 400 * DAY + left, 400 * DAY, ROOT_WARNING);
            let expected = expected.map(|end| format!("the root metadata of the repository {end}"));
            assert_eq!(warning, expected, "{left}");
        }
        assert!(expiry_warning("root", 1, 2, ROOT_WARNING).is_some());
    }

    #[test]
    fn channels_are_checked_too() {
        let good = br#"{"format":1,"name":"stable","version":"1.0.0"}"#;
        assert_eq!(Channel::parse(good).map(|c| c.version), Ok(Some("1.0.0".to_owned())));
        for bad in [
            &br#"{"format":1,"name":"a/b","version":null}"#[..],
            br#"{"format":1,"name":"a","version":".."}"#,
            br#"{"format":1,"name":"a","version":"1","more":1}"#,
        ] {
            assert!(Channel::parse(bad).is_err());
        }
    }
}
