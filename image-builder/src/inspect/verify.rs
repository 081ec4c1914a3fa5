//! Recomputes every digest of an image. The first that is wrong is named.

use super::disk::Disk;
use super::gather;
use crate::image::verity::{self, Range, Verdict};
use crate::image::{disk::hex, fat, manifest};
use crate::{Error, Result};
use contract::Slot;
use contract::layout::{BLOCK, CMDLINE_ROOT_HASH, Partition, RECORD_OFFSETS};
use contract::manifest::Manifest;
use contract::record::{Invalid, Record, SlotEntry, State};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::os::unix::fs::FileExt;

/// How much of a kernel image is read at once.
const CHUNK: u64 = 1 << 20;

/// What was checked, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// One line each.
    pub checks: Vec<String>,
}

/// Checks the whole image.
pub fn verify(disk: &Disk) -> Result<Verified> {
    let mut done = Verified::default();
    let mut passed = |what: String| done.checks.push(what);
    for (name, fault) in ["primary", "backup"].iter().zip(&disk.table_faults) {
        if let Some(fault) = fault {
            return Err(wrong(disk, &format!("{name} partition table: {fault}")));
        }
    }
    protective_mbr(disk)?;
    passed("protective MBR and both partition tables".to_owned());

    let record = record(disk)?;
    passed(format!("boot record, sequence {}", record.sequence));
    let manifest = manifest::read(&manifest::path_beside(&disk.path))?;
    picker(disk, manifest.as_ref())?;
    passed(match manifest {
        Some(_) => "slot picker, against the manifest".to_owned(),
        None => "slot picker is there".to_owned(),
    });
    for slot in Slot::ALL.into_iter().filter(|slot| record[*slot].state != State::Empty) {
        let entry = &record[slot];
        kernel_image(disk, slot, entry)?;
        passed(format!(
            "{}: kernel image of {} bytes",
            Partition::Boot(slot).label(),
            entry.uki_len
        ));
        let blocks = root(disk, slot, entry)?;
        let label = Partition::Root(slot).label();
        passed(format!("{label}: {blocks} blocks against root hash {}", hex(&entry.root_hash)));
        if let Some(manifest) = manifest.as_ref().filter(|m| m.version == entry.version.as_str()) {
            against_manifest(disk, slot, entry, manifest)?;
            passed(format!("slot {slot}, against the manifest"));
        }
    }
    Ok(done)
}

fn protective_mbr(disk: &Disk) -> Result<()> {
    let mut found = [0; 512];
    disk.file.read_exact_at(&mut found, 0).map_err(Error::io("read", &disk.path))?;
    let why = match found == disk.table.protective_mbr() {
        true => return Ok(()),
        false if found[510..] != [0x55, 0xaa] => "it has no signature",
        false if found[446..510] != disk.table.protective_mbr()[446..510] => {
            "it does not say that one partition of type 0xEE spans the disk"
        }
        false => "there is code in it",
    };
    Err(wrong(disk, &format!("protective MBR: {why}")))
}

fn wrong(disk: &Disk, what: &str) -> Error {
    Error::corrupt(format!("{}: {what}", disk.path.display()))
}

fn record(disk: &Disk) -> Result<Record> {
    let stored = gather::stored(disk)?;
    for (i, invalid) in stored.invalid.iter().enumerate() {
        // A copy that was never written is all zeros; anything else there is damage.
        if let Some(invalid) = invalid
            && !(*invalid == Invalid::Magic && is_blank(disk, i)?)
        {
            return Err(wrong(disk, &format!("boot record, copy {}: {invalid}", i + 1)));
        }
    }
    stored.record.ok_or_else(|| wrong(disk, "both copies of the boot record are empty"))
}

fn is_blank(disk: &Disk, copy: usize) -> Result<bool> {
    let state = disk.range(Partition::State).map_err(|why| wrong(disk, &why))?;
    Ok(disk.block::<BLOCK>(state, RECORD_OFFSETS[copy])?.iter().all(|&byte| byte == 0))
}

