//! Publishes releases: `berth keys` and `berth release`.
//!
//! A repository is a folder of plain files, described in `docs/contract.md`. [`roots`] and
//! [`signing`] are the keys, [`repository`] reads, [`publish`] signs and writes, [`store`] is where
//! the writing survives a cut of power. What may change is decided in [`catalog`], without any
//! files. [`content`] and [`system`] turn images into content files and back.

mod add;
pub mod catalog;
mod collect;
mod content;
mod lifetime;
pub mod list;
mod publish;
mod repository;
mod roots;
mod signing;
mod store;
mod system;
mod tuf;
mod verify;

#[cfg(test)]
mod tests;

pub use add::{Added, NewRelease, add};
pub use catalog::Fallback;
pub use collect::{Collected, collect};
pub use lifetime::{Lifetime, Lifetimes};
pub use list::list;
pub use roots::{Description, KeyFolder, NewKeys, RootFile};
pub use signing::Role;
pub use verify::{Checked, verify};

use crate::Result;
use jiff::Timestamp;
use publish::Publisher;
use std::path::Path;

/// With what, for how long, and when something is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// The keys.
    pub keys: &'a KeyFolder,
    /// How long signatures are good for.
    pub lifetimes: Lifetimes,
    /// The time.
    pub now: Timestamp,
}

/// Lets `channel` point to release `version`. `false`: it did so already, and nothing was signed.
pub fn promote(path: &Path, version: &str, channel: &str, signing: &Signing<'_>) -> Result<bool> {
    let mut publisher = Publisher::open(path, signing.keys, signing.now)?;
    let changed = publisher.catalog.promote(version, channel)?;
    if changed {
        publisher.publish(&signing.lifetimes, signing.now)?;
    }
    Ok(changed)
}

/// Declares release `version` bad. Empty: it was withdrawn already, and nothing was signed.
pub fn withdraw(path: &Path, version: &str, signing: &Signing<'_>) -> Result<Vec<Fallback>> {
    let mut publisher = Publisher::open(path, signing.keys, signing.now)?;
    let changed = publisher.catalog.withdraw(version)?;
    if !changed.is_empty() {
        publisher.publish(&signing.lifetimes, signing.now)?;
    }
    Ok(changed)
}

/// Signs again what would expire, and brings new root metadata to the hosts. Returns what was
/// signed.
pub fn refresh(path: &Path, signing: &Signing<'_>) -> Result<Vec<Role>> {
    let mut publisher = Publisher::open(path, signing.keys, signing.now)?;
    publisher.publish(&signing.lifetimes, signing.now)
}
