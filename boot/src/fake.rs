//! A machine in memory: a real disk image, and faults where a test wants them.

use crate::machine::{Fault, Machine};
use contract::Slot;
use contract::gpt::{self, Guid, Table};
use contract::journal::{Entry, Writer};
use contract::layout::{
    BLOCK, JOURNAL_ENTRIES, JOURNAL_OFFSET, Partition, RECORD_OFFSETS, STATE_SIZE,
};
use contract::record::{Record, SlotEntry, State, read_copies};
use contract::text::Text;
use contract::trailer::Trailer;
use sha2::{Digest, Sha256};
use std::fmt;

const MIB: u64 = 1 << 20;
const BOOT_SIZE: u64 = 2 * MIB;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Said(String),
    Wrote(u64),
    Flushed,
    Started(Slot),
}

pub struct Fake {
    pub sector_size: u32,
    pub disk: Vec<u8>,
    pub table: Table,
    pub events: Vec<Event>,
    /// Byte ranges of the disk that cannot be read or written.
    pub unreadable: Vec<std::ops::Range<u64>>,
    pub unwritable: Vec<std::ops::Range<u64>>,
    /// Reads that still fail and then succeed.
    pub hiccups: u32,
    /// UKIs that firmware refuses, or that come back when started.
    pub refused: Vec<Vec<u8>>,
    pub returning: Vec<Vec<u8>>,
    pub memory: usize,
}

/// A UKI is told apart by its first byte, and is not a multiple of any sector long.
pub fn uki(slot: Slot) -> Vec<u8> {
    (0..1_300_007_usize).map(|i| (i / 7) as u8 ^ slot.name().as_bytes()[0]).collect()
}

pub fn entry(slot: Slot, state: State, priority: u8) -> SlotEntry {
    let uki = uki(slot);
    SlotEntry {
        state,
        priority,
        uki_len: uki.len() as u64,
        uki_sha256: Sha256::digest(&uki).into(),
        root_hash: [slot.index() as u8; 32],
        version: Text::new(if slot == Slot::A { "1.0.0" } else { "1.1.0" }),
        reason: Text::EMPTY,
    }
}

impl Fake {
    /// A disk that holds a whole UKI in both slots and `record`.
    pub fn new(sector_size: u32, record: Record) -> Fake {
        let size = u64::from(sector_size);
        let mut at = MIB;
        let entries = [
            (Partition::Esp, MIB),
            (Partition::State, STATE_SIZE),
            (Partition::Boot(Slot::A), BOOT_SIZE),
            (Partition::Boot(Slot::B), BOOT_SIZE),
        ]
        .map(|(partition, len)| {
            let first_lba = at / size;
            at += len;
            gpt::Entry {
                type_guid: partition.type_guid(),
                guid: Guid::from_u128(u128::from(first_lba)),
                first_lba,
                last_lba: at / size - 1,
                attributes: 0,
                label: Text::new(partition.label()),
            }
        });
        let bytes = at + MIB;
        let table = Table {
            disk_guid: Guid::from_u128(1),
            sector_size: size,
            disk_sectors: bytes / size,
            entries: entries.to_vec(),
        };
        let mut disk = vec![0; bytes as usize];
        let encoded = table.encode();
        disk[..encoded.primary.len()].copy_from_slice(&encoded.primary);
        disk[encoded.backup_offset as usize..].copy_from_slice(&encoded.backup);
        let mut fake = Fake {
            sector_size,
            disk,
            table,
            events: Vec::new(),
            unreadable: Vec::new(),
            unwritable: Vec::new(),
            hiccups: 0,
            refused: Vec::new(),
            returning: Vec::new(),
            memory: 256 << 20,
        };
        fake.put(Partition::State, RECORD_OFFSETS[0], &record.encode());
        for slot in Slot::ALL {
            fake.put(Partition::Boot(slot), 0, &uki(slot));
            let trailer = Trailer::of(&entry(slot, State::Empty, 0), 1 + slot.index() as u64);
            fake.put(Partition::Boot(slot), BOOT_SIZE - BLOCK as u64, &trailer.encode());
        }
        fake
    }

    /// Byte offset on the disk.
    pub fn at(&self, partition: Partition, offset: u64) -> u64 {
        let entry = self.table.find(partition.label()).expect("partition exists");
        entry.first_lba * u64::from(self.sector_size) + offset
    }

