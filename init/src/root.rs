//! The root filesystem: the slot whose verity tree has the root hash of the kernel command line.

use crate::disk::Disk;
use crate::error::{Error, On, chain};
use crate::log;
use crate::verity;
use contract::layout::Partition;
use contract::verity::{Superblock, TOP_OFFSET};
use contract::{Slot, hex};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use sys::block::{self, Direct};
use sys::dm::{self, Target};
use sys::mount::{Limits, mount};

/// Name of the dm-verity device.
const DEVICE: &str = "root";

/// Where the initramfs mounts the root.
pub const MOUNT_POINT: &str = "/sysroot";

/// Opens and mounts the root with `root_hash`, trying the slot that was `picked` first. Returns
/// the slot that holds it.
pub fn mount_root(disk: &Disk, root_hash: &[u8; 32], picked: Option<Slot>) -> Result<Slot, Error> {
    let mut tried = Vec::new();
    for slot in order(picked) {
        match try_slot(disk, slot, root_hash) {
            Ok(()) => {
                // A slot that was passed over is rotted or half-written; that it works is luck.
                tried.iter().for_each(|why: &String| log::warning(why));
                return Ok(slot);
            }
            Err(e) => tried.push(format!("slot {slot}: {}", chain(&e))),
        }
    }
    Err(Error::NoRoot { root_hash: hex::encode(root_hash), tried })
}

fn order(picked: Option<Slot>) -> [Slot; 2] {
    let first = picked.unwrap_or(Slot::A);
    [first, first.other()]
}

fn try_slot(disk: &Disk, slot: Slot, root_hash: &[u8; 32]) -> Result<(), Error> {
    let data = disk.device(Partition::Root(slot))?;
    let hash = disk.device(Partition::Verity(slot))?;
    let superblock = matching(data, hash, root_hash)?;
    let parameters = verity::parameters(&superblock, data, hash, root_hash);
    let target =
        Target { sectors: verity::sectors(&superblock), kind: "verity", parameters: &parameters };
    let device = dm::create_read_only(DEVICE, &target).on("open with dm-verity", data)?;
    let node = device.node();
    let mounted = probe(&node).and_then(|()| {
        let _ = std::fs::create_dir(MOUNT_POINT);
        // There is no set-user-ID program on a host that is right, nor anybody who could start one.
        let limits = Limits { read_only: true, no_suid: true, no_dev: true, ..Limits::default() };
        mount(&node, MOUNT_POINT, "ext4", limits, "").on("mount", &node)
    });
    if mounted.is_err() {
        // The error that matters is the one above.
        let _ = device.remove();
    }
    mounted
}

/// The superblock on `hash`, when its tree has `root_hash` on top. Only two blocks are read; the
/// rest is verified by the kernel as it is used.
fn matching(data: &str, hash: &str, root_hash: &[u8; 32]) -> Result<Superblock, Error> {
    let invalid = |problem: String| Error::Invalid { object: hash.to_owned(), problem };
    let device = Direct::open(Path::new(hash), false).on("open", hash)?;
    let first = device.read(0).on("read", hash)?;
    let superblock = Superblock::decode(&first.0).map_err(invalid)?;
    verity::fits(&superblock, size(data)?, size(hash)?).map_err(invalid)?;
    let top = device.read(TOP_OFFSET).on("read", hash)?;
    match superblock.hasher().hash(&top.0) == *root_hash {
        true => Ok(superblock),
        false => Err(invalid("the tree of another root".to_owned())),
    }
}

fn size(device: &str) -> Result<u64, Error> {
    let mut file = File::open(device).on("open", device)?;
    block::size(&mut file).on("measure", device)
}

/// Reads through the tree once, so that a broken path from its top to the first block is seen
/// before the mount.
fn probe(node: &str) -> Result<(), Error> {
    let mut first = [0; 4096];
    File::open(node).and_then(|mut file| file.read_exact(&mut first)).on("read", node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picked_slot_comes_first() {
        assert_eq!(order(None), [Slot::A, Slot::B]);
        assert_eq!(order(Some(Slot::A)), [Slot::A, Slot::B]);
        assert_eq!(order(Some(Slot::B)), [Slot::B, Slot::A]);
    }
}
