//! The disk that this system lies on, and its partitions.

use crate::error::{Error, On};
use crate::log;
use crate::modules::Modules;
use crate::table::{self, Geometry};
use crate::watchdog;
use contract::gpt::{Entry, Guid, Table};
use contract::layout::Partition;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::uevent::Uevents;

/// Time in which the disk has to appear. USB disks take some seconds, RAID controllers more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time in which the kernel has to read the partition table of a disk that appeared.
const PARTITION_PATIENCE: Duration = Duration::from_secs(3);
/// Sysfs is looked at this often even when the kernel says nothing.
const LOOK: Duration = Duration::from_millis(250);

/// Sysfs counts in these, whatever the disk's own sectors are.
const SYSFS_SECTOR: u64 = 512;

/// The disk and the device nodes of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, as in `/sys/class/block`.
    pub name: String,
    /// Partition label to device node.
    pub devices: BTreeMap<String, String>,
}

impl Disk {
    /// The device node of `partition`.
    pub fn device(&self, partition: Partition) -> Result<&str, Error> {
        let label = partition.label();
        self.devices.get(label).map(String::as_str).ok_or_else(|| Error::Invalid {
            object: format!("/dev/{}", self.name),
            problem: format!("has no partition {label}"),
        })
    }
}

/// A disk with a partition table.
#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    table: Table,
}

/// A partition as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPartition {
    /// Kernel name, as in `/sys/class/block`.
    pub name: String,
    /// Number on its disk.
    pub number: i32,
    /// Byte offset on the disk.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Waits for the disk with the partition `esp`, loading modules for the devices on the way to it.
/// Without `esp` it is the only disk with a `berth-state` partition.
pub fn find(modules: &mut Modules, esp: Option<Guid>) -> Result<Disk, Error> {
    // Opened before the first look, so that no device is missed between two looks.
    let uevents = Uevents::open().on("listen to", "the kernel's device events")?;
    let start = Instant::now();
    let mut seen_at = None;
    loop {
        watchdog::alive();
        modules.coldplug();
        let (candidates, others) = scan();
        if let Some(candidate) = choose(&candidates, esp)? {
            let since = *seen_at.get_or_insert_with(Instant::now);
            let late = since.elapsed() > PARTITION_PATIENCE;
            if late {
                add_missing(candidate);
            }
            let disk = with_devices(candidate);
            if late || disk.devices.len() == known_entries(&candidate.table).len() {
                return Ok(disk);
            }
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::Disk(not_found(&candidates, &others, esp)));
        }
        wait(&uevents)?;
    }
}

/// Waits for the kernel to say something, and until it has said all.
fn wait(uevents: &Uevents) -> Result<(), Error> {
    let mut patience = LOOK;
    // More than any burst holds; a device that never stops must not hold up the loop above.
    for _ in 0..10_000 {
        match uevents.next(Some(patience)).on("listen to", "the kernel's device events")? {
            Some(_) => patience = Duration::ZERO,
            None => break,
        }
    }
    Ok(())
}

/// Decides which disk is ours; `None` while it has not appeared.
fn choose(candidates: &[Candidate], esp: Option<Guid>) -> Result<Option<&Candidate>, Error> {
    let is_ours = |entry: &Entry| match esp {
        Some(guid) => entry.guid == guid,
        None => is(entry, Partition::State),
    };
    let ours: Vec<&Candidate> =
        candidates.iter().filter(|disk| disk.table.entries.iter().any(is_ours)).collect();
    match ours[..] {
        [] => Ok(None),
        [one] if one.table.entries.iter().any(|entry| is(entry, Partition::State)) => Ok(Some(one)),
        [one] => Err(Error::Disk(format!(
            "disk {}, which the slot picker was loaded from, has no partition {}",
            one.name,
            Partition::State.label()
        ))),
        // Writing to the wrong one would be worse than not starting.
        [one, two, ..] => Err(Error::Disk(format!(
            "disks {} and {} cannot be told apart: take one out",
            one.name, two.name
        ))),
    }
}

fn is(entry: &Entry, partition: Partition) -> bool {
    entry.label.as_str() == partition.label() && entry.type_guid == partition.type_guid()
}

/// The entries that Berth uses: each label once, and within the disk.
fn known_entries(table: &Table) -> Vec<(Partition, &Entry)> {
    let usable = |entry: &&Entry| {
        entry.first_lba > 1
            && entry.first_lba <= entry.last_lba
            && entry.last_lba < table.disk_sectors
    };
    let of = |partition| {
        let mut all = table.entries.iter().filter(|entry| is(entry, partition)).filter(usable);
        let first = all.next()?;
        // Of two with one label neither can be trusted.
        all.next().is_none().then_some((partition, first))
    };
    Partition::ALL.into_iter().filter_map(of).collect()
}

