//! What a repository offers, for people and programs.

use super::repository::Repository;
use super::signing::Role;
use crate::Result;
use crate::output::bytes;
use contract::release::expiry_warning;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use tough::ExpirationEnforcement;

/// What `berth release list` tells.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// Name of the image definition; `None` as long as there is no release.
    pub name: Option<String>,
    /// Releases, the oldest version first.
    pub releases: Vec<Listed>,
    /// Channels by name.
    pub channels: Vec<Channel>,
    /// Roles of the metadata, and when each has to be signed again.
    pub metadata: Vec<Metadata>,
}

/// A release.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its version.
    pub version: String,
    /// When it was published.
    pub created: jiff::Timestamp,
    /// Bytes of kernel image and root filesystem.
    pub size: u64,
    /// Bytes of all of it as it is downloaded without knowing anything.
    pub download: u64,
    /// Versions that there are patches from, with their bytes.
    pub patches: Vec<ListedPatch>,
    /// Channels that point to it.
    pub channels: Vec<String>,
    /// Whether it was found bad.
    pub withdrawn: bool,
}

/// A patch.
#[derive(Clone, Debug, Serialize)]
pub struct ListedPatch {
    /// The earlier version.
    pub from: String,
    /// Bytes to download.
    pub size: u64,
}

/// A channel.
#[derive(Clone, Debug, Serialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// What it points to.
    pub version: Option<String>,
}

/// A role of the metadata.
#[derive(Clone, Debug, Serialize)]
pub struct Metadata {
    /// Its name.
    pub role: &'static str,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: jiff::Timestamp,
    /// Whether that is past.
    pub expired: bool,
    /// What a person has to see to.
    pub warning: Option<String>,
}

/// What the roles of a repository say, the root first.
pub fn metadata(repository: &tough::Repository, now: jiff::Timestamp) -> Vec<Metadata> {
    let role = |role: Role, version: std::num::NonZeroU64, expires: jiff::Timestamp| {
        let seconds = |time: jiff::Timestamp| u64::try_from(time.as_second()).unwrap_or(0);
        let warning = expiry_warning(role.name(), seconds(expires), seconds(now), role.warning());
        let cure = match role {
            Role::Root => "`berth keys rotate`, then `berth release refresh`, gives it a new date",
            _ => "`berth release refresh` signs it again",
        };
        Metadata {
            role: role.name(),
            version: version.get(),
            expires,
            expired: expires <= now,
            warning: warning.map(|warning| format!("{warning}: {cure}")),
        }
    };
    let (root, targets) = (&repository.root().signed, &repository.targets().signed);
    let (snapshot, timestamp) = (&repository.snapshot().signed, &repository.timestamp().signed);
    vec![
        role(Role::Root, root.version, root.expires),
        role(Role::Targets, targets.version, targets.expires),
        role(Role::Snapshot, snapshot.version, snapshot.expires),
        role(Role::Timestamp, timestamp.version, timestamp.expires),
    ]
}

/// Reads the repository in `path` as one who trusts the file `root`, or the repository's own.
pub fn list(path: &Path, root: Option<&Path>, now: jiff::Timestamp) -> Result<Listing> {
    let Repository { metadata, catalog, .. } =
        Repository::read_trusting(path, root, ExpirationEnforcement::Unsafe)?;
    let size = |parts: &contract::release::Parts| parts.table.size + parts.pack.size;
    let lines = || catalog.channels.values().map(|line| &line.channel);
    let releases = catalog.releases.iter().map(|release| {
        let patches = release.patches.iter();
        let at = |version: &Option<String>| version.as_ref() == Some(&release.version);
        Listed {
            version: release.version.clone(),
            created: i64::try_from(release.created)
                .ok()
                .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
                .unwrap_or_default(),
            size: release.uki.size + release.root.size,
            download: size(&release.content),
            patches: patches
                .map(|patch| ListedPatch { from: patch.from.clone(), size: size(&patch.content) })
                .collect(),
            channels: lines().filter(|c| at(&c.version)).map(|c| c.name.clone()).collect(),
            withdrawn: lines().any(|c| c.withdrawn.contains(&release.version)),
        }
    });
    Ok(Listing {
        name: catalog.releases.first().map(|release| release.name.clone()),
        releases: releases.collect(),
        channels: lines()
            .map(|c| Channel { name: c.name.clone(), version: c.version.clone() })
            .collect(),
        metadata: self::metadata(&metadata, now),
    })
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Releases of {}:", self.name.as_deref().unwrap_or("nothing yet"))?;
        for release in &self.releases {
            let Listed { version, created, size, download, .. } = release;
            let (size, download) = (bytes(*size), bytes(*download));
            write!(f, "  {version:<16} {created}  {size:>10}, {download:>10} compressed")?;
            for ListedPatch { from, size } in &release.patches {
                write!(f, ", {} from {from}", bytes(*size))?;
            }
            if release.withdrawn {
                write!(f, "  withdrawn")?;
            }
            if !release.channels.is_empty() {
                write!(f, "  <- {}", release.channels.join(", "))?;
            }
            writeln!(f)?;
        }
        for Channel { name, .. } in self.channels.iter().filter(|c| c.version.is_none()) {
            writeln!(f, "Channel {name} points to nothing.")?;
        }
        writeln!(f, "Signatures:")?;
        for Metadata { role, version, expires, expired, .. } in &self.metadata {
            let verb = if *expired { "EXPIRED" } else { "expires" };
            writeln!(f, "  {role:<10} version {version:<6} {verb} {expires}")?;
        }
        Ok(())
    }
}
