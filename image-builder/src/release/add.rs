//! A release out of an image.

use super::Signing;
use super::catalog::Catalog;
use super::content;
use super::publish::Publisher;
use super::system::{self, System};
use crate::{Error, Result};
use contract::release::{FORMAT, Patch, Release};
use contract::version;
use std::path::Path;

/// What a release says beyond its image.
#[derive(Clone, Debug, Default)]
pub struct NewRelease {
    /// Channel that is to point to it.
    pub channel: Option<String>,
    /// Versions to make patches from. `None`: those that channels point to.
    pub from: Option<Vec<String>>,
    /// Hosts that run an older version have to install another release first.
    pub min_from: Option<String>,
    /// A host that has run this release accepts nothing below this version any more.
    pub min_version: Option<String>,
    /// Hardware classes that it is for. Empty: any.
    pub hardware: Vec<String>,
    /// Level of zstd for what hosts of any version can download; [`delta::LEVEL`] when `None`.
    pub level: Option<i32>,
}

/// What was published.
#[derive(Clone, Debug)]
pub struct Added {
    /// The release.
    pub release: Release,
    /// Whether its image has a shell for development.
    pub debug_shell: bool,
}

/// Publishes the image in `image` as a release. Nothing counts before all of it was read back and
/// decoded.
pub fn add(path: &Path, image: &Path, new: &NewRelease, signing: &Signing<'_>) -> Result<Added> {
    let (identity, system) = system::open(image)?;
    Catalog::default().check_new(&identity.name, &identity.version, &identity.architecture)?;
    let mut publisher = Publisher::open_or_create(path, signing.keys, signing.now)?;
    publisher.require_keys()?;
    let catalog = &publisher.catalog;
    catalog.check_new(&identity.name, &identity.version, &identity.architecture)?;
    if let Some(channel) = &new.channel {
        catalog.check_promotion(&identity.version, channel)?;
    }
    let mut release = Release {
        format: FORMAT,
        name: identity.name,
        version: identity.version,
        architecture: identity.architecture,
        created: u64::try_from(signing.now.as_second()).unwrap_or(0),
        min_from: new.min_from.clone(),
        min_version: new.min_version.clone(),
        hardware: new.hardware.clone(),
        uki: identity.uki,
        root: identity.root,
        content: nothing(),
        patches: Vec::new(),
    };
    check(&release)?;
    let from = from(catalog, &release, new.from.as_deref())?;
    let level = new.level.unwrap_or(delta::LEVEL);

    release.content = content::encode_whole(&system, level, &publisher.store)?;
    content::check_whole(path, &release)?;
    for old in from {
        let old_system = content::restore(path, old)?;
        let patch = patch(&release, old, &old_system, &system, &publisher)?;
        release.patches.push(patch);
    }
    publisher.catalog.add(release.clone());
    if let Some(channel) = &new.channel {
        publisher.catalog.promote(&release.version, channel)?;
    }
    publisher.publish(&signing.lifetimes, signing.now)?;
    Ok(Added { release, debug_shell: identity.debug_shell })
}

fn patch(
    release: &Release,
    old: &Release,
    old_system: &System,
    system: &System,
    publisher: &Publisher<'_>,
) -> Result<Patch> {
    let patch = Patch {
        from: old.version.clone(),
        from_root_hash: old.root.root_hash.clone(),
        content: content::encode_patch(old_system, system, &old.version, &publisher.store)?,
    };
    content::check_patch(publisher.store.root(), release, &patch, old_system)?;
    Ok(patch)
}

/// The releases to make patches from.
fn from<'a>(
    catalog: &'a Catalog,
    new: &Release,
    wanted: Option<&[String]>,
) -> Result<Vec<&'a Release>> {
    let Some(wanted) = wanted else {
        let older = |v: &&str| version::compare(v, &new.version).is_lt();
        return catalog.current().into_iter().filter(older).map(|v| catalog.release(v)).collect();
    };
    let mut found: Vec<&Release> = Vec::new();
    for version in wanted {
        let release = catalog.release(version)?;
        if !found.contains(&release) {
            found.push(release);
        }
    }
    Ok(found)
}

/// A release that hosts would refuse is not published.
fn check(release: &Release) -> Result<()> {
    let refused = |what: String| Err(Error::refused(what));
    let versions = [("--min-from", &release.min_from), ("--min-version", &release.min_version)];
    for (option, value) in versions {
        if let Some(value) = value.as_ref().filter(|value| !version::is_valid(value)) {
            return refused(format!("{option} {value}: not a version"));
        }
    }
    if let Some(min) = &release.min_version
        && version::compare(min, &release.version).is_gt()
    {
        return refused(format!(
            "--min-version {min} is above the version itself, {}",
            release.version
        ));
    }
    if let Some(min) = &release.min_from
        && version::compare(min, &release.version).is_ge()
    {
        return refused(format!("--min-from {min} is not below the version, {}", release.version));
    }
    let is_class = |class: &str| {
        let allowed = |b: u8| b.is_ascii_graphic();
        (1..=64).contains(&class.len()) && class.bytes().all(allowed)
    };
    if let Some(class) = release.hardware.iter().find(|class| !is_class(class)) {
        return refused(format!("--hardware `{class}`: not 1 to 64 visible characters"));
    }
    // Its root hash and salt come from an image that was verified; what they are made of not.
    system::tree(&release.root).map(|_| ())
}

/// Stands for content until it is written.
fn nothing() -> contract::release::Parts {
    let file = content::described(&[]);
    contract::release::Parts { table: file.clone(), pack: file }
}
