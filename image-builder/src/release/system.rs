//! A system that can be published: kernel image and root filesystem of slot A of an image, or the
//! same two made again out of a repository.

use crate::image::verity::{Hash, Params};
use crate::inspect::{self, Disk, sections, stored};
use crate::{Error, Result};
use contract::Slot;
use contract::hex;
use contract::layout::{BLOCK, CMDLINE_DEBUG_SHELL, Partition};
use contract::manifest::File as Described;
use contract::record::State;
use contract::release::Root;
use contract::verity::Superblock;
use delta::{Images, ReadAt, Source};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Machine field of a PE file (PE format, "Machine Types"), and Debian's name.
const MACHINES: [(u16, &str); 2] = [(0x8664, "amd64"), (0xaa64, "arm64")];

/// A byte range of a file.
#[derive(Debug)]
pub struct Region {
    /// The file.
    pub file: File,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ReadAt for Region {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        match end.is_some_and(|end| end <= self.len) {
            true => self.file.read_exact_at(buffer, self.offset + offset),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Kernel image and root filesystem.
#[derive(Debug)]
pub struct System {
    /// The unified kernel image.
    pub uki: Region,
    /// The root filesystem, without its hash tree.
    pub root: Region,
}

impl System {
    /// For the coder.
    pub fn images(&self) -> Images<'_> {
        Images {
            uki: Source { bytes: &self.uki, len: self.uki.len },
            root: Source { bytes: &self.root, len: self.root.len },
        }
    }
}

/// What an image says of the system in its slot A.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the image definition.
    pub name: String,
    /// Release version.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Whether it has a shell for development.
    pub debug_shell: bool,
    /// The kernel image.
    pub uki: Described,
    /// The root filesystem.
    pub root: Root,
}

/// Opens the image in `path`, after everything in it was verified.
pub fn open(path: &Path) -> Result<(Identity, System)> {
    inspect::verify(path)?;
    let disk = Disk::open(path)?;
    let wrong = |why: &str| Error::refused(format!("{}: {why}", path.display()));
    let range = |partition| disk.range(partition).map_err(|why| wrong(&why));
    let record = stored(&disk)?.record.ok_or_else(|| wrong("there is no boot record"))?;
    let entry = record[Slot::A];
    if entry.state == State::Empty {
        return Err(
            wrong("slot A is empty").with_hint("publish images as `berth build` writes them")
        );
    }
    let found = sections(&disk, Slot::A, entry.uki_len).map_err(|why| wrong(&why))?;
    let os_release = found.text(".osrel").unwrap_or_default();
    let value = |key: &str| {
        let lines = os_release.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(k, _)| *k == key).map(|(_, value)| value.trim_matches('"').to_owned()).next()
    };
    let cmdline = found.text(".cmdline").unwrap_or_default();
    let boot = range(Partition::Boot(Slot::A))?;
    let machine = machine(&disk.read(boot, 0, entry.uki_len.min(BLOCK as u64))?);
    let tree = range(Partition::Verity(Slot::A))?;
    let superblock = Superblock::decode(&disk.block(tree, 0)?).map_err(|why| wrong(&why))?;
    let root = range(Partition::Root(Slot::A))?;
    let root_len = superblock.data_blocks * BLOCK as u64;
    let clone = || disk.file.try_clone().map_err(Error::io("open", path));
    let identity = Identity {
        name: value("IMAGE_ID").ok_or_else(|| wrong("it does not say of which name it is"))?,
        version: entry.version.to_string(),
        architecture: machine
            .ok_or_else(|| wrong("its kernel image is for a machine that is not known here"))?
            .to_owned(),
        debug_shell: cmdline.split_whitespace().any(|word| word == CMDLINE_DEBUG_SHELL),
        uki: Described { size: entry.uki_len, sha256: hex::encode(&entry.uki_sha256) },
        root: Root {
            size: root_len,
            root_hash: hex::encode(&entry.root_hash),
            salt: hex::encode(&superblock.salt),
            uuid: hex::encode(&superblock.uuid),
        },
    };
    let system = System {
        uki: Region { file: clone()?, offset: boot.offset, len: entry.uki_len },
        root: Region { file: clone()?, offset: root.offset, len: root_len },
    };
    Ok((identity, system))
}

/// Debian's name of the machine that a PE file is for.
fn machine(head: &[u8]) -> Option<&'static str> {
    let at = u32::from_le_bytes(head.get(0x3c..0x40)?.try_into().ok()?) as usize;
    let field = head.get(at.checked_add(4)?..at.checked_add(6)?)?;
    let machine = u16::from_le_bytes(field.try_into().ok()?);
    MACHINES.into_iter().find(|(number, _)| *number == machine).map(|(_, name)| name)
}

/// How the hash tree over `root` is made, and its root.
pub fn tree(root: &Root) -> Result<(Params, Hash)> {
    let parts = (
        hex::decode_array(&root.salt),
        hex::decode_array(&root.uuid),
        hex::decode_array(&root.root_hash),
    );
    match parts {
        (Some(salt), Some(uuid), Some(hash)) => Ok((Params { salt, uuid }, hash)),
        _ => Err(Error::corrupt("a hash tree that is not made as Berth makes them")),
    }
}
