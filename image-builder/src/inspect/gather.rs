//! Reads a [`Report`] off a disk. What cannot be read is told in it and stops nothing.

use super::disk::Disk;
use super::report::*;
use crate::Result;
use crate::image::disk::hex;
use crate::image::uki::{self, HEADER_LEN};
use crate::image::verity::Range;
use crate::image::{fat, manifest};
use contract::boot::{self, Why};
use contract::journal;
use contract::layout::{
    self, BLOCK, JOURNAL_ENTRIES, JOURNAL_OFFSET, Partition as Part, RECORD_OFFSETS,
};
use contract::manifest::{Package, Partition as Place};
use contract::record::{self, Invalid, SlotEntry, State, Stored};
use contract::trailer::{self, Trailer};
use sha2::{Digest, Sha256};

/// The longest text section that is shown.
const TEXT_LIMIT: u64 = 64 << 10;
/// The largest package list that is read.
const PACKAGES_LIMIT: u64 = 16 << 20;

/// Reads everything.
pub fn gather(disk: &Disk) -> Result<Report> {
    let stored = stored(disk)?;
    let recovered = stored.record.is_none();
    let record = match stored.record {
        Some(record) => Some(record),
        None => trailer::recover([trailer(disk, layout::Slot::A), trailer(disk, layout::Slot::B)]),
    };
    let mut slots = Vec::new();
    let mut packages = Vec::new();
    for slot in layout::Slot::ALL {
        let Some(entry) = record.map(|r| r[slot]).filter(|e| e.state != State::Empty) else {
            continue;
        };
        slots.push(describe(disk, slot, &entry));
        if packages.is_empty() {
            packages = packages_of(disk, slot).unwrap_or_default();
        }
    }
    if packages.is_empty()
        && let Ok(Some(manifest)) = manifest::read(&manifest::path_beside(&disk.path))
    {
        packages = manifest.packages;
    }
    Ok(Report {
        image: disk.path.display().to_string(),
        size: disk.size,
        sector_size: disk.table.sector_size,
        disk_guid: disk.table.disk_guid.to_string(),
        table_faults: disk.table_faults.clone(),
        partitions: partitions(disk),
        esp: esp(disk),
        record: Record {
            sequence: record.map(|r| r.sequence),
            copies: [0, 1].map(|i| copy(&stored, i)),
            recovered: recovered && record.is_some(),
        },
        next_boot: record
            .and_then(|r| boot::choose(&r, [false; 2]))
            .map(|choice| NextBoot { slot: choice.slot.to_string(), why: why(choice.why) }),
        journal: journal_entries(disk)?,
        slots,
        packages,
    })
}

/// Both copies of the boot record.
pub fn stored(disk: &Disk) -> Result<Stored> {
    // `Disk::open` has seen the partition.
    let state = disk.range(Part::State).unwrap_or(Range { offset: 0, len: 0 });
    let copies =
        [disk.block::<BLOCK>(state, RECORD_OFFSETS[0])?, disk.block(state, RECORD_OFFSETS[1])?];
    Ok(record::read_copies([&copies[0], &copies[1]]))
}

/// The trailer of a boot partition, where it has a whole one.
pub fn trailer(disk: &Disk, slot: layout::Slot) -> Option<Trailer> {
    let range = disk.range(Part::Boot(slot)).ok()?;
    let at = range.len.checked_sub(BLOCK as u64)?;
    Trailer::decode(&disk.block(range, at).ok()?)
}

