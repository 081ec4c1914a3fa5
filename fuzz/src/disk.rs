//! What a disk says: blocks that a power cut, rot or a stranger wrote.

use crate::Target;
use contract::gpt::{ENTRIES_LEN, Entry, Guid, Header, Table};
use contract::layout::{BLOCK, Partition, Slot};
use contract::record::{Record, SlotEntry};
use contract::text::Text;
use contract::trailer::Trailer;
use contract::verity::Superblock;
use contract::{data_mark::DataMark, data_place::DataPlace, journal, record, trailer};

pub const TARGETS: &[Target] = &[
    Target { name: "record", run: boot_record, samples: records },
    Target { name: "journal", run: journal_entry, samples: entries },
    Target { name: "trailer", run: uki_trailer, samples: trailers },
    Target { name: "gpt", run: gpt, samples: tables },
    Target { name: "data-mark", run: data_mark, samples: marks },
    Target { name: "data-place", run: data_place, samples: places },
    Target { name: "ext4", run: ext4, samples: ext4_samples },
    Target { name: "verity", run: verity, samples: verity_samples },
];

/// The block that `data` begins with.
fn block<const N: usize>(data: &[u8]) -> [u8; N] {
    let mut block = [0; N];
    let len = data.len().min(N);
    block[..len].copy_from_slice(&data[..len]);
    block
}

/// The same with the checksum at its end that makes a reader go on.
fn sealed(data: &[u8]) -> [u8; BLOCK] {
    let mut block: [u8; BLOCK] = block(data);
    let crc = crc32fast::hash(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
    block
}

fn slot() -> SlotEntry {
    SlotEntry { uki_len: 5, version: Text::new("1.2"), ..SlotEntry::EMPTY }
}

fn records() -> Vec<Vec<u8>> {
    vec![Record::of_new_image(slot()).encode().to_vec()]
}

/// What is read is written as the same again, and a choice made from it never panics; the record
/// that it writes is read as that one.
fn boot_record(data: &[u8]) -> bool {
    let copies = [sealed(data), sealed(data.get(BLOCK..).unwrap_or_default())];
    let _ = record::read_copies([&block(data), &copies[1]]);
    let stored = record::read_copies([&copies[0], &copies[1]]);
    let Some(read) = stored.record else { return false };
    assert_eq!(Record::decode(&read.encode()), Ok(read));
    for failed in [[false; 2], [true, false], [false, true], [true; 2]] {
        let choice = contract::boot::choose(&read, failed);
        if let Some(next) = choice.and_then(|choice| choice.record) {
            assert!(next.sequence >= read.sequence);
            assert_eq!(Record::decode(&next.encode()), Ok(next));
        }
    }
    true
}

fn entries() -> Vec<Vec<u8>> {
    let entry = journal::Entry {
        number: 1,
        time: 2,
        writer: journal::Writer::Picker,
        slot: Some(Slot::A),
        text: Text::new("slot a: started"),
    };
    vec![entry.encode().to_vec()]
}

/// What is read is written as the same again; the number of the next one is never lower.
fn journal_entry(data: &[u8]) -> bool {
    let _ = journal::Entry::decode(&block(data));
    let sealed = sealed(data);
    let Some(entry) = journal::Entry::decode(&sealed) else { return false };
    assert_eq!(journal::Entry::decode(&entry.encode()), Some(entry));
    assert!(journal::next_number([&sealed].into_iter()) >= entry.number);
    true
}

fn trailers() -> Vec<Vec<u8>> {
    vec![Trailer::of(&slot(), 3).encode().to_vec()]
}

/// What is read is written as the same again, and what is recovered from it can be read.
fn uki_trailer(data: &[u8]) -> bool {
    let _ = Trailer::decode(&block(data));
    let read = Trailer::decode(&sealed(data));
    if let Some(trailer) = &read {
        assert_eq!(Trailer::decode(&trailer.encode()).as_ref(), Some(trailer));
    }
    let recovered = trailer::recover([read, read]);
    if let Some(record) = recovered {
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
    recovered.is_some()
}

fn tables() -> Vec<Vec<u8>> {
    let entry = |partition: Partition, first_lba, last_lba| Entry {
        type_guid: partition.type_guid(),
        guid: Guid::from_u128(1),
        first_lba,
        last_lba,
        attributes: 0,
        label: Text::new(partition.label()),
    };
    let table = Table {
        disk_guid: Guid::from_u128(2),
        sector_size: 512,
        disk_sectors: 1 << 20,
        entries: vec![entry(Partition::Esp, 2048, 4095), entry(Partition::Data, 4096, 8191)],
    };
    vec![table.encode().primary[512..].to_vec()]
}

/// A table that is read has entries whose sizes can be told, and can be grown and written for the
/// disk that it is on.
fn gpt(data: &[u8]) -> bool {
    let (head, array) = data.split_at(data.len().min(512));
    let mut head: [u8; 512] = block(head);
    let array: [u8; ENTRIES_LEN] = block(array);
    let _ = Header::decode(&head);
    head[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
    head[16..20].fill(0);
    let crc = crc32fast::hash(&head[..92]);
    head[16..20].copy_from_slice(&crc.to_le_bytes());
    let sectors = u64::from(head[40]) << 20 | 200;
    let Ok(mut table) = Table::decode(&head, &array, 512, sectors) else { return false };
    for entry in &table.entries {
        std::hint::black_box(entry.sectors());
    }
    table.grow_last();
    assert_eq!(table.encode().primary.len() % 512, 0);
    table.find("data").is_some()
}

fn marks() -> Vec<Vec<u8>> {
    vec![DataMark::Made.encode().to_vec()]
}

/// Whatever was read is written as the same again.
fn data_mark(data: &[u8]) -> bool {
    let marks = [block(data), sealed(data)].map(|block| DataMark::decode(&block));
    for mark in marks {
        assert_eq!(DataMark::decode(&mark.encode()), mark);
    }
    marks[1] != DataMark::Unknown
}

fn places() -> Vec<Vec<u8>> {
    vec![DataPlace { disk: Text::new("naa.5000c500a1b2c3d4"), preparing: true }.encode().to_vec()]
}

/// Whatever was read is written as the same again.
fn data_place(data: &[u8]) -> bool {
    let places = [block(data), sealed(data)].map(|block| DataPlace::decode(&block));
    for place in places {
        assert_eq!(DataPlace::decode(&place.encode()), place);
    }
    places[1] != DataPlace::SYSTEM
}

fn ext4_samples() -> Vec<Vec<u8>> {
    let mut start = vec![0; 2048];
    start[1024 + 4] = 9;
    start[1024 + 0x18] = 2;
    start[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
    vec![start]
}

/// No superblock panics.
fn ext4(data: &[u8]) -> bool {
    init::untrusted::ext4(&block(data))
}

fn verity_samples() -> Vec<Vec<u8>> {
    let mut start = vec![0; BLOCK];
    start[..6].copy_from_slice(b"verity");
    (start[8], start[12]) = (1, 1);
    start[32..38].copy_from_slice(b"sha256");
    (start[65], start[69], start[72], start[80]) = (0x10, 0x10, 200, 32);
    vec![start]
}

/// A superblock that is believed says again what it said when it is written again.
fn verity(data: &[u8]) -> bool {
    let block: [u8; BLOCK] = block(data);
    let Ok(read) = Superblock::decode(&block) else { return false };
    assert_eq!(Superblock::decode(&read.encode()).as_ref(), Ok(&read));
    init::untrusted::verity(&block).is_some()
}