fn with_devices(Candidate { name, table }: &Candidate) -> Disk {
    let partitions = kernel_partitions(name);
    let devices = known_entries(table).into_iter().filter_map(|(partition, entry)| {
        let start = entry.first_lba * table.sector_size;
        let node = partitions.iter().find(|known| known.start == start)?;
        Some((partition.label().to_owned(), format!("/dev/{}", node.name)))
    });
    Disk { name: name.clone(), devices: devices.collect() }
}

/// Tells the kernel of partitions that it has not found itself: it ignores the backup table when
/// the primary one is torn.
fn add_missing(Candidate { name, table }: &Candidate) {
    let partitions = kernel_partitions(name);
    let known = known_entries(table);
    let starts = known.iter().map(|(_, entry)| {
        let start = entry.first_lba * table.sector_size;
        (entry, start, entry.sectors() * table.sector_size)
    });
    for (entry, start, len) in starts {
        if partitions.iter().any(|partition| partition.start == start) {
            continue;
        }
        let at = table.entries.iter().position(|other| other == *entry).unwrap_or(0);
        let number = i32::try_from(at + 1).unwrap_or(i32::MAX);
        let added = File::open(format!("/dev/{name}"))
            .and_then(|disk| sys::block::add_partition(&disk, number, start, len));
        if let Err(e) = added {
            log::warning(&format!("partition {} of {name} is not usable: {e}", entry.label));
        }
    }
}

/// The partitions of disk `name` as the kernel sees them.
pub fn kernel_partitions(name: &str) -> Vec<KernelPartition> {
    let folder = PathBuf::from(format!("/sys/class/block/{name}"));
    let partition = |path: PathBuf| {
        Some(KernelPartition {
            name: path.file_name()?.to_str()?.to_owned(),
            number: i32::try_from(number(&path.join("partition"))?).ok()?,
            start: number(&path.join("start"))?.checked_mul(SYSFS_SECTOR)?,
            len: number(&path.join("size"))?.checked_mul(SYSFS_SECTOR)?,
        })
    };
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| partition(entry.path()))
        .collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim_end().parse().ok()
}

/// Size of disk `name`. `None` when it is gone or has no medium.
pub fn geometry(name: &str) -> Option<Geometry> {
    let folder = PathBuf::from(format!("/sys/class/block/{name}"));
    let sector_size = number(&folder.join("queue/logical_block_size"))?;
    let len = number(&folder.join("size"))?.checked_mul(SYSFS_SECTOR)?;
    let sectors = len.checked_div(sector_size)?;
    (sectors > 0).then_some(Geometry { sector_size, sectors })
}

/// The kernel names of all disks, in order.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    let disks = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let is_disk = !is_not_a_disk(&name) && !entry.path().join("partition").exists();
        is_disk.then_some(name)
    });
    let mut names: Vec<String> = disks.collect();
    names.sort();
    names
}

/// Disk `name` by its partition table, with partitions that the kernel has not looked for.
pub fn open(name: &str) -> Result<Disk, Error> {
    let node = format!("/dev/{name}");
    let geometry = geometry(name).ok_or_else(|| Error::Disk(format!("disk {name} is gone")))?;
    let file = File::open(&node).on("open", &node)?;
    let table = table::read(&file, &node, geometry)?.table;
    let candidate = Candidate { name: name.to_owned(), table };
    add_missing(&candidate);
    let start = Instant::now();
    loop {
        let disk = with_devices(&candidate);
        let there = disk.devices.values().all(|node| Path::new(node).exists());
        if there && disk.devices.len() == known_entries(&candidate.table).len() {
            return Ok(disk);
        }
        if start.elapsed() > PARTITION_PATIENCE {
            return Err(Error::Disk(format!("the partitions of disk {name} do not appear")));
        }
        std::thread::sleep(LOOK / 10);
    }
}

/// All disks with a partition table, and what the others are.
fn scan() -> (Vec<Candidate>, Vec<String>) {
    let mut candidates = Vec::new();
    let mut others = Vec::new();
    for name in names() {
        let Some(geometry) = geometry(&name) else { continue };
        let table = File::open(format!("/dev/{name}"))
            .on("open", &name)
            .and_then(|disk| table::read(&disk, &name, geometry));
        match table {
            Ok(on_disk) => candidates.push(Candidate { name, table: on_disk.table }),
            Err(e) => others.push(crate::error::chain(&e)),
        }
    }
    (candidates, others)
}

