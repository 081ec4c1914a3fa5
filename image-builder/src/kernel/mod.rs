//! The kernel's modules and the initramfs.

pub mod cpio;
pub mod initramfs;
pub mod modinfo;
pub mod modules;