    pub fn put(&mut self, partition: Partition, offset: u64, bytes: &[u8]) {
        let at = self.at(partition, offset) as usize;
        self.disk[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn block(&self, partition: Partition, offset: u64) -> [u8; BLOCK] {
        let at = self.at(partition, offset) as usize;
        self.disk[at..at + BLOCK].try_into().expect("a block")
    }

    pub fn record(&self) -> Option<Record> {
        let copies = RECORD_OFFSETS.map(|offset| self.block(Partition::State, offset));
        read_copies([&copies[0], &copies[1]]).record
    }

    /// What the journal says, oldest first.
    pub fn journal(&self) -> Vec<String> {
        let mut entries: Vec<Entry> = (0..JOURNAL_ENTRIES)
            .map(|i| self.block(Partition::State, JOURNAL_OFFSET + i * BLOCK as u64))
            .filter_map(|block| Entry::decode(&block))
            .collect();
        entries.sort_by_key(|entry| entry.number);
        entries.iter().map(|entry| entry.text.to_string()).collect()
    }

    /// An entry by PID 1.
    pub fn journal_as_init(&mut self, number: u64) {
        let text = Text::new("slot a is healthy");
        let entry = Entry { number, time: 0, writer: Writer::Init, slot: Some(Slot::A), text };
        self.put(Partition::State, entry.offset(), &entry.encode());
    }

    /// Switches the machine on; returns the slot that runs.
    pub fn boot(&mut self) -> Option<Slot> {
        self.events.clear();
        let run = std::panic::AssertUnwindSafe(|| crate::pick(self));
        if let Err(ended) = std::panic::catch_unwind(run)
            && !ended.is::<Running>()
        {
            std::panic::resume_unwind(ended);
        }
        self.started().last().copied()
    }

    pub fn started(&self) -> Vec<Slot> {
        let started = |e: &Event| if let Event::Started(slot) = e { Some(*slot) } else { None };
        self.events.iter().filter_map(started).collect()
    }

    pub fn said(&self) -> Vec<&str> {
        let mut lines = Vec::new();
        for event in &self.events {
            if let Event::Said(line) = event {
                lines.push(line.as_str());
            }
        }
        lines
    }

    pub fn writes(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Wrote(_))).count()
    }

    fn range(&self, lba: u64, len: usize) -> Result<std::ops::Range<u64>, Fault> {
        assert_eq!(len % self.sector_size as usize, 0, "whole sectors");
        let at = lba.checked_mul(u64::from(self.sector_size)).ok_or(Fault::INVALID_PARAMETER)?;
        let end = at.checked_add(len as u64).ok_or(Fault::INVALID_PARAMETER)?;
        if end > self.disk.len() as u64 { Err(Fault::INVALID_PARAMETER) } else { Ok(at..end) }
    }
}

fn hit(bad: &[std::ops::Range<u64>], range: &std::ops::Range<u64>) -> bool {
    bad.iter().any(|bad| bad.start < range.end && range.start < bad.end)
}

impl Machine for Fake {
    type Pages = Vec<u8>;
    type Image = Vec<u8>;

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn sectors(&self) -> u64 {
        self.table.disk_sectors
    }

    fn read(&mut self, lba: u64, out: &mut [u8]) -> Result<(), Fault> {
        let range = self.range(lba, out.len())?;
        let hiccup = self.hiccups > 0;
        self.hiccups = self.hiccups.saturating_sub(1);
        if hiccup || hit(&self.unreadable, &range) {
            return Err(Fault::DEVICE_ERROR);
        }
        out.copy_from_slice(&self.disk[range.start as usize..range.end as usize]);
        Ok(())
    }

    fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), Fault> {
        let range = self.range(lba, bytes.len())?;
        if hit(&self.unwritable, &range) {
            return Err(Fault::DEVICE_ERROR);
        }
        self.events.push(Event::Wrote(range.start));
        self.disk[range.start as usize..range.end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.events.push(Event::Flushed);
        Ok(())
    }

    fn pages(&mut self, len: usize) -> Result<Vec<u8>, Fault> {
        if len > self.memory {
            return Err(Fault::OUT_OF_RESOURCES);
        }
        Ok(vec![0; len.next_multiple_of(BLOCK)])
    }

    fn time(&mut self) -> u64 {
        1_800_000_000
    }

    fn say(&mut self, line: fmt::Arguments) {
        self.events.push(Event::Said(line.to_string()));
    }

    fn rearm_watchdog(&mut self) {}

    fn load(&mut self, uki: &[u8]) -> Result<Vec<u8>, Fault> {
        let uki = uki.to_vec();
        if self.refused.contains(&uki) { Err(Fault(1 << 63 | 1)) } else { Ok(uki) }
    }

    /// A system that starts never comes back.
    fn start(&mut self, slot: Slot, image: Vec<u8>) -> Fault {
        if self.returning.contains(&image) {
            return Fault(0);
        }
        assert_eq!(image, uki(slot), "what starts is what was checked");
        self.events.push(Event::Started(slot));
        std::panic::resume_unwind(Box::new(Running))
    }
}

/// Unwinds out of the picker when a system has started.
pub struct Running;
