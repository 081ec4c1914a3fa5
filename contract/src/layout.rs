//! The partitions of a Berth disk.
//!
//! Sizes and order are fixed when an image is built and never change on a disk afterwards: an
//! update writes into partitions, it does not move them.

use crate::gpt::Guid;

/// One of the two places a system can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The slot an image is built with.
    A,
    /// Empty until the first update.
    B,
}

impl Slot {
    /// Both slots, in the order that breaks ties.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// The slot that this one is not.
    pub const fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// 0 for A, 1 for B: the position in the boot record.
    pub const fn index(self) -> usize {
        match self {
            Slot::A => 0,
            Slot::B => 1,
        }
    }

    /// `a` or `b`, as in partition labels and on the console.
    pub const fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }

    /// The slot called `name` (`a` or `b`).
    pub fn from_name(name: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.name() == name)
    }
}

impl core::fmt::Display for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A partition of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partition {
    /// FAT32 with the slot picker and the host configuration.
    Esp,
    /// Boot record and boot journal, raw.
    State,
    /// Unified kernel image, raw, with a [trailer](crate::trailer) in the last block.
    Boot(Slot),
    /// Read-only ext4.
    Root(Slot),
    /// dm-verity hash tree of the root of the same slot.
    Verity(Slot),
    /// ext4, made at first boot, mounted at `/var`.
    Data,
}

const MIB: u64 = 1 << 20;

impl Partition {
    /// All partitions in the order in which they lie on the disk. `Data` is last so that it can
    /// grow to the end.
    pub const ALL: [Partition; 9] = [
        Partition::Esp,
        Partition::State,
        Partition::Boot(Slot::A),
        Partition::Boot(Slot::B),
        Partition::Root(Slot::A),
        Partition::Root(Slot::B),
        Partition::Verity(Slot::A),
        Partition::Verity(Slot::B),
        Partition::Data,
    ];

    /// The GPT partition name. Programs find partitions of *their* disk by it.
    pub const fn label(self) -> &'static str {
        match self {
            Partition::Esp => "esp",
            Partition::State => "berth-state",
            Partition::Boot(Slot::A) => "boot-a",
            Partition::Boot(Slot::B) => "boot-b",
            Partition::Root(Slot::A) => "root-a",
            Partition::Root(Slot::B) => "root-b",
            Partition::Verity(Slot::A) => "verity-a",
            Partition::Verity(Slot::B) => "verity-b",
            Partition::Data => "data",
        }
    }

    /// The GPT partition type. Those of the Discoverable Partitions Specification where it has
    /// one (ESP, root and root verity for x86-64, variable data); two of our own otherwise.
    pub const fn type_guid(self) -> Guid {
        match self {
            Partition::Esp => Guid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B),
            Partition::State => Guid::from_u128(0x7FCA3D2B_52F7_4D3B_9A51_0F3B1E5C6E01),
            Partition::Boot(_) => Guid::from_u128(0x7FCA3D2B_52F7_4D3B_9A51_0F3B1E5C6E02),
            Partition::Root(_) => Guid::from_u128(0x4F68BCE3_E8CD_4DB1_96E7_FBCAF984B709),
            Partition::Verity(_) => Guid::from_u128(0x2C7357ED_EBD2_46D9_AEC1_23D437EC2BF5),
            Partition::Data => Guid::from_u128(0x4D21B016_B534_45C2_A9FB_5C16E091FD2D),
        }
    }

    /// Size in bytes when the image definition says nothing. Chosen for ten years of growth,
    /// because a disk cannot be repartitioned by an update. `Data` gets enough to try an image here and
    /// the rest of the disk at first boot.
    pub const fn default_size(self) -> u64 {
        match self {
            Partition::Esp => 300 * MIB,
            Partition::State => STATE_SIZE,
            Partition::Boot(_) => 128 * MIB,
            Partition::Root(_) => 2048 * MIB,
            Partition::Verity(_) => 32 * MIB,
            Partition::Data => 4096 * MIB,
        }
    }
}

