//! Takes away what nobody needs any more.

use super::Signing;
use super::publish::{Publisher, target_file};
use super::repository::Repository;
use crate::{Error, Result};
use contract::release::{CONTENT_DIR, METADATA_DIR, TARGETS_DIR};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use tough::ExpirationEnforcement;

/// So many versions of metadata before the current one are kept, for hosts that are just reading
/// them.
const METADATA_KEPT: u64 = 5;

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Versions of releases.
    pub releases: Vec<String>,
    /// Number of files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Keeps the newest `keep` releases, those that channels point to, and what leads to them; takes
/// everything else away. First the world is told, then files go.
pub fn collect(path: &Path, keep: usize, signing: &Signing<'_>) -> Result<Collected> {
    let mut publisher = Publisher::open(path, signing.keys, signing.now)?;
    let kept = publisher.catalog.keep(keep);
    let versions = publisher.catalog.releases.iter().map(|release| release.version.clone());
    let releases: Vec<String> = versions.filter(|version| !kept.contains(version)).collect();
    if !releases.is_empty() {
        publisher.catalog.retain(&kept);
        publisher.publish(&signing.lifetimes, signing.now)?;
    }
    let Publisher { store, .. } = publisher;
    // What a publisher that was killed has written may not be durable yet.
    store.sync(METADATA_DIR)?;

    // As the world sees it now.
    let root = signing.keys.chain().last().map(|root| root.bytes.as_slice()).unwrap_or_default();
    let repository = Repository::read(path, root, ExpirationEnforcement::Unsafe)?;
    let metadata = &repository.metadata;
    let content: BTreeSet<String> = repository.catalog.content().into_keys().collect();
    let targets: BTreeSet<String> =
        metadata.all_targets().map(|(name, target)| target_file(name, target)).collect();
    let current = [
        ("targets", metadata.targets().signed.version.get()),
        ("snapshot", metadata.snapshot().signed.version.get()),
    ];
    let is_old = |name: &String| {
        let mut parts = name.split('.');
        let version: Option<u64> = parts.next().and_then(|number| number.parse().ok());
        let role = parts.next().unwrap_or_default();
        let now = current.iter().find(|(name, _)| *name == role).map(|(_, now)| *now);
        matches!((version, now), (Some(v), Some(now)) if v + METADATA_KEPT < now || v > now)
    };
    let mut gone = Collected { releases, ..Collected::default() };
    for (folder, is_unneeded) in [
        (CONTENT_DIR, &(|name: &String| !content.contains(name)) as &dyn Fn(&String) -> bool),
        (TARGETS_DIR, &|name| !targets.contains(name)),
        (METADATA_DIR, &is_old),
    ] {
        for name in store.names(folder)?.iter().filter(|name| is_unneeded(name)) {
            let file = path.join(folder).join(name);
            let metadata = std::fs::metadata(&file).map_err(Error::io("read", &file))?;
            store.remove(folder, name)?;
            gone.files += 1;
            gone.bytes += metadata.len();
        }
        store.sync(folder)?;
    }
    Ok(gone)
}
