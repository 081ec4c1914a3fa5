//! A disk of its own for `/var`, named in the host configuration.
//!
//! There is no udev here: a disk is known by what sysfs says of it. One that holds anything that is
//! not ours is refused, never written to.

use crate::disk::{self, Disk};
use crate::error::{Error, On};
use crate::table::{self, Geometry};
use crate::watchdog;
use contract::gpt::{Entry, Guid, Table};
use contract::layout::{ALIGNMENT, Partition};
use contract::module_alias;
use contract::text::Text;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time in which the disk has to appear.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

/// How much of a disk's start and end has to be zero for it to count as empty: partition tables,
/// RAID, volume managers and filesystems all leave something in one of the two.
const LOOKED_AT: u64 = 1 << 20;
const PIECE: usize = 16 << 10;

/// Attribute 63 of a partition of the type that `data` has: it is not mounted by itself
/// (Discoverable Partitions Specification, "no-auto"). Set while its filesystem is being made.
const BEING_MADE: u64 = 1 << 63;

/// A disk and what it can be called by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: String,
    /// Kernel name, serial numbers, WWIDs.
    identifiers: Vec<String>,
}

/// What is to be done with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// It has our partition.
    Use,
    /// It is empty.
    Prepare,
    /// It holds something else.
    Refuse(String),
}

/// The disk that `wanted` names, with a partition for `/var`; `system`: the one that the system
/// lies on. `preparing`: a table was being written to it. `begin` is called before the first write.
pub fn open(
    wanted: &str,
    system: &Disk,
    preparing: bool,
    begin: impl FnOnce() -> Result<(), Error>,
) -> Result<Disk, Error> {
    let name = find(wanted, &system.name)?;
    if name == system.name {
        return Ok(system.clone());
    }
    let node = format!("/dev/{name}");
    let geometry =
        disk::geometry(&name).ok_or_else(|| Error::Disk(format!("disk {name} is gone")))?;
    let file = File::options().read(true).write(true).open(&node).on("open", &node)?;
    let found = table::read(&file, &node, geometry).map(|on_disk| on_disk.table);
    let zeros = zeros(&file, &node, geometry)?;
    match plan(found.as_ref().ok(), zeros, preparing) {
        Plan::Use => {}
        Plan::Refuse(what) => {
            return Err(Error::Var(format!(
                "disk {name} ({wanted}) holds {what}, and is left alone"
            )));
        }
        Plan::Prepare => {
            begin()?;
            let table = fresh(geometry)
                .ok_or_else(|| Error::Var(format!("disk {name} is too small for /var")))?;
            table::write(&file, &node, &table)?;
        }
    }
    drop(file);
    disk::open(&name)
}

/// Whether the filesystem of the partition `data` on `disk` was never used.
pub fn is_being_made(disk: &Disk) -> Result<bool, Error> {
    let entry = read(disk)?.find(Partition::Data.label()).map(|entry| entry.attributes);
    Ok(entry.is_some_and(|attributes| attributes & BEING_MADE != 0))
}

/// Notes in the partition table whether the filesystem is being made.
pub fn set_being_made(disk: &Disk, being_made: bool) -> Result<(), Error> {
    let mut table = read(disk)?;
    for entry in &mut table.entries {
        match being_made {
            true => entry.attributes |= BEING_MADE,
            false => entry.attributes &= !BEING_MADE,
        }
    }
    let node = format!("/dev/{}", disk.name);
    let file = File::options().read(true).write(true).open(&node).on("open", &node)?;
    table::write(&file, &node, &table)
}

fn read(disk: &Disk) -> Result<Table, Error> {
    let node = format!("/dev/{}", disk.name);
    let gone = || Error::Disk(format!("disk {} is gone", disk.name));
    let file = File::open(&node).on("open", &node)?;
    Ok(table::read(&file, &node, disk::geometry(&disk.name).ok_or_else(gone)?)?.table)
}