/// Partitions start at multiples of this many bytes.
pub const ALIGNMENT: u64 = MIB;

/// Size in bytes of `berth-state`. Fixed: the offsets below lie in it.
pub const STATE_SIZE: u64 = 4 * MIB;

/// Size in bytes of every block that a record, journal entry or trailer is written in: one
/// physical sector of a 4Kn disk, eight of a 512-byte disk.
pub const BLOCK: usize = 4096;

/// Byte offsets of the two copies of the boot record in `berth-state`. A megabyte apart, so that
/// no erase block of a flash disk holds both.
pub const RECORD_OFFSETS: [u64; 2] = [0, MIB];

/// Byte offset of the boot journal in `berth-state`.
pub const JOURNAL_OFFSET: u64 = 2 * MIB;

/// Number of [`BLOCK`]-sized entries in the journal, which is a ring.
pub const JOURNAL_ENTRIES: u64 = 256;

/// Byte offset in `berth-state` of the [data mark](crate::data_mark).
pub const DATA_MARK_OFFSET: u64 = 3 * MIB;

/// Byte offset in `berth-state` of the [data place](crate::data_place).
pub const DATA_PLACE_OFFSET: u64 = DATA_MARK_OFFSET + BLOCK as u64;

/// Data and hash block size in bytes of the dm-verity trees.
pub const VERITY_BLOCK: usize = 4096;

/// Path of the slot picker on the ESP: the removable-media path of UEFI 2.10, section 3.5.1.1,
/// which firmware tries without a boot entry.
pub const PICKER_PATH: &str = "EFI/BOOT/BOOTX64.EFI";

/// Path on the ESP of the file that a person edits.
pub const HOST_CONFIG_PATH: &str = "berth/host.toml";

/// Name of the firmware configuration file (QEMU `-fw_cfg name=...`) that is merged over it.
pub const HOST_CONFIG_FW_CFG: &str = "opt/berth/host.toml";

/// Kernel command line key whose value is the root hash, 64 hexadecimal digits. `init` opens the
/// slot whose verity tree has exactly this root.
pub const CMDLINE_ROOT_HASH: &str = "berth.roothash";

/// Kernel command line key whose value is the release version.
pub const CMDLINE_VERSION: &str = "berth.version";

/// Present on the kernel command line of an image that was built with `[debug] shell = true`.
pub const CMDLINE_DEBUG_SHELL: &str = "berth.debug-shell";

/// Where the running system keeps what the builder tells `init`: see `docs/contract.md`.
pub const LIB_DIR: &str = "usr/lib/berth";

/// What is added, after a dot, to the name of an archive in `images` in [`LIB_DIR`] for the file beside
/// it that tells its content from any other.
pub const IMAGE_IDENTITY: &str = "identity";

/// The list in [`LIB_DIR`] of folders of the root that can be written, one absolute path a line. What
/// is written there is kept below [`WRITTEN_DIR`].
pub const WRITABLE: &str = "writable";

/// For each of [`WRITABLE`], by its path, the layers of an overlay: `upper` and `work`.
pub const WRITTEN_DIR: &str = "/var/lib/berth/writable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_partition_holds_both_copies_and_the_journal() {
        assert!(RECORD_OFFSETS[0] + BLOCK as u64 <= RECORD_OFFSETS[1]);
        assert!(RECORD_OFFSETS[1] + BLOCK as u64 <= JOURNAL_OFFSET);
        assert!(JOURNAL_OFFSET + JOURNAL_ENTRIES * BLOCK as u64 <= DATA_MARK_OFFSET);
        assert!(DATA_MARK_OFFSET + BLOCK as u64 <= DATA_PLACE_OFFSET);
        assert!(DATA_PLACE_OFFSET + BLOCK as u64 <= STATE_SIZE);
    }

    #[test]
    fn data_is_last_and_labels_are_unique() {
        assert_eq!(Partition::ALL[8], Partition::Data);
        for (i, one) in Partition::ALL.iter().enumerate() {
            assert!(Partition::ALL[i + 1..].iter().all(|other| other.label() != one.label()));
        }
    }
}
