//! The slot picker without its firmware: everything it decides, testable on any machine.
//!
//! Firmware starts the program (`main.rs`, built with the feature `efi`) from the ESP. It finds the
//! disk that it was itself loaded from, and [`pick`] does the rest on that disk alone: find the
//! partitions ([`layout`]), read the boot record ([`store`]), choose a slot
//! (`contract::boot::choose`), check its UKI, start it; on any failure give the slot up, say and
//! journal why, and go on with the other one.
//!
//! Deliberately absent: filesystems, configuration, menus, keyboards, the network, other disks.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod clock;
pub mod device_path;
pub mod failure;
pub mod layout;
pub mod machine;
pub mod store;

#[cfg(test)]
mod fake;
mod pick;

pub use pick::pick;
