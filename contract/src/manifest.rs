//! The image manifest: `NAME-VERSION.manifest.json` beside an image.

use serde::{Deserialize, Serialize};

/// Format of this file. Readers refuse a higher number.
pub const FORMAT: u32 = 1;

/// What an image is made of. Written by the builder, read by `berth inspect` and the updater.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the image definition.
    pub name: String,
    /// Release version.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Debian suite.
    pub suite: String,
    /// `docker` or `containerd`.
    pub runtime: String,
    /// Whether the image carries a debug shell.
    pub debug_shell: bool,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Seconds since 1970 UTC that every timestamp in the image is clamped to.
    pub source_date_epoch: u64,
    /// Size in bytes of the image file. It has no digest: most of it is holes, and what is not
    /// is named by the digests below and by the checksums of partition table and boot record,
    /// which stay right when the image was booted and wrote to itself.
    pub image_size: u64,
    /// The slot picker on the ESP.
    pub picker: File,
    /// The unified kernel image of slot A.
    pub uki: File,
    /// Size in bytes of the root file system, without the free space behind it. Its digest is
    /// the root hash.
    pub root_size: u64,
    /// The dm-verity tree with its superblock.
    pub verity: File,
    /// Root hash of the tree, hexadecimal.
    pub root_hash: String,
    /// Partitions in the order of the disk.
    pub partitions: Vec<Partition>,
    /// Debian packages, by name.
    pub packages: Vec<Package>,
}

/// A file or a byte range, by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// A partition of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// GPT partition name.
    pub label: String,
    /// GPT partition type.
    pub type_guid: String,
    /// GPT partition GUID.
    pub guid: String,
    /// Byte offset in the image.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// A Debian package in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Binary package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// SHA-256 of the .deb, hexadecimal.
    pub sha256: String,
}