/// Waits until exactly one disk is called so.
fn find(wanted: &str, system: &str) -> Result<String, Error> {
    let start = Instant::now();
    loop {
        watchdog::alive();
        let known = known();
        if let Some(found) = choose(&known, wanted, system)? {
            return Ok(found.to_owned());
        }
        if start.elapsed() > PATIENCE {
            let seen: Vec<String> = known.iter().map(|disk| disk.identifiers.join(" = ")).collect();
            return Err(Error::Var(format!(
                "no disk is called {wanted} (there are: {})",
                seen.join("; ")
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// Decides which disk `wanted` names; `None` while it has not appeared. The system's own is meant
/// only where no other is.
fn choose<'a>(known: &'a [Known], wanted: &str, system: &str) -> Result<Option<&'a str>, Error> {
    let wanted_lower = wanted.trim().to_ascii_lowercase();
    let is_meant = |disk: &&Known| {
        let mut identifiers = disk.identifiers.iter().map(|id| id.to_ascii_lowercase());
        identifiers.any(|id| id == wanted_lower || module_alias::matches(&wanted_lower, &id))
    };
    let (own, others): (Vec<&Known>, Vec<&Known>) =
        known.iter().filter(is_meant).partition(|disk| disk.name == system);
    match (&others[..], &own[..]) {
        ([], []) => Ok(None),
        ([one], _) | ([], [one, ..]) => Ok(Some(&one.name)),
        ([one, two, ..], _) => {
            let (one, two) = (&one.name, &two.name);
            Err(Error::Var(format!("{wanted} means disk {one} as well as {two}")))
        }
    }
}

/// Decides by the partition table and by whether start and end of the disk are zero.
fn plan(table: Option<&Table>, [start, end]: [bool; 2], preparing: bool) -> Plan {
    let Some(table) = table else {
        // The table's backup goes first, and power may be lost while it is written.
        return match start && (end || preparing) {
            true => Plan::Prepare,
            false => Plan::Refuse("something that is not Berth's".to_owned()),
        };
    };
    let label = |entry: &Entry| entry.label.as_str().to_owned();
    match &table.entries[..] {
        [one]
            if one.type_guid == Partition::Data.type_guid()
                && one.label.as_str() == Partition::Data.label() =>
        {
            Plan::Use
        }
        entries if entries.iter().any(|e| e.type_guid == Partition::State.type_guid()) => {
            Plan::Refuse("the system of a Berth host".to_owned())
        }
        [] => Plan::Refuse("an empty partition table that is not Berth's".to_owned()),
        entries => {
            let labels: Vec<String> = entries.iter().map(label).collect();
            Plan::Refuse(format!("other partitions: {}", labels.join(", ")))
        }
    }
}

/// A table with one partition over the whole disk. `None`: it is too small for a filesystem.
fn fresh(Geometry { sector_size, sectors }: Geometry) -> Option<Table> {
    /// Smaller ones have no room for containers anyway.
    const SMALLEST: u64 = 64 << 20;
    if sectors.checked_mul(sector_size)? < SMALLEST {
        return None;
    }
    let first_lba = ALIGNMENT / sector_size;
    let data = Entry {
        type_guid: Partition::Data.type_guid(),
        guid: random_guid(),
        first_lba,
        last_lba: first_lba,
        attributes: BEING_MADE,
        label: Text::new(Partition::Data.label()),
    };
    let mut table =
        Table { disk_guid: random_guid(), sector_size, disk_sectors: sectors, entries: vec![data] };
    table.grow_last();
    Some(table)
}

/// RFC 9562, version 4.
fn random_guid() -> Guid {
    let mut random = crate::random::Random::new();
    let number = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
    let version = number & !(0xf << 76) | 0x4 << 76;
    Guid::from_u128(version & !(0x3 << 62) | 0x2 << 62)
}

/// Whether the first and the last mebibyte are zero.
fn zeros(disk: &File, node: &str, geometry: Geometry) -> Result<[bool; 2], Error> {
    let len = geometry.sectors.saturating_mul(geometry.sector_size);
    let zero = |from: u64| -> Result<bool, Error> {
        let mut piece = [0; PIECE];
        for at in (from..(from + LOOKED_AT).min(len)).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min((len - at) as usize)];
            disk.read_exact_at(piece, at).on("read", node)?;
            if piece.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok([zero(0)?, zero(len.saturating_sub(LOOKED_AT))?])
}

/// All disks, by name.
fn known() -> Vec<Known> {
    let known = |name: String| Known { identifiers: identifiers(&name), name };
    disk::names().into_iter().map(known).collect()
}

/// What sysfs says of a disk: its own `serial` and `wwid`, else those of the device that it is on. A
/// SCSI or ATA disk has its serial number in a page of vital product data, one on USB that of the
/// stick.
fn identifiers(name: &str) -> Vec<String> {
    let mut found = vec![name.to_owned()];
    let block = PathBuf::from(format!("/sys/class/block/{name}"));
    let mut add = |text: Option<String>| {
        if let Some(text) = text.filter(|text| !text.is_empty() && !found.contains(text)) {
            found.push(text);
        }
    };
    add(attribute(&block.join("wwid")));
    add(attribute(&block.join("device/wwid")));
    add(serial_page(&block.join("device/vpd_pg80")));
    let real = fs::canonicalize(&block).unwrap_or(block);
    // Devices above the bus of the disk have serial numbers too, but they are not the disk's.
    let mut folders = real.ancestors().take_while(|folder| folder.starts_with("/sys/devices/"));
    add(folders.find_map(|folder| attribute(&folder.join("serial"))));
    found
}

/// A line of sysfs. Parts of it may be padded.
fn attribute(path: &Path) -> Option<String> {
    /// Attributes are a page.
    const MOST: u64 = 4096;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    text(&bytes)
}

/// The unit serial number (SPC-4, section 7.8.15): four bytes, the last two of which are its length.
fn serial_page(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    text(bytes.get(4..)?)
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control() || c == '\0');
    let text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, identifiers: &[&str]) -> Known {
        let all = std::iter::once(&name).chain(identifiers);
        Known { name: name.to_owned(), identifiers: all.map(|s| (*s).to_owned()).collect() }
    }

    #[test]
    fn a_disk_is_meant_by_any_of_its_names() {
        let disks = [
            known("vda", &[]),
            known("sda", &["naa.5000C500A1B2C3D4", "ZA1 2B3C"]),
            known("nvme0n1", &["eui.0025385b71b0f1c2", "S4EVNF0M123456"]),
            known("nvme1n1", &["eui.0025385b71b0f1c3", "S4EVNF0M123457"]),
        ];
        let chosen = |wanted: &str| {
            choose(&disks, wanted, "vda").map(|found| found.map(str::to_owned)).map_err(|_| ())
        };
        let found = |name: &str| Ok(Some(name.to_owned()));
        for (wanted, expected) in [
            ("sda", found("sda")),
            ("naa.5000c500a1b2c3d4", found("sda")),
            ("ZA1 2B3C", found("sda")),
            ("s4evnf0m123456", found("nvme0n1")),
            ("*123457", found("nvme1n1")),
            ("eui.*3", found("nvme1n1")),
            // The system's own, where it is the only one.
            ("vda", found("vda")),
            ("vd*", found("vda")),
            ("?da", found("sda")),
            ("S4EVNF0M*", Err(())),
            ("*", Err(())),
            ("sdb", Ok(None)),
            ("S4EVNF", Ok(None)),
        ] {
            assert_eq!(chosen(wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn nothing_but_an_empty_disk_or_ours_is_taken() {
        let geometry = Geometry { sector_size: 512, sectors: 1 << 20 };
        let ours = fresh(geometry).expect("large enough");
        let with = |change: fn(&mut Table)| {
            let mut table = ours.clone();
            change(&mut table);
            table
        };
        let used = with(|t| t.entries[0].attributes = 0);
        let renamed = with(|t| t.entries[0].label = Text::new("backup"));
        let retyped = with(|t| t.entries[0].type_guid = Partition::Esp.type_guid());
        let more = with(|t| t.entries.push(Entry { label: Text::new("swap"), ..t.entries[0] }));
        let system = with(|t| t.entries[0].type_guid = Partition::State.type_guid());
        let none = with(|t| t.entries.clear());
        let refused = |plan: &Plan| matches!(plan, Plan::Refuse(_));
        for table in [&ours, &used] {
            assert_eq!(plan(Some(table), [false; 2], false), Plan::Use);
        }
        for table in [renamed, retyped, more, system, none] {
            assert!(refused(&plan(Some(&table), [false; 2], false)), "{table:?}");
            assert!(refused(&plan(Some(&table), [false; 2], true)), "{table:?}");
        }
        let cases = [
            ([true, true], false, true),
            ([true, false], false, false),
            ([false, true], false, false),
            ([false, false], true, false),
            // Power was lost while the backup of the table was written.
            ([true, false], true, true),
        ];
        for (zeros, preparing, taken) in cases {
            let plan = plan(None, zeros, preparing);
            assert_eq!(plan == Plan::Prepare, taken, "{zeros:?} {preparing}");
        }
    }

    #[test]
    fn a_fresh_table_spans_the_disk_in_both_sector_sizes() {
        for sector_size in [512, 4096] {
            let geometry = Geometry { sector_size, sectors: (1 << 30) / sector_size };
            let table = fresh(geometry).expect("large enough");
            let data = table.entries[0];
            assert_eq!(data.first_lba * sector_size, 1 << 20);
            assert_eq!((data.last_lba + 1) * sector_size, (1 << 30) - (1 << 20));
            assert_ne!(data.guid, table.disk_guid);
        }
        assert_eq!(fresh(Geometry { sector_size: 512, sectors: 2048 }), None);
    }

    #[test]
    fn an_empty_disk_is_zero_at_both_ends() {
        let geometry = Geometry { sector_size: 512, sectors: (8 << 20) / 512 };
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8 << 20).expect("a size");
        assert_eq!(zeros(&file, "x", geometry).expect("readable"), [true, true]);
        file.write_all_at(&[1], (8 << 20) - 1).expect("written");
        assert_eq!(zeros(&file, "x", geometry).expect("readable"), [true, false]);
        file.write_all_at(&[1], (1 << 20) - 1).expect("written");
        assert_eq!(zeros(&file, "x", geometry).expect("readable"), [false, false]);
    }

    #[test]
    fn padding_is_no_part_of_a_name() {
        assert_eq!(text(b"  QM00001 \0\0\n").as_deref(), Some("QM00001"));
        assert_eq!(
            text(b"t10.ATA     QEMU HARDDISK   QM1").as_deref(),
            Some("t10.ATA QEMU HARDDISK QM1")
        );
        assert_eq!(text(b" \0\n"), None);
    }
}