fn copy(stored: &Stored, i: usize) -> String {
    match stored.invalid[i] {
        None if stored.next_offset == RECORD_OFFSETS[i] => "older".to_owned(),
        None => "current".to_owned(),
        Some(Invalid::Magic) => "empty".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn why(why: Why) -> String {
    match why {
        Why::Healthy => "healthy".to_owned(),
        Why::Trial { left } => format!("on trial, {left} tries left after it"),
        Why::LastResort => "last resort".to_owned(),
    }
}

fn partitions(disk: &Disk) -> Vec<Place> {
    let sector = disk.table.sector_size;
    let entries = disk.table.entries.iter();
    entries
        .map(|entry| Place {
            label: entry.label.to_string(),
            type_guid: entry.type_guid.to_string(),
            guid: entry.guid.to_string(),
            offset: entry.first_lba.saturating_mul(sector),
            size: entry
                .last_lba
                .saturating_add(1)
                .saturating_sub(entry.first_lba)
                .saturating_mul(sector),
        })
        .collect()
}

fn esp(disk: &Disk) -> Esp {
    let found =
        disk.range(Part::Esp).and_then(|range| fat::read(&disk.file, range.offset, range.len));
    match found {
        Err(fault) => Esp { fault: Some(fault), ..Esp::default() },
        Ok(found) => Esp {
            picker_sha256: found.picker.as_ref().map(|bytes| hex(&Sha256::digest(bytes))),
            picker_size: found.picker.as_ref().map(|bytes| bytes.len() as u64),
            host_config: found
                .host_config
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            fault: None,
        },
    }
}

fn journal_entries(disk: &Disk) -> Result<Vec<JournalEntry>> {
    let state = disk.range(Part::State).unwrap_or(Range { offset: 0, len: 0 });
    let ring = disk.read(state, JOURNAL_OFFSET, JOURNAL_ENTRIES * BLOCK as u64)?;
    let (blocks, _) = ring.as_chunks::<BLOCK>();
    let mut entries: Vec<_> = blocks.iter().filter_map(journal::Entry::decode).collect();
    entries.sort_by_key(|entry| entry.number);
    let shown = entries.into_iter().map(|entry| JournalEntry {
        number: entry.number,
        time: entry.time,
        writer: entry.writer.to_string(),
        slot: entry.slot.map(|slot| slot.to_string()),
        text: entry.text.to_string(),
    });
    Ok(shown.collect())
}

fn describe(disk: &Disk, slot: layout::Slot, entry: &SlotEntry) -> Slot {
    let (state, tries) = match entry.state {
        State::Empty => ("empty", None),
        State::Trial { tries } => ("trial", Some(tries)),
        State::Healthy => ("healthy", None),
        State::GivenUp => ("given up", None),
    };
    let mut out = Slot {
        slot: slot.to_string(),
        state: state.to_owned(),
        tries,
        priority: entry.priority,
        version: entry.version.to_string(),
        reason: entry.reason.to_string(),
        uki_size: entry.uki_len,
        uki_sha256: hex(&entry.uki_sha256),
        root_hash: hex(&entry.root_hash),
        sections: Vec::new(),
        cmdline: None,
        uname: None,
        os_release: None,
        faults: Vec::new(),
    };
    match sections(disk, slot, entry.uki_len) {
        Err(fault) => out.faults.push(fault),
        Ok(found) => {
            out.cmdline = found.text(".cmdline");
            out.uname = found.text(".uname");
            out.os_release = found.text(".osrel");
            let list = found.sections.into_iter();
            out.sections =
                list.map(|s| Section { name: s.name, offset: s.offset, size: s.len }).collect();
        }
    }
    out
}

/// The sections of a slot's kernel image.
pub struct Sections<'a> {
    disk: &'a Disk,
    range: Range,
    sections: Vec<uki::Section>,
}

impl Sections<'_> {
    /// Content of a text section.
    pub fn text(&self, name: &str) -> Option<String> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        let bytes = self.disk.read(self.range, section.offset, section.len.min(TEXT_LIMIT)).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(text.trim_end_matches('\0').to_owned())
    }
}

/// Reads the section headers of a slot's kernel image; the reason when they cannot be.
pub fn sections(disk: &Disk, slot: layout::Slot, len: u64) -> Result<Sections<'_>, String> {
    let label = Part::Boot(slot).label();
    let range = disk.range(Part::Boot(slot))?;
    if len == 0 || len > range.len {
        return Err(format!("{label}: a kernel image of {len} bytes does not fit it"));
    }
    let head = disk.read(range, 0, len.min(HEADER_LEN as u64)).map_err(|e| e.to_string())?;
    let sections = uki::read_sections(&head, len)
        .ok_or_else(|| format!("{label}: there is no kernel image in it"))?;
    Ok(Sections { disk, range, sections })
}

/// The package list in a slot's root filesystem.
fn packages_of(disk: &Disk, slot: layout::Slot) -> Option<Vec<Package>> {
    let range = disk.range(Part::Root(slot)).ok()?;
    let source = Source { file: disk.file.try_clone().ok()?, range };
    let root = ext4_view::Ext4::load(Box::new(source)).ok()?;
    let path = format!("/{}", manifest::package_list_path());
    if root.metadata(path.as_str()).ok()?.len() > PACKAGES_LIMIT {
        return None;
    }
    manifest::read_package_list(&root.read(path.as_str()).ok()?)
}

struct Source {
    file: std::fs::File,
    range: Range,
}

impl ext4_view::Ext4Read for Source {
    fn read(
        &mut self,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let end = start.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.range.len) {
            return Err("beyond the partition".into());
        }
        let offset = self.range.offset + start;
        Ok(std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, offset)?)
    }
}
