//! What can go wrong, by what can be done about it.

use crate::source::SourceError;
use std::io;

/// Why an update did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk did not do what it was told.
    #[error("{action} {object}")]
    Device {
        /// What was attempted: `read`, `write`, `flush`.
        action: &'static str,
        /// Which partition, and where.
        object: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// The release cannot be installed here, now or ever.
    #[error("{0}")]
    Refused(String),
    /// What was written is not what the release says. Nothing was committed.
    #[error("slot {slot} does not hold what the release says: {flaw}")]
    Flawed {
        /// The slot that was written.
        slot: contract::Slot,
        /// What is wrong with it.
        flaw: String,
    },
    /// The repository's fault, or that of the way to it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Content of a release that is not what it should be.
    #[error("content of the release: {0}")]
    Content(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names what was attempted.
pub(crate) trait On<T> {
    fn on(self, action: &'static str, object: impl std::fmt::Display) -> Result<T>;
}

impl<T> On<T> for io::Result<T> {
    fn on(self, action: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|source| Error::Device { action, object: object.to_string(), source })
    }
}
