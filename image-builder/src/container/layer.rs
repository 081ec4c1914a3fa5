//! A tree as a layer: a tar archive whose bytes depend on the tree alone.

use crate::tree::{Kind, Node, Tree};
use crate::{Error, Result};
use std::io::Write;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// What `after` has and `before` has not, or has otherwise. Nothing is taken away between layers
/// here, so there are no whiteouts.
pub(super) fn difference(before: &Tree, after: &Tree) -> Tree {
    let mut layer = Tree::new(after.get("").map_or(0, |root| root.mtime));
    for (path, node) in after.iter() {
        if !before.get(path).is_some_and(|old| same(old, node)) {
            layer.insert_exactly(path, node.clone());
        }
    }
    layer
}

fn same(a: &Node, b: &Node) -> bool {
    let kind = match (&a.kind, &b.kind) {
        (Kind::Directory, Kind::Directory) | (Kind::Fifo, Kind::Fifo) => true,
        (Kind::File(a), Kind::File(b)) => a.is_same_source(b),
        (Kind::Symlink(a), Kind::Symlink(b)) | (Kind::HardLink(a), Kind::HardLink(b)) => a == b,
        _ => false,
    };
    // A directory that several packages share keeps the time of the first.
    let mtime = a.mtime == b.mtime || matches!(a.kind, Kind::Directory);
    kind && mtime && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && a.xattrs == b.xattrs
}

/// Writes `tree` as a tar archive.
pub(super) fn write(tree: &Tree, out: &mut impl Write, out_path: &Path) -> Result<()> {
    let mut builder = Builder::new(out);
    for (path, node) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        append(&mut builder, path, node, out_path)?;
    }
    builder.into_inner().map(drop).map_err(Error::io("write", out_path))
}

fn append(
    builder: &mut Builder<&mut impl Write>,
    path: &str,
    node: &Node,
    out_path: &Path,
) -> Result<()> {
    let failed = Error::io("write", out_path);
    if !node.xattrs.is_empty() {
        let keys: Vec<(String, &Vec<u8>)> =
            node.xattrs.iter().map(|(k, v)| (format!("SCHILY.xattr.{k}"), v)).collect();
        let extensions = keys.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        builder.append_pax_extensions(extensions).map_err(Error::io("write", out_path))?;
    }
    let mut header = Header::new_gnu();
    header.set_mode(node.mode.into());
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(node.mtime.max(0) as u64);
    header.set_size(0);
    let none = std::io::empty();
    match &node.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{path}/"), none)
        }
        Kind::File(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len());
            builder.append_data(&mut header, path, content.reader())
        }
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, path, target)
        }
        Kind::HardLink(target) => {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, path, target)
        }
        Kind::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            builder.append_data(&mut header, path, none)
        }
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            let is_char = matches!(node.kind, Kind::CharDevice(..));
            header.set_entry_type(if is_char { EntryType::Char } else { EntryType::Block });
            header
                .set_device_major(*major)
                .and_then(|()| header.set_device_minor(*minor))
                .and_then(|()| builder.append_data(&mut header, path, none))
        }
    }
    .map_err(failed)
}
