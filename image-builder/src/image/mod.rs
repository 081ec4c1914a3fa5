//! The disk image: filesystems, kernel image, partitions, and what is said of them beside it.

pub mod disk;
pub mod ext4;
pub mod fat;
pub mod license;
pub mod manifest;
pub mod pe;
pub mod root;
pub mod sbom;
pub mod uki;
pub mod verity;
pub mod window;
