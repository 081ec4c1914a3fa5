//! GUID partition tables (UEFI 2.10, chapter 5), as bytes.
//!
//! The slot picker reads them, the builder writes them, `init` moves the backup to the end of a
//! larger disk. Reading needs no allocator; whole tables ([`Table`]) need `std`.

use crate::record::{array_at, u32_at, u64_at};
use crate::text::Text;

/// A GUID in the mixed-endian byte order of the specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

impl Guid {
    /// All zeros: the type of an unused entry.
    pub const ZERO: Guid = Guid([0; 16]);

    /// From the number one reads in the usual notation without its hyphens.
    pub const fn from_u128(value: u128) -> Guid {
        let b = value.to_be_bytes();
        Guid([
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
            b[14], b[15],
        ])
    }

    /// A version 8 (custom) GUID made of the first 16 bytes of a digest. The same content gives
    /// the same image.
    pub const fn from_digest(digest: &[u8; 32]) -> Guid {
        let mut b = [0; 16];
        let mut i = 0;
        while i < 16 {
            b[i] = digest[i];
            i += 1;
        }
        b[7] = b[7] & 0x0f | 0x80;
        b[8] = b[8] & 0x3f | 0x80;
        Guid(b)
    }

    /// From the bytes on disk.
    pub const fn from_bytes(bytes: [u8; 16]) -> Guid {
        Guid(bytes)
    }

    /// The bytes on disk.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl core::fmt::Display for Guid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, at) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[*at])?;
        }
        Ok(())
    }
}

impl core::fmt::Debug for Guid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Logical sector sizes in bytes that a disk can have. A table counts in its disk's own sectors: one
/// that was written for the other size is not found by firmware.
pub const SECTOR_SIZES: [u64; 2] = [512, 4096];
/// Number of entries in a table that Berth writes, and the most that it reads.
pub const ENTRIES: u32 = 128;
/// Size in bytes of one entry.
pub const ENTRY_SIZE: usize = 128;
/// Size in bytes of the entry array.
pub const ENTRIES_LEN: usize = ENTRIES as usize * ENTRY_SIZE;

const HEADER_LEN: usize = 92;

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No GPT here.
    #[error("no GPT signature")]
    Signature,
    /// Half-written or rotted.
    #[error("GPT header checksum does not match")]
    HeaderChecksum,
    /// Half-written or rotted.
    #[error("GPT entry array checksum does not match")]
    EntriesChecksum,
    /// Not the 128 entries of 128 bytes that Berth writes.
    #[error("GPT has an unusual shape")]
    Shape,
}

/// A GPT header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// LBA of this header.
    pub my_lba: u64,
    /// LBA of the other header.
    pub alternate_lba: u64,
    /// First LBA that a partition may use.
    pub first_usable: u64,
    /// Last LBA that a partition may use.
    pub last_usable: u64,
    /// Identity of the disk.
    pub disk_guid: Guid,
    /// LBA of this header's entry array.
    pub entries_lba: u64,
    /// CRC-32 of the entry array.
    pub entries_crc: u32,
}

impl Header {
    /// Reads the header at the start of `sector`, which is at least 512 bytes long.
    pub fn decode(sector: &[u8]) -> Result<Header, Invalid> {
        if sector.len() < 512 || sector[0..8] != *b"EFI PART" {
            return Err(Invalid::Signature);
        }
        if u32_at(sector, 12) as usize != HEADER_LEN {
            return Err(Invalid::Shape);
        }
        let mut zeroed: [u8; HEADER_LEN] = array_at(sector, 0);
        zeroed[16..20].fill(0);
        if crc32fast::hash(&zeroed) != u32_at(sector, 16) {
            return Err(Invalid::HeaderChecksum);
        }
        if u32_at(sector, 80) != ENTRIES || u32_at(sector, 84) as usize != ENTRY_SIZE {
            return Err(Invalid::Shape);
        }
        Ok(Header {
            my_lba: u64_at(sector, 24),
            alternate_lba: u64_at(sector, 32),
            first_usable: u64_at(sector, 40),
            last_usable: u64_at(sector, 48),
            disk_guid: Guid(array_at(sector, 56)),
            entries_lba: u64_at(sector, 72),
            entries_crc: u32_at(sector, 88),
        })
    }

