//! The disk image: filesystems, kernel image, partitions.

pub mod disk;
pub mod ext4;
pub mod fat;
pub mod new_file;
pub mod pe;
pub mod root;
pub mod uki;
pub mod verity;
pub mod window;
