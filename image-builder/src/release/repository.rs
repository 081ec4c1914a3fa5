//! A repository as it is: signed metadata, and the catalog that it vouches for.

use super::catalog::{Catalog, Line};
use super::roots::{RootFile, root_name};
use super::store::{TIMESTAMP, not_a_repository};
use super::tuf;
use crate::{Error, Result};
use contract::release::{Channel, METADATA_DIR, Release, channel_target, release_target};
use std::path::Path;
use tough::ExpirationEnforcement;
use tough::schema::Target;

/// Where the versions that a channel pointed to are kept: in what the metadata says of the channel,
/// for publishers. Hosts do not read it.
pub const HISTORY: &str = "history";

/// A repository whose signatures were checked.
#[derive(Debug)]
pub struct Repository {
    /// The metadata.
    pub metadata: tough::Repository,
    /// What it offers.
    pub catalog: Catalog,
}

impl Repository {
    /// Reads the repository in `path` as somebody who trusts the root metadata `root`.
    pub fn read(path: &Path, root: &[u8], expiry: ExpirationEnforcement) -> Result<Repository> {
        require(path)?;
        let metadata = tuf::load(path, root, expiry)?;
        let mut catalog = Catalog::default();
        for (name, target) in metadata.all_targets() {
            let bytes = tuf::read_target(&metadata, path, name)?;
            add(&mut catalog, name.raw(), target, &bytes).map_err(|why| {
                Error::corrupt(format!("{}: {}: {why}", path.display(), name.raw()))
            })?;
        }
        Ok(Repository { metadata, catalog })
    }

    /// The same for one who trusts the file `root`, or else the repository's own first root
    /// metadata.
    pub fn read_trusting(
        path: &Path,
        root: Option<&Path>,
        expiry: ExpirationEnforcement,
    ) -> Result<Repository> {
        require(path)?;
        let own = path.join(METADATA_DIR).join(root_name(1));
        let root = RootFile::read(root.unwrap_or(&own))?;
        Repository::read(path, &root.bytes, expiry)
    }
}

/// Fails when there is no repository in `path`.
pub fn require(path: &Path) -> Result<()> {
    let timestamp = path.join(METADATA_DIR).join(TIMESTAMP);
    match timestamp.try_exists() {
        Ok(true) => Ok(()),
        _ if !path.exists() => Err(not_a_repository(path, "there is no such folder")),
        Ok(false) => {
            let why = format!("there is no {METADATA_DIR}/{TIMESTAMP} in it");
            Err(not_a_repository(path, &why))
        }
        Err(e) => Err(Error::io("open", &timestamp)(e)),
    }
}

fn add(catalog: &mut Catalog, name: &str, target: &Target, bytes: &[u8]) -> Result<(), String> {
    if name.starts_with("release-") {
        let release = Release::parse(bytes).map_err(|e| e.to_string())?;
        if name != release_target(&release.version) {
            return Err(format!("it describes release {}", release.version));
        }
        if let Some(other) = catalog.releases.iter().find(|other| other.name != release.name) {
            return Err(format!("it is of {}, others are of {}", release.name, other.name));
        }
        catalog.add(release);
        return Ok(());
    }
    if !name.starts_with("channel-") {
        return Err("neither a release nor a channel".to_owned());
    }
    let channel = Channel::parse(bytes).map_err(|e| e.to_string())?;
    if name != channel_target(&channel.name) {
        return Err(format!("it describes channel {}", channel.name));
    }
    let history = match target.custom.get(HISTORY) {
        None => channel.version.iter().cloned().collect(),
        Some(value) => serde_json::from_value(value.clone()).map_err(|e| e.to_string())?,
    };
    catalog.channels.insert(channel.name.clone(), Line { channel, history });
    Ok(())
}
