//! The updater: what replaces a host's system in the other slot.
//!
//! [`source`] says what there is to install, [`install`] writes it, and the boot record decides
//! what starts. The only program that writes into a slot; it never writes into the running one.

pub mod agent;
pub mod assemble;
pub mod decide;
pub mod disk;
pub mod error;
pub mod http;
pub mod install;
pub mod repository;
mod reserve;
pub mod socket;
pub mod source;
pub mod store;
pub mod tuf;
pub mod window;
pub mod world;

pub use error::{Error, Result};