fn picker(disk: &Disk, manifest: Option<&Manifest>) -> Result<()> {
    let found = disk
        .range(Partition::Esp)
        .and_then(|range| fat::read(&disk.file, range.offset, range.len))
        .map_err(|why| wrong(disk, &format!("esp: {why}")))?;
    let bytes = found.picker.ok_or_else(|| wrong(disk, "esp: there is no slot picker on it"))?;
    match manifest {
        Some(manifest) if hex(&Sha256::digest(&bytes)) != manifest.picker.sha256 => {
            Err(wrong(disk, "esp: the slot picker is not the one in the manifest"))
        }
        _ => Ok(()),
    }
}

fn kernel_image(disk: &Disk, slot: Slot, entry: &SlotEntry) -> Result<()> {
    let label = Partition::Boot(slot).label();
    let fault = |why: &str| wrong(disk, &format!("{label}: {why}"));
    let range = disk.range(Partition::Boot(slot)).map_err(|why| wrong(disk, &why))?;
    if entry.uki_len.checked_add(BLOCK as u64).is_none_or(|len| len > range.len) {
        return Err(fault("the kernel image in the boot record does not fit it"));
    }
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < entry.uki_len {
        let len = CHUNK.min(entry.uki_len - at);
        hash.update(disk.read(range, at, len)?);
        at += len;
    }
    if hash.finalize()[..] != entry.uki_sha256 {
        return Err(fault("the kernel image does not have the SHA-256 in the boot record"));
    }
    let trailer = gather::trailer(disk, slot).ok_or_else(|| fault("its trailer is damaged"))?;
    let same = trailer.uki_len == entry.uki_len
        && trailer.uki_sha256 == entry.uki_sha256
        && trailer.root_hash == entry.root_hash;
    if !same {
        return Err(fault("its trailer does not say what the boot record says"));
    }
    let cmdline = gather::sections(disk, slot, entry.uki_len)
        .map_err(|why| wrong(disk, &why))?
        .text(".cmdline")
        .unwrap_or_default();
    let expected = format!("{CMDLINE_ROOT_HASH}={}", hex(&entry.root_hash));
    if !cmdline.split_whitespace().any(|word| word == expected) {
        return Err(fault("its command line has another root hash than the boot record"));
    }
    Ok(())
}

/// The number of data blocks.
fn root(disk: &Disk, slot: Slot, entry: &SlotEntry) -> Result<u64> {
    let range = |partition| disk.range(partition).map_err(|why: String| wrong(disk, &why));
    let data: Range = range(Partition::Root(slot))?;
    let tree = range(Partition::Verity(slot))?;
    let (root, verity) = (Partition::Root(slot).label(), Partition::Verity(slot).label());
    let verdict = verity::verify(&disk.file, &disk.path, data, tree, &entry.root_hash)?;
    let what = match verdict {
        Verdict::Whole { data_blocks } => return Ok(data_blocks),
        Verdict::NoTree => format!("{verity}: there is no dm-verity tree for {root} in it"),
        Verdict::TreeBlock(1) => {
            format!("{verity}: its root is not the root hash in the boot record")
        }
        Verdict::TreeBlock(block) => format!("{verity}: block {block} is damaged"),
        Verdict::DataBlock(block) => format!("{root}: block {block} is damaged"),
    };
    Err(wrong(disk, &what))
}

fn against_manifest(disk: &Disk, slot: Slot, entry: &SlotEntry, manifest: &Manifest) -> Result<()> {
    let what = if manifest.uki.sha256 != hex(&entry.uki_sha256) {
        "kernel image"
    } else if manifest.root_hash != hex(&entry.root_hash) {
        "root hash"
    } else {
        return Ok(());
    };
    Err(wrong(disk, &format!("slot {slot}: the {what} is not the one in the manifest")))
}
