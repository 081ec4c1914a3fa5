//! An unpacked package, and its files as a part of a tree.

use super::Package;
use super::unpack::{Facts, control_field};
use crate::cache::Digest;
use crate::tree::{Content, Kind, Node, Tree};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A package whose files can be read.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Which package.
    pub package: Package,
    facts: Facts,
    tar: Arc<File>,
    path: Arc<PathBuf>,
}

impl Unpacked {
    /// Refuses a file that calls itself something else than the index or the lock does.
    pub fn new(package: &Package, facts: Facts, tar: File, path: PathBuf) -> Result<Self> {
        for (field, expected) in [("Package", &package.name), ("Version", &package.version)] {
            let found = control_field(&facts.control, field).unwrap_or_default();
            if found != expected {
                let Package { name, version, .. } = package;
                let what = format!("package {name} {version}: its own {field} is `{found}`");
                return Err(Error::corrupt(what).with_hint("`berth lock` writes a lock file anew"));
            }
        }
        Ok(Unpacked { package: package.clone(), facts, tar: Arc::new(tar), path: Arc::new(path) })
    }

    /// The first line of a field of its control file: `Section`, `Source`, `Homepage`...
    pub fn field(&self, name: &str) -> Option<&str> {
        control_field(&self.facts.control, name)
    }

    /// Its section: `admin`, `kernel`...
    pub fn section(&self) -> &str {
        self.field("Section").unwrap_or_default()
    }

    /// The whole control file.
    pub fn control(&self) -> &str {
        &self.facts.control
    }

    /// Names of its maintainer scripts, sorted. They are never run.
    pub fn scripts(&self) -> &[String] {
        &self.facts.scripts
    }

    /// SHA-256 of its tar in the cache: equal tars, equal files.
    pub fn tar_sha256(&self) -> &Digest {
        &self.facts.tar_sha256
    }

    /// Its tar in the cache.
    pub fn tar_path(&self) -> &Path {
        &self.path
    }
}

/// Adds the files of `unpacked` to `tree`. As with dpkg, a directory does not replace a link to a
/// directory, nor a link a directory.
pub fn add_to_tree(unpacked: &Unpacked, tree: &mut Tree) -> Result<()> {
    let label = format!("package {} {}", unpacked.package.name, unpacked.package.version);
    let wrong = |why: &dyn std::fmt::Display| Error::corrupt(format!("{label}: {why}"));
    let mut archive = tar::Archive::new(At { file: &unpacked.tar, position: 0 });
    for entry in archive.entries_with_seek().map_err(|e| wrong(&e))? {
        let mut entry = entry.map_err(|e| wrong(&e))?;
        let path = member_path(&entry.path_bytes()).map_err(|e| wrong(&e))?;
        let node = node(&mut entry, unpacked).map_err(|e| wrong(&format!("{path}: {e}")))?;
        // The root directory is everybody's.
        let (Some(node), false) = (node, path.is_empty()) else { continue };
        let node = match node.kind {
            Kind::HardLink(target) => {
                let target = regular_file(tree, target)
                    .map_err(|e| wrong(&format!("{path}: hard link to {e}")))?;
                Node { kind: Kind::HardLink(target), ..node }
            }
            _ => node,
        };
        let there = tree.get(&tree.real_path(&path)).map(|n| &n.kind);
        let keep = match (there, &node.kind) {
            (Some(Kind::Symlink(_)), Kind::Directory) => {
                matches!(tree.get(&tree.resolve(&path)).map(|n| &n.kind), Some(Kind::Directory))
            }
            (Some(Kind::Directory), Kind::Symlink(_)) => true,
            (Some(Kind::Directory), Kind::Directory) | (_, Kind::Directory | Kind::Symlink(_)) => {
                false
            }
            (Some(Kind::Directory), _) => return Err(wrong(&format!("{path}: is a directory"))),
            _ => false,
        };
        if !keep {
            tree.insert(&path, node);
        }
    }
    Ok(())
}

/// What a member is; none for what carries no file.
fn node(
    entry: &mut tar::Entry<At<'_>>,
    unpacked: &Unpacked,
) -> std::result::Result<Option<Node>, String> {
    let header = entry.header();
    let text = |e: io::Error| e.to_string();
    let number = |value: u64| u32::try_from(value).map_err(|_| "owner out of range".to_owned());
    let device = || match (header.device_major(), header.device_minor()) {
        (Ok(Some(major)), Ok(Some(minor))) => Ok((major, minor)),
        _ => Err("device without numbers".to_owned()),
    };
    let link = || {
        let name = entry.link_name_bytes().ok_or("link without a target")?;
        match std::str::from_utf8(&name) {
            Ok(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err("link with an unusable target".to_owned()),
        }
    };
    // Members are skipped by seeking, which does not notice the end of the file.
    let end = entry.raw_file_position().checked_add(entry.size());
    if end.is_none_or(|end| end > unpacked.facts.tar_size) {
        return Err("it is cut off".to_owned());
    }
    use tar::EntryType as Type;
    let kind = match header.entry_type() {
        Type::Directory => Kind::Directory,
        Type::Regular | Type::Continuous => Kind::File(Content::Range {
            file: unpacked.tar.clone(),
            path: unpacked.path.clone(),
            offset: entry.raw_file_position(),
            len: entry.size(),
        }),
        Type::Symlink => Kind::Symlink(link()?),
        Type::Link => Kind::HardLink(member_path(link()?.as_bytes())?),
        Type::Char => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
        Type::Block => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
        Type::Fifo => Kind::Fifo,
        Type::XGlobalHeader => return Ok(None),
        other => return Err(format!("a kind of file that is not supported: {other:?}")),
    };
    let mut node = Node {
        kind,
        mode: (header.mode().map_err(text)? & 0o7777) as u16,
        uid: number(header.uid().map_err(text)?)?,
        gid: number(header.gid().map_err(text)?)?,
        mtime: header.mtime().map_err(text)? as i64,
        xattrs: BTreeMap::new(),
    };
    for extension in entry.pax_extensions().map_err(text)?.into_iter().flatten() {
        let extension = extension.map_err(text)?;
        let key = extension.key().map_err(|e| e.to_string())?;
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            node.xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
        } else if key == "mtime" {
            let value = extension.value().map_err(|e| e.to_string())?;
            let whole = value.split('.').next().unwrap_or_default();
            node.mtime = whole.parse().map_err(|_| format!("mtime {value}"))?;
        }
    }
    Ok(Some(node))
}

/// `./usr/bin/` as `usr/bin`.
fn member_path(bytes: &[u8]) -> std::result::Result<String, String> {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let path =
        std::str::from_utf8(bytes).map_err(|_| format!("{}: the name is not UTF-8", shown()))?;
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") || path.contains('\0') {
        return Err(format!("{}: the path leads out of the package", shown()));
    }
    Ok(parts.join("/"))
}

/// The path of the regular file that `target` is.
fn regular_file(tree: &Tree, target: String) -> std::result::Result<String, String> {
    let real = tree.real_path(&target);
    match tree.get(&real).map(|node| &node.kind) {
        Some(Kind::File(_)) => Ok(real),
        Some(Kind::HardLink(first)) => Ok(first.clone()),
        _ => Err(format!("{target}, which is no regular file")),
    }
}

/// Reads an open file from a position of its own.
struct At<'a> {
    file: &'a File,
    position: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for At<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
