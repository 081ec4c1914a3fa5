//! The partition table of a disk: reading whichever copy is whole, and growing it.

use crate::error::{Error, On};
use contract::gpt::{ENTRIES_LEN, Header, Invalid, SECTOR_SIZES, Table};
use contract::layout::Partition;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A table as it lies on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// What it says.
    pub table: Table,
    /// Whether both copies are whole, equal, and the backup lies at the disk's end.
    pub in_order: bool,
}

/// Geometry of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical sector size in bytes.
    pub sector_size: u64,
    /// Size in sectors.
    pub sectors: u64,
}

/// Reads the table of `disk`, called `name` in errors.
pub fn read(disk: &File, name: &str, geometry: Geometry) -> Result<OnDisk, Error> {
    let (primary, primary_header) = match read_copy(disk, name, geometry, 1)? {
        Ok((table, header)) => (Ok(table), Some(header)),
        Err(e) => (Err(e), None),
    };
    let last = geometry.sectors.saturating_sub(1);
    // A copy elsewhere than at the end is left over from a smaller disk.
    let backup = read_copy(disk, name, geometry, last)?.map(|(table, _)| table);
    let in_order = primary == backup && primary_header.is_some_and(|h| h.alternate_lba == last);
    match primary.or_else(|first| backup.map_err(|_| first)) {
        Ok(table) => Ok(OnDisk { table, in_order }),
        Err(e) => Err(Error::Invalid { object: name.to_owned(), problem: e.to_string() }),
    }
}

/// The copy whose header lies at `lba`.
fn read_copy(
    disk: &File,
    name: &str,
    Geometry { sector_size, sectors }: Geometry,
    lba: u64,
) -> Result<Result<(Table, Header), Invalid>, Error> {
    if !SECTOR_SIZES.contains(&sector_size) || lba == 0 || lba >= sectors {
        return Ok(Err(Invalid::Shape));
    }
    let mut sector = vec![0; sector_size as usize];
    disk.read_exact_at(&mut sector, lba * sector_size).on("read the partition table of", name)?;
    let header = match Header::decode(&sector) {
        Ok(header) => header,
        Err(e) => return Ok(Err(e)),
    };
    let entry_sectors = (ENTRIES_LEN as u64).div_ceil(sector_size);
    let within = header.entries_lba >= 2 && header.entries_lba <= sectors - entry_sectors;
    if header.my_lba != lba || !within {
        return Ok(Err(Invalid::Shape));
    }
    let mut array = vec![0; ENTRIES_LEN];
    disk.read_exact_at(&mut array, header.entries_lba * sector_size)
        .on("read the partition table of", name)?;
    Ok(Table::decode(&sector, &array, sector_size, sectors).map(|table| (table, header)))
}

/// The table to write so that `data` reaches the disk's end and both copies are in order; `None`
/// when nothing is to be done.
pub fn grown(on_disk: &OnDisk) -> Option<Table> {
    let mut table = on_disk.table.clone();
    let last = table.entries.iter().max_by_key(|entry| entry.first_lba)?;
    // Growing anything else would leave the layout that updates rely on; a disk that is smaller
    // than its table is beyond repair here.
    let ours = last.label.as_str() == Partition::Data.label();
    if !ours || table.entries.iter().any(|entry| entry.last_lba > table.last_usable()) {
        return None;
    }
    (table.grow_last() || !on_disk.in_order).then_some(table)
}

