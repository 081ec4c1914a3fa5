//! What is in an image, as data.

use contract::manifest::{Package, Partition};
use serde::Serialize;

/// Everything that `berth inspect` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file.
    pub image: String,
    /// Its size in bytes.
    pub size: u64,
    /// Sector size in bytes of its partition table.
    pub sector_size: u64,
    /// Identity of the disk.
    pub disk_guid: String,
    /// What is wrong with the primary and the backup partition table.
    pub table_faults: [Option<String>; 2],
    /// Partitions in the order of the table.
    pub partitions: Vec<Partition>,
    /// The ESP.
    pub esp: Esp,
    /// The boot record.
    pub record: Record,
    /// What would boot next, if anything.
    pub next_boot: Option<NextBoot>,
    /// The boot journal, oldest first.
    pub journal: Vec<JournalEntry>,
    /// What is in each slot that is not empty.
    pub slots: Vec<Slot>,
    /// Debian packages of slot A, or of slot B when A tells none.
    pub packages: Vec<Package>,
}

/// The EFI system partition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Esp {
    /// SHA-256 of the slot picker.
    pub picker_sha256: Option<String>,
    /// Size in bytes of the slot picker.
    pub picker_size: Option<u64>,
    /// The host configuration.
    pub host_config: Option<String>,
    /// Why it could not be read.
    pub fault: Option<String>,
}

/// The boot record.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Sequence number of the copy that counts.
    pub sequence: Option<u64>,
    /// What is wrong with each copy; a copy that was never written is empty.
    pub copies: [String; 2],
    /// Whether it had to be pieced together from the boot partitions.
    pub recovered: bool,
}

/// What would boot next.
#[derive(Clone, Debug, Serialize)]
pub struct NextBoot {
    /// `a` or `b`.
    pub slot: String,
    /// Why.
    pub why: String,
}

/// A line of the boot journal.
#[derive(Clone, Debug, Serialize)]
pub struct JournalEntry {
    /// Counts up from 1.
    pub number: u64,
    /// Seconds since 1970 UTC; 0 when the writer had no clock.
    pub time: u64,
    /// Who wrote it.
    pub writer: String,
    /// The slot it is about.
    pub slot: Option<String>,
    /// What happened.
    pub text: String,
}

/// What the boot record and the partitions say of a slot.
#[derive(Clone, Debug, Serialize)]
pub struct Slot {
    /// `a` or `b`.
    pub slot: String,
    /// `healthy`, `trial`, `given up`.
    pub state: String,
    /// Starts left of a trial.
    pub tries: Option<u8>,
    /// The higher one is tried first.
    pub priority: u8,
    /// Release version.
    pub version: String,
    /// Why it was last given up.
    pub reason: String,
    /// Length in bytes of the kernel image.
    pub uki_size: u64,
    /// SHA-256 of the kernel image, as the record has it.
    pub uki_sha256: String,
    /// Root hash.
    pub root_hash: String,
    /// The kernel image's sections.
    pub sections: Vec<Section>,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// Kernel release.
    pub uname: Option<String>,
    /// os-release.
    pub os_release: Option<String>,
    /// What could not be read.
    pub faults: Vec<String>,
}

/// A section of a kernel image.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Name.
    pub name: String,
    /// Byte offset in the kernel image.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}
