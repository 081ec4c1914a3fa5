//! What can go wrong: a read, a write, or bytes that are not what they have to be.

use crate::Image;
use std::io;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Its text never repeats its source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image could not be read.
    #[error("read the {image} image at byte {offset}")]
    Read {
        /// Which one.
        image: Image,
        /// Where, in bytes.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The receiver of the output refused it.
    #[error("write {what}")]
    Write {
        /// `the pack`, `the image`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A table, a payload or an old image is not what it has to be.
    #[error("{0}")]
    Corrupt(&'static str),
    /// A piece was decoded into other bytes than the table promises.
    #[error("the {image} image from byte {offset} on is not what its table says")]
    Content {
        /// Which image.
        image: Image,
        /// Where the piece starts, in bytes.
        offset: u64,
    },
    /// Compression failed.
    #[error("compress")]
    Compress(#[source] io::Error),
    /// An image that the encoder cannot take.
    #[error("{0}")]
    Refused(&'static str),
}
