//! Checks a whole repository. The first that is wrong is named.

use super::content;
use super::repository::Repository;
use crate::output::Progress;
use crate::{Error, Result};
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;
use tough::ExpirationEnforcement;

/// What was checked, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// One line each.
    pub checks: Vec<String>,
    /// What expires before long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Checks the repository in `path` as one who trusts the file `root`, or the repository's own: all
/// signatures and dates, each file's digest, and that each release, whole and by each patch, makes
/// its kernel image and its root hash.
pub fn verify(path: &Path, root: Option<&Path>, now: Timestamp) -> Result<Checked> {
    let mut done = Checked::default();
    let mut passed = |what: String| done.checks.push(what);
    let Repository { metadata, catalog, .. } =
        Repository::read_trusting(path, root, ExpirationEnforcement::Safe)?;
    let timestamp = &metadata.timestamp().signed;
    let roles = super::list::metadata(&metadata, now);
    done.warnings = roles.into_iter().filter_map(|role| role.warning).collect();
    passed(format!("signatures, good until {}", timestamp.expires));
    for (name, line) in &catalog.channels {
        let Some(version) = &line.channel.version else { continue };
        if catalog.find(version).is_none() {
            let what = format!("channel {name} points to {version}, which is not there");
            return Err(Error::corrupt(format!("{}: {what}", path.display())));
        }
    }
    passed(format!("{} channels", catalog.channels.len()));
    let content = catalog.content();
    {
        let progress = Progress::start("verify content", content.values().sum());
        for (sha256, size) in &content {
            content::check_file(path, sha256, *size)?;
            progress.add(*size);
        }
    }
    passed(format!("{} content files", content.len()));
    for release in &catalog.releases {
        content::check_whole(path, release)?;
        passed(format!("release {}", release.version));
        for patch in &release.patches {
            // Of a patch from a release that is gone the digest has to do.
            let Some(old) = catalog.find(&patch.from) else { continue };
            if old.root.root_hash != patch.from_root_hash {
                let what = format!("the patch from {} is from another one", patch.from);
                let what = format!("release {}: {what}", release.version);
                return Err(Error::corrupt(format!("{}: {what}", path.display())));
            }
            let old = content::restore(path, old)?;
            content::check_patch(path, release, patch, &old)?;
            passed(format!("release {}, patch from {}", release.version, patch.from));
        }
    }
    Ok(done)
}
