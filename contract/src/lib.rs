//! What two Berth programs must agree on, in one place and without I/O.
//!
//! With default features off the crate is `no_std` and needs no allocator: the slot picker uses
//! that part ([`layout`], [`gpt`], [`boot`], [`record`], [`journal`], [`trailer`]). The `std`
//! feature adds the texts that people and programs exchange: [`host_config`], [`manifest`],
//! [`release`], [`module_alias`] and [`console`], and the [`verity`] trees that three programs read.
//!
//! `docs/contract.md` describes every byte for readers of other languages; a test compares the
//! two.
#![cfg_attr(not(feature = "std"), no_std)]

mod block;
pub mod boot;
pub mod data_mark;
pub mod data_place;
pub mod gpt;
pub mod journal;
pub mod layout;
pub mod record;
pub mod text;
pub mod trailer;

#[cfg(feature = "std")]
pub mod console;
#[cfg(feature = "std")]
pub mod handover;
#[cfg(feature = "std")]
pub mod hex;
#[cfg(feature = "std")]
pub mod host_config;
#[cfg(feature = "std")]
pub mod manifest;
#[cfg(feature = "std")]
pub mod module_alias;
#[cfg(feature = "std")]
pub mod release;
#[cfg(feature = "std")]
pub mod toml_input;
#[cfg(feature = "std")]
pub mod update;
#[cfg(feature = "std")]
pub mod update_status;
#[cfg(feature = "std")]
pub mod verity;
#[cfg(feature = "std")]
pub mod version;

pub use layout::Slot;
