//! How the content of a release is cut, compressed and patched. `berth release` encodes, the
//! updater on the host decodes.
//!
//! A release has two images, the UKI and the root. Either is described by a [`Table`] of pieces
//! and a *pack*, the file that the pieces' payloads lie in one after the other. There are two
//! kinds of table:
//!
//! - [`chunks`]: the whole content, cut where content says so, each chunk compressed on its own.
//!   A host of any older version looks which of them it holds already ([`Held`]) and fetches the rest.
//! - [`patch`]: what changed since one earlier release.
//!
//! A receiver treats them alike: read the table, pass over the pieces that the slot already has
//! ([`Piece::check`]), fetch the payloads of the others ([`requests`]), and let a [`Decoder`] make
//! them, in order. It reads only the old release and never what it wrote; it needs at most 32 MiB
//! and no file of its own.
//!
//! What the models of a script predict is part of the format: whoever changes them, or the cutter,
//! changes the magic of the table.

mod align;
mod blocks;
mod bytes;
mod cache;
mod chunks;
mod cut;
mod decode;
mod distance;
mod error;
mod image;
mod in_order;
mod patch;
mod range;
mod requests;
mod script;
mod table;

pub use chunks::{Held, LEVEL, chunks};
pub use decode::{Decoder, Sink};
pub use error::{Error, Result};
pub use image::{BLOCK, Image, Images, MAX_IMAGE, ReadAt, Source};
pub use patch::patch;
pub use requests::{GAP, MOST_REQUESTS, Request, requests};
pub use table::{
    Check, Digest, MAX_CHUNK, MAX_PAYLOAD, MAX_PIECE, MAX_TABLE, Origin, Piece, Table,
};

/// Told how many units of work are done, and of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