/// Devices that no system lies on; reading some of them takes long.
fn is_not_a_disk(name: &str) -> bool {
    ["dm-", "loop", "ram", "zram", "nbd", "fd", "sr", "md"].iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn not_found(candidates: &[Candidate], others: &[String], esp: Option<Guid>) -> String {
    let wanted = match esp {
        Some(guid) => format!("no disk with the ESP {guid}"),
        None => format!("no disk with a partition {}", Partition::State.label()),
    };
    let seen: Vec<String> = candidates
        .iter()
        .map(|disk| format!("{}: other partitions", disk.name))
        .chain(others.iter().cloned())
        .collect();
    let seen = if seen.is_empty() { "no disk at all".to_owned() } else { seen.join("; ") };
    format!("{wanted} appeared within {} s (seen: {seen})", PATIENCE.as_secs())
}

/// Grows the partition table to the disk's end. Returns the partition `data` as it is then.
pub fn grow(disk: &Disk) -> Result<KernelPartition, Error> {
    let name = &disk.name;
    let node = format!("/dev/{name}");
    let gone = || Error::Disk(format!("disk {name} is gone"));
    let file = File::options().read(true).write(true).open(&node).on("open", &node)?;
    let on_disk = table::read(&file, &node, geometry(name).ok_or_else(gone)?)?;
    let table = match table::grown(&on_disk) {
        Some(table) => {
            table::write(&file, &node, &table)?;
            table
        }
        None => on_disk.table,
    };
    let device = disk.device(Partition::Data)?;
    let find =
        || kernel_partitions(name).into_iter().find(|p| format!("/dev/{}", p.name) == device);
    let data = find().ok_or_else(gone)?;
    let len = known_entries(&table)
        .into_iter()
        .find(|(partition, _)| *partition == Partition::Data)
        .map_or(data.len, |(_, entry)| entry.sectors() * table.sector_size);
    if len > data.len {
        match sys::block::resize_partition(&file, data.number, data.start, len) {
            // Next boot the kernel reads it from the table.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
            other => other.on("grow", device)?,
        }
    }
    find().ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::text::Text;

    fn entry(partition: Partition, guid: u128, first_lba: u64) -> Entry {
        Entry {
            type_guid: partition.type_guid(),
            guid: Guid::from_u128(guid),
            first_lba,
            last_lba: first_lba + 9,
            attributes: 0,
            label: Text::new(partition.label()),
        }
    }

    fn candidate(name: &str, entries: Vec<Entry>) -> Candidate {
        let disk_guid = Guid::from_u128(9);
        let table = Table { disk_guid, sector_size: 512, disk_sectors: 1000, entries };
        Candidate { name: name.to_owned(), table }
    }

    fn berth(name: &str, esp: u128) -> Candidate {
        candidate(name, vec![entry(Partition::Esp, esp, 40), entry(Partition::State, esp + 1, 60)])
    }

    #[test]
    fn choice_table() {
        let chosen = |candidates: &[Candidate], esp: Option<u128>| {
            choose(candidates, esp.map(Guid::from_u128))
                .map(|found| found.map(|disk| disk.name.clone()))
                .map_err(|e| e.to_string())
        };
        let (a, b) = (berth("vda", 10), berth("vdb", 20));
        let other = candidate("sda", vec![entry(Partition::Esp, 30, 40)]);
        let found = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(chosen(&[], None), Ok(None));
        assert_eq!(chosen(std::slice::from_ref(&a), None), found("vda"));
        assert_eq!(chosen(&[other.clone(), a.clone()], None), found("vda"));
        assert_eq!(chosen(&[a.clone(), b.clone()], Some(20)), found("vdb"));
        assert_eq!(chosen(&[a.clone(), b.clone()], Some(99)), Ok(None));
        for (disks, esp) in [
            (vec![a.clone(), b], None),
            (vec![a.clone(), berth("sdb", 10)], Some(10)),
            (vec![other, a], Some(30)),
        ] {
            assert!(chosen(&disks, esp).is_err(), "{disks:?} {esp:?}");
        }
    }

    #[test]
    fn only_partitions_within_the_disk_and_with_a_label_of_their_own_are_used() {
        let strange = Entry { type_guid: Guid::from_u128(5), ..entry(Partition::Esp, 1, 40) };
        let disk = candidate(
            "vda",
            vec![
                entry(Partition::State, 1, 40),
                entry(Partition::Data, 2, 995),
                entry(Partition::Esp, 3, 60),
                entry(Partition::Esp, 4, 80),
                strange,
                Entry { last_lba: 1, ..entry(Partition::Boot(contract::Slot::A), 5, 90) },
            ],
        );
        let known: Vec<_> = known_entries(&disk.table).into_iter().map(|(p, _)| p).collect();
        assert_eq!(known, [Partition::State]);
    }

    #[test]
    fn other_block_devices_are_passed_over() {
        for name in ["loop0", "dm-3", "sr0", "fd0", "ram15", "zram0", "nbd1", "md127"] {
            assert!(is_not_a_disk(name), "{name}");
        }
        for name in ["vda", "sda", "nvme0n1", "mmcblk0", "fdx", "srx"] {
            assert!(!is_not_a_disk(name), "{name}");
        }
    }
}