/// Writes both copies: the backup first, so that there is a whole one at every instant.
pub fn write(disk: &File, name: &str, table: &Table) -> Result<(), Error> {
    let bytes = table.encode();
    sys::block::write_durably(disk, bytes.backup_offset, &bytes.backup)
        .on("write the backup partition table of", name)?;
    sys::block::write_durably(disk, 0, &bytes.primary).on("write the partition table of", name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::gpt::{Entry, Guid};
    use contract::text::Text;

    const MIB: u64 = 1 << 20;

    fn geometry(sector_size: u64, len: u64) -> Geometry {
        Geometry { sector_size, sectors: len / sector_size }
    }

    fn sample(Geometry { sector_size, sectors }: Geometry) -> Table {
        let entry = |partition: Partition, first: u64, len: u64| Entry {
            type_guid: partition.type_guid(),
            guid: Guid::from_u128(u128::from(first)),
            first_lba: first * MIB / sector_size,
            last_lba: (first + len) * MIB / sector_size - 1,
            attributes: 0,
            label: Text::new(partition.label()),
        };
        Table {
            disk_guid: Guid::from_u128(1),
            sector_size,
            disk_sectors: sectors,
            entries: vec![entry(Partition::State, 1, 4), entry(Partition::Data, 5, 2)],
        }
    }

    /// A disk of 8 MiB with a whole table.
    fn disk(sector_size: u64) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8 * MIB).expect("a size");
        write(&file, "disk", &sample(geometry(sector_size, 8 * MIB))).expect("written");
        file
    }

    #[test]
    fn either_copy_serves_and_both_lost_is_an_error() {
        for sector in [512, 4096] {
            let geometry = geometry(sector, 8 * MIB);
            let disk = disk(sector);
            let whole = OnDisk { table: sample(geometry), in_order: true };
            assert_eq!(read(&disk, "disk", geometry).expect("whole"), whole);
            // Entries of the primary copy, torn.
            disk.write_all_at(&[0xff; 64], 2 * sector).expect("torn");
            let torn = OnDisk { in_order: false, ..whole };
            assert_eq!(read(&disk, "disk", geometry).expect("backup"), torn);
            disk.write_all_at(&[0; 16], 8 * MIB - sector).expect("torn");
            let error = read(&disk, "disk", geometry).unwrap_err().to_string();
            assert_eq!(error, "disk: GPT entry array checksum does not match");
        }
    }

    #[test]
    fn data_grows_to_the_end_of_a_larger_disk_and_only_once() {
        for sector in [512, 4096] {
            let disk = disk(sector);
            disk.set_len(64 * MIB).expect("larger");
            let geometry = geometry(sector, 64 * MIB);
            let found = read(&disk, "disk", geometry).expect("the old table");
            assert!(!found.in_order, "the backup is not at the end");
            let table = grown(&found).expect("something to do");
            let data = table.find("data").expect("data");
            assert_eq!((data.last_lba + 1) * sector, 63 * MIB);
            assert_eq!(table.find("berth-state"), found.table.find("berth-state"));
            write(&disk, "disk", &table).expect("written");
            let found = read(&disk, "disk", geometry).expect("the new table");
            assert_eq!(found, OnDisk { table, in_order: true });
            assert_eq!(grown(&found), None);
        }
    }

    #[test]
    fn power_lost_between_the_copies_leaves_a_table_that_grows() {
        let disk = disk(512);
        disk.set_len(64 * MIB).expect("larger");
        let geometry = geometry(512, 64 * MIB);
        let table = grown(&read(&disk, "disk", geometry).expect("old")).expect("to do");
        let bytes = table.encode();
        disk.write_all_at(&bytes.backup, bytes.backup_offset).expect("the backup only");
        let found = read(&disk, "disk", geometry).expect("a table");
        assert_eq!(grown(&found), Some(table.clone()));
        // And with the primary copy half-written.
        disk.write_all_at(&bytes.primary[..1024 + 128], 0).expect("half the primary");
        let found = read(&disk, "disk", geometry).expect("a table");
        assert_eq!((found.in_order, &found.table), (false, &table));
    }

    #[test]
    fn nothing_but_data_grows_and_nothing_on_a_smaller_disk() {
        let geometry = geometry(512, 64 * MIB);
        let mut table = sample(geometry);
        table.entries.pop();
        assert_eq!(grown(&OnDisk { table, in_order: false }), None);
        let table = Table { disk_sectors: 6 * MIB / 512, ..sample(geometry) };
        assert_eq!(grown(&OnDisk { table, in_order: false }), None);
    }

    #[test]
    fn headers_that_point_astray_are_refused() {
        let disk = disk(512);
        let geometry = geometry(512, 8 * MIB);
        let mut sector = [0; 512];
        disk.read_exact_at(&mut sector, 512).expect("header");
        let header = Header::decode(&sector).expect("whole");
        for entries_lba in [0, 1, geometry.sectors, u64::MAX] {
            let bad = Header { entries_lba, ..header }.encode();
            disk.write_all_at(&bad, 512).expect("written");
            let found = read(&disk, "disk", geometry).expect("the backup");
            assert!(!found.in_order, "{entries_lba}");
        }
    }
}
