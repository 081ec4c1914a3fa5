//! Where releases come from: a narrow door, so that a policy server can stand behind it too.

use contract::manifest::File;
use contract::release::{Channel, Release};
use std::ops::Range;

/// Why a source did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or broke off too often. Trying again later makes sense.
    #[error("{0}")]
    Unreachable(String),
    /// What it says is not signed as it has to be, is old, or is not what was asked for. The
    /// repository has to be mended, or somebody stands in between.
    #[error("{0}")]
    Refused(String),
    /// What has to be remembered between refreshes cannot be written.
    #[error("{what}")]
    State {
        /// The operation and the file.
        what: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The sink that takes the bytes failed.
    #[error(transparent)]
    Sink(#[from] std::io::Error),
}

/// Says what there is to install.
pub trait Source {
    /// Fetches and verifies the newest signed metadata, and what the channel says.
    fn refresh(&mut self) -> Result<Channel, SourceError>;
    /// The description of a release, verified against the metadata of the last refresh.
    fn release(&mut self, version: &str) -> Result<Release, SourceError>;
}

/// Fetches content of releases.
pub trait Content {
    /// Hands the bytes `range` of content file `file` to `sink`, in order and in pieces as they
    /// arrive. A transfer that breaks off is resumed where it stood. The bytes are *not* verified:
    /// the caller knows the digest of what it makes from them.
    fn fetch(
        &mut self,
        file: &File,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), SourceError>;
}