    /// The first bytes of the header's sector; the rest of it is zero.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(b"EFI PART");
        out[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        out[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        out[24..32].copy_from_slice(&self.my_lba.to_le_bytes());
        out[32..40].copy_from_slice(&self.alternate_lba.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_usable.to_le_bytes());
        out[48..56].copy_from_slice(&self.last_usable.to_le_bytes());
        out[56..72].copy_from_slice(&self.disk_guid.0);
        out[72..80].copy_from_slice(&self.entries_lba.to_le_bytes());
        out[80..84].copy_from_slice(&ENTRIES.to_le_bytes());
        out[84..88].copy_from_slice(&(ENTRY_SIZE as u32).to_le_bytes());
        out[88..92].copy_from_slice(&self.entries_crc.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks `entries`, the [`ENTRIES_LEN`] bytes at [`Header::entries_lba`].
    pub fn check_entries(&self, entries: &[u8]) -> Result<(), Invalid> {
        if entries.len() != ENTRIES_LEN {
            return Err(Invalid::Shape);
        }
        match crc32fast::hash(entries) == self.entries_crc {
            true => Ok(()),
            false => Err(Invalid::EntriesChecksum),
        }
    }
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Partition type.
    pub type_guid: Guid,
    /// Identity of the partition.
    pub guid: Guid,
    /// First LBA.
    pub first_lba: u64,
    /// Last LBA, inclusive.
    pub last_lba: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Partition name. Names outside ASCII are read with `?` in place of other characters.
    pub label: Text<36>,
}

impl Entry {
    /// Reads one entry; `None` when it is unused.
    pub fn decode(bytes: &[u8; ENTRY_SIZE]) -> Option<Entry> {
        let type_guid = Guid(array_at(bytes, 0));
        if type_guid == Guid::ZERO {
            return None;
        }
        let mut name = [0; 36];
        for (out, unit) in name.iter_mut().zip(bytes[56..].chunks_exact(2)) {
            let unit = u16::from_le_bytes([unit[0], unit[1]]);
            *out = if unit < 128 { unit as u8 } else { b'?' };
        }
        Some(Entry {
            type_guid,
            guid: Guid(array_at(bytes, 16)),
            first_lba: u64_at(bytes, 32),
            last_lba: u64_at(bytes, 40),
            attributes: u64_at(bytes, 48),
            label: Text::from_padded(&name),
        })
    }

    /// The bytes of the entry.
    pub fn encode(&self) -> [u8; ENTRY_SIZE] {
        let mut out = [0; ENTRY_SIZE];
        out[0..16].copy_from_slice(&self.type_guid.0);
        out[16..32].copy_from_slice(&self.guid.0);
        out[32..40].copy_from_slice(&self.first_lba.to_le_bytes());
        out[40..48].copy_from_slice(&self.last_lba.to_le_bytes());
        out[48..56].copy_from_slice(&self.attributes.to_le_bytes());
        for (unit, c) in out[56..].chunks_exact_mut(2).zip(self.label.as_str().encode_utf16()) {
            unit.copy_from_slice(&c.to_le_bytes());
        }
        out
    }

    /// Number of sectors.
    pub const fn sectors(&self) -> u64 {
        self.last_lba.saturating_add(1).saturating_sub(self.first_lba)
    }
}

/// The used entries of an entry array.
pub fn entries(array: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    array.chunks_exact(ENTRY_SIZE).filter_map(|bytes| Entry::decode(&array_at(bytes, 0)))
}

#[cfg(feature = "std")]
pub use table::{Encoded, Table};

#[cfg(feature = "std")]
mod table {
    use super::*;

    /// A whole partition table of a disk.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Table {
        /// Identity of the disk.
        pub disk_guid: Guid,
        /// Logical sector size in bytes: 512 or 4096.
        pub sector_size: u64,
        /// Size of the disk in sectors.
        pub disk_sectors: u64,
        /// The partitions, in order.
        pub entries: Vec<Entry>,
    }

    /// The bytes of a table and where they go. Write and flush `backup` first when both change.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Encoded {
        /// Protective MBR, header and entries: goes to offset 0.
        pub primary: Vec<u8>,
        /// Entries and header: goes to `backup_offset`.
        pub backup: Vec<u8>,
        /// Byte offset of `backup`; it ends at the end of the disk.
        pub backup_offset: u64,
    }

    impl Table {
        /// Sectors of one entry array.
        const fn entry_sectors(&self) -> u64 {
            (ENTRIES_LEN as u64).div_ceil(self.sector_size)
        }

        /// First LBA that a partition may use.
        pub const fn first_usable(&self) -> u64 {
            2 + self.entry_sectors()
        }

        /// Last LBA that a partition may use.
        pub const fn last_usable(&self) -> u64 {
            self.disk_sectors - 2 - self.entry_sectors()
        }

        /// The bytes of the table.
        pub fn encode(&self) -> Encoded {
            let sector = self.sector_size as usize;
            let last = self.disk_sectors - 1;
            let mut array = vec![0; self.entry_sectors() as usize * sector];
            for (out, entry) in array.chunks_exact_mut(ENTRY_SIZE).zip(&self.entries) {
                out.copy_from_slice(&entry.encode());
            }
            let header = Header {
                my_lba: 1,
                alternate_lba: last,
                first_usable: self.first_usable(),
                last_usable: self.last_usable(),
                disk_guid: self.disk_guid,
                entries_lba: 2,
                entries_crc: crc32fast::hash(&array[..ENTRIES_LEN]),
            };
            let backup_header = Header {
                my_lba: last,
                alternate_lba: 1,
                entries_lba: last - self.entry_sectors(),
                ..header
            };
            let mut primary = self.protective_mbr().to_vec();
            primary.resize(sector, 0);
            primary.extend_from_slice(&header.encode());
            primary.resize(2 * sector, 0);
            primary.extend_from_slice(&array);
            let mut backup = array;
            backup.extend_from_slice(&backup_header.encode());
            backup.resize(backup.len().next_multiple_of(sector), 0);
            let backup_offset = backup_header.entries_lba * self.sector_size;
            Encoded { primary, backup, backup_offset }
        }

        /// The first 512 bytes of the disk. UEFI 2.10, section 5.2.3: one partition of type 0xEE
        /// over the whole disk, and no boot code.
        pub fn protective_mbr(&self) -> [u8; 512] {
            let mut mbr = [0; 512];
            mbr[446..454].copy_from_slice(&[0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
            mbr[454..458].copy_from_slice(&1_u32.to_le_bytes());
            let size = u32::try_from(self.disk_sectors - 1).unwrap_or(u32::MAX);
            mbr[458..462].copy_from_slice(&size.to_le_bytes());
            mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
            mbr
        }

        /// Reads a table: `header` is the sector of either header, `array` its entry array, and
        /// `disk_sectors` the size of the disk that they were found on.
        pub fn decode(
            header: &[u8],
            array: &[u8],
            sector_size: u64,
            disk_sectors: u64,
        ) -> Result<Table, Invalid> {
            let header = Header::decode(header)?;
            header.check_entries(array)?;
            let entries = entries(array).collect();
            Ok(Table { disk_guid: header.disk_guid, sector_size, disk_sectors, entries })
        }

        /// The partition called `label`.
        pub fn find(&self, label: &str) -> Option<&Entry> {
            self.entries.iter().find(|entry| entry.label.as_str() == label)
        }

        /// Extends the last partition to the end of the disk, less what alignment takes. Returns
        /// whether that changed anything.
        pub fn grow_last(&mut self) -> bool {
            let align = crate::layout::ALIGNMENT / self.sector_size;
            let end = (self.last_usable() + 1) / align * align;
            match self.entries.iter_mut().max_by_key(|entry| entry.first_lba) {
                Some(last) if end > last.last_lba.saturating_add(1) => {
                    last.last_lba = end - 1;
                    true
                }
                _ => false,
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::layout::Partition;

    fn sample(sector_size: u64) -> Table {
        let mib = (1 << 20) / sector_size;
        let entry = |partition: Partition, first, last| Entry {
            type_guid: partition.type_guid(),
            guid: Guid::from_u128(first as u128),
            first_lba: first * mib,
            last_lba: last * mib - 1,
            attributes: 0,
            label: Text::new(partition.label()),
        };
        Table {
            disk_guid: Guid::from_u128(42),
            sector_size,
            disk_sectors: 100 * mib,
            entries: vec![entry(Partition::Esp, 1, 30), entry(Partition::Data, 30, 99)],
        }
    }

    #[test]
    fn both_copies_round_trip_in_both_sector_sizes() {
        for size in [512_u64, 4096] {
            let table = sample(size);
            let bytes = table.encode();
            let (s, sectors) = (size as usize, table.disk_sectors);
            let array = &bytes.primary[2 * s..][..ENTRIES_LEN];
            let read = Table::decode(&bytes.primary[s..2 * s], array, size, sectors);
            assert_eq!(read.as_ref(), Ok(&table));
            let (array, header) = bytes.backup.split_at(bytes.backup.len() - s);
            assert_eq!(Table::decode(header, &array[..ENTRIES_LEN], size, sectors), Ok(table));
            assert_eq!(bytes.backup_offset + bytes.backup.len() as u64, sectors * size);
        }
    }

    #[test]
    fn grows_to_the_end_once() {
        let mut table = sample(512);
        table.disk_sectors *= 3;
        assert!(table.grow_last());
        let data = table.find("data").expect("data");
        assert_eq!(data.last_lba, 299 * 2048 - 1);
        assert!(data.last_lba <= table.last_usable());
        assert!(!table.grow_last());
    }

    #[test]
    fn a_partition_that_ends_behind_every_disk_does_not_overflow() {
        let mut table = sample(512);
        table.entries[1].last_lba = u64::MAX;
        assert!(table.entries[1].sectors() > table.disk_sectors);
        assert!(!table.grow_last());
    }

    #[test]
    fn guid_is_written_as_the_specification_shows_it() {
        let esp = Partition::Esp.type_guid();
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(esp.to_bytes()[..4], [0x28, 0x73, 0x2a, 0xc1]);
    }
}
