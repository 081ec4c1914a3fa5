//! Looks into an image, or a disk that one was put on, and checks it.
//!
//! Everything there is untrusted: an image may be damaged, or made to do damage.

mod audit;
mod disk;
mod gather;
pub mod report;
mod show;
mod verify;

use crate::Result;
use std::path::Path;

pub use audit::{Audit, AuditedSlot, Listening};
pub use disk::Disk;
pub(crate) use gather::{sections, stored};
pub use report::Report;
pub use verify::Verified;

/// What is in the image at `path`. Fails when it is not a Berth image; damage behind the partition
/// table is told in the report.
pub fn inspect(path: &Path) -> Result<Report> {
    gather::gather(&Disk::open(path)?)
}

/// Recomputes every digest of the image at `path`, and compares with the manifest beside it where
/// there is one. The error names the first that is wrong.
pub fn verify(path: &Path) -> Result<Verified> {
    verify::verify(&Disk::open(path)?)
}

/// What the systems in the image at `path` would let run. Does not check that they are whole.
pub fn audit(path: &Path) -> Result<Audit> {
    audit::audit(&Disk::open(path)?)
}

#[cfg(test)]
mod tests;
