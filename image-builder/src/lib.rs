//! Builds, inspects and runs Berth images.
//!
//! One build goes through these modules in order: [`definition`] (what is asked for), [`debian`]
//! (which packages that means, and their bytes), [`tree`] and [`root`] (the files of the host),
//! [`kernel`] (modules and initramfs), [`image`] (filesystems, UKI, partitions, the disk).
//! [`container`] makes container images out of the same packages; [`tools`] runs QEMU and checkers
//! out of Debian packages that are not installed.

pub mod accounts;
pub mod build;
pub mod cache;
pub mod container;
pub mod debian;
pub mod definition;
pub mod elf;
pub mod error;
pub mod guest;
pub mod image;
pub mod inspect;
pub mod kernel;
mod little_endian;
pub mod new_file;
pub mod output;
pub mod prune;
pub mod release;
pub mod root;
pub mod tools;
pub mod tree;
mod tree_export;
mod written;

pub use error::{Error, Result};
