//! The root filesystem: a [`Tree`] as ext4, no larger than it has to be.

use crate::tree::{Content, Kind, Node, Tree, parent};
use crate::{Error, Result};
use mkext4::{
    FsBuilder, InodeCount, InodeHandle, Layout, Meta, Options, ROOT, RegionSink, SpecialKind,
};
use std::collections::BTreeMap;
use std::io;

/// Size in bytes of a filesystem block.
pub const BLOCK: u64 = 4096;
/// The smallest journal that there is. Nothing ever writes to it: the filesystem is read-only.
const JOURNAL_BLOCKS: u32 = 1024;
/// The smallest filesystem: four times its journal.
const MIN_BLOCKS: u64 = 4 * JOURNAL_BLOCKS as u64;
/// Inodes that belong to ext4 itself, `lost+found` included.
const RESERVED_INODES: usize = 11;
/// Free blocks that are not worth another try.
const SLACK: u64 = 8;

/// A filesystem whose layout is settled; nothing of its content was read yet.
pub struct Filesystem<'a> {
    layout: Layout,
    fills: Vec<(InodeHandle, &'a str, &'a Content)>,
}

/// What makes two filesystems of the same tree differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Filesystem UUID; the seed of directory hashes follows from it.
    ///
    /// Every metadata checksum starts with it. It is the same for all versions of an image, so
    /// that an update carries only what changed.
    pub uuid: [u8; 16],
    /// Seconds since 1970 UTC. No timestamp in the filesystem is later.
    pub epoch: u64,
}

/// Lays out `tree`, in the least space that holds it.
pub fn plan<'a>(tree: &'a Tree, identity: &Identity) -> Result<Filesystem<'a>> {
    let content: u64 = tree.iter().map(|(_, node)| blocks_of(node)).sum();
    let inodes = tree.iter().count() + RESERVED_INODES;
    // A sixth of the content, and 16 MiB, are more than any metadata needs.
    let mut blocks = MIN_BLOCKS + content + content / 6 + inodes as u64 / 8;
    let mut best = Filesystem::lay_out(tree, identity, inodes, blocks).map_err(invalid)?;
    // Giving back what is free makes the metadata smaller too, so that takes a few rounds.
    for _ in 0..6 {
        let free = best.free_blocks().map_err(invalid)?;
        let smaller = (blocks - free).max(MIN_BLOCKS);
        if smaller + SLACK >= blocks {
            break;
        }
        // Groups end elsewhere now, and a run may not fit: then a little more is needed.
        let fits = (0..16).map(|i| smaller + i * i * SLACK).take_while(|b| *b < blocks).find_map(
            |blocks| Some((blocks, Filesystem::lay_out(tree, identity, inodes, blocks).ok()?)),
        );
        match fits {
            Some((fewer, filesystem)) => (blocks, best) = (fewer, filesystem),
            None => break,
        }
    }
    Ok(best)
}

fn blocks_of(node: &Node) -> u64 {
    match &node.kind {
        Kind::File(content) => content.len().div_ceil(BLOCK),
        Kind::Directory | Kind::Symlink(_) => 1,
        _ => 0,
    }
}

fn invalid(error: mkext4::Error) -> Error {
    Error::refused(format!("the root filesystem cannot be ext4: {error}"))
}

impl<'a> Filesystem<'a> {
    fn lay_out(
        tree: &'a Tree,
        identity: &Identity,
        inodes: usize,
        blocks: u64,
    ) -> mkext4::Result<Filesystem<'a>> {
        let epoch = i64::try_from(identity.epoch).unwrap_or(i64::MAX);
        let mut options = Options::new(blocks * BLOCK, identity.uuid, epoch);
        options.label = Some("root".to_owned());
        options.reserved_percent = 0;
        options.journal_blocks = Some(JOURNAL_BLOCKS);
        options.inodes = InodeCount::Exact(u32::try_from(inodes).unwrap_or(u32::MAX));
        let mut builder = FsBuilder::new(options)?;
        let mut handles: BTreeMap<&str, InodeHandle> = BTreeMap::from([("", ROOT)]);
        let mut fills = Vec::new();
        let mut links = Vec::new();
        for (path, node) in tree.iter() {
            let time = node.mtime.clamp(0, epoch);
            let meta = Meta::new(node.mode, node.uid, node.gid, (time, 0));
            let handle = if path.is_empty() {
                builder.set_meta(ROOT, meta)?;
                ROOT
            } else {
                let (above, name) = place(path, &handles)?;
                match &node.kind {
                    Kind::Directory => builder.mkdir(above, name, meta)?,
                    Kind::File(content) => {
                        let file = builder.file(above, name, meta, content.len())?;
                        if !content.is_empty() {
                            fills.push((file, path, content));
                        }
                        file
                    }
                    Kind::Symlink(target) => builder.symlink(above, name, target, meta)?,
                    Kind::HardLink(target) => {
                        links.push((path, target));
                        continue;
                    }
                    Kind::CharDevice(major, minor) => {
                        let kind = SpecialKind::Char { major: *major, minor: *minor };
                        builder.mknod(above, name, meta, kind)?
                    }
                    Kind::BlockDevice(major, minor) => {
                        let kind = SpecialKind::Block { major: *major, minor: *minor };
                        builder.mknod(above, name, meta, kind)?
                    }
                    Kind::Fifo => builder.mknod(above, name, meta, SpecialKind::Fifo)?,
                }
            };
            for (name, value) in &node.xattrs {
                builder.set_xattr(handle, name, value)?;
            }
            handles.insert(path, handle);
        }
        for (path, target) in links {
            let target = link_target(tree, target);
            let file = handles.get(target).copied().ok_or_else(|| {
                mkext4::Error::Invalid(format!("{path} is a hard link to {target}: no such file"))
            })?;
            let (above, name) = place(path, &handles)?;
            builder.hardlink(above, name, file)?;
        }
        Ok(Filesystem { layout: builder.seal()?, fills })
    }

    /// Size in bytes, a multiple of [`BLOCK`].
    pub fn size(&self) -> u64 {
        self.layout.image_len()
    }

    fn free_blocks(&self) -> mkext4::Result<u64> {
        let mut sink = FirstBlock::default();
        drop(self.layout.writer(&mut sink)?);
        Ok(sink.free_blocks)
    }

    /// Writes the filesystem: metadata first, then each file, which is read in pieces. The error
    /// names the file.
    pub fn write(&self, mut sink: impl RegionSink) -> Result<()> {
        let failed = |path: &str, error: mkext4::Error| match error {
            mkext4::Error::Io(source) => Error::io("write to the root filesystem", path)(source),
            other => invalid(other),
        };
        let mut writer = self.layout.writer(&mut sink).map_err(|e| failed("its metadata", e))?;
        for (handle, path, content) in &self.fills {
            writer.fill(*handle, &mut content.reader()).map_err(|e| failed(path, e))?;
        }
        writer.finish().map_err(|e| failed("", e)).map(drop)
    }
}

/// Directory and name of `path`.
fn place<'p>(
    path: &'p str,
    handles: &BTreeMap<&str, InodeHandle>,
) -> mkext4::Result<(InodeHandle, &'p str)> {
    let above = parent(path);
    let handle = handles.get(above).copied();
    let handle = handle.ok_or_else(|| mkext4::Error::Invalid(format!("{path} has no parent")))?;
    Ok((handle, path[above.len()..].trim_start_matches('/')))
}

/// Where a hard link leads, through links to links.
fn link_target<'t>(tree: &'t Tree, mut target: &'t str) -> &'t str {
    for _ in 0..40 {
        match tree.get(target).map(|node| &node.kind) {
            Some(Kind::HardLink(next)) => target = next,
            _ => break,
        }
    }
    target
}

/// Looks at the superblock and drops everything else.
#[derive(Default)]
struct FirstBlock {
    free_blocks: u64,
}

impl RegionSink for FirstBlock {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // `s_free_blocks_count_lo`, 12 bytes into the superblock at 1024.
        if offset == 0 && bytes.len() >= 2048 {
            let count = [0, 1, 2, 3].map(|i| bytes[1024 + 12 + i]);
            self.free_blocks = u64::from(u32::from_le_bytes(count));
        }
        Ok(())
    }

    fn zeros(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mkext4::sink::{CheckingSink, VecSink};

    const IDENTITY: Identity = Identity { uuid: [3; 16], epoch: 1000 };

    fn bytes(tree: &Tree) -> Vec<u8> {
        let filesystem = plan(tree, &IDENTITY).expect("a layout");
        let mut sink = CheckingSink::new(VecSink::default());
        filesystem.write(&mut sink).expect("written");
        sink.finish(filesystem.size()).expect("every byte once").buf
    }

    fn sample() -> Tree {
        let mut tree = Tree::new(500);
        tree.insert("a", Node::new(Kind::HardLink("usr/bin/x".into()), 0o755, 1));
        let mut program =
            Node::file(vec![7; 3 * 4096 + 5], 2000).with_mode(0o4755).with_owner(5, 6);
        program.xattrs.insert("security.capability".into(), b"cap".to_vec());
        tree.insert("usr/bin/x", program);
        tree.insert("usr/bin/empty", Node::file(Vec::new(), 3));
        tree.insert("usr/link", Node::symlink("bin/x", 4));
        tree.insert("dev/null", Node::new(Kind::CharDevice(1, 3), 0o666, 5));
        tree.insert("run/fifo", Node::new(Kind::Fifo, 0o600, 5));
        tree
    }

    #[test]
    fn a_tree_reads_back_as_it_was() {
        let image = bytes(&sample());
        let fs = mkext4::reader::Fs::open(&image[..]).expect("a filesystem");
        let inode = fs.resolve("/usr/bin/x").expect("the program");
        assert_eq!(fs.read_file(inode).expect("content"), vec![7; 3 * 4096 + 5]);
        assert_eq!(fs.resolve("/a").expect("the hard link"), inode);
        let read = fs.inode(inode).expect("an inode");
        assert_eq!((read.mode & 0o7777, read.uid, read.gid), (0o4755, 5, 6));
        assert_eq!(read.links_count, 2);
        // Clamped.
        assert_eq!(read.mtime, 1000);
        assert!(fs.resolve("/run/fifo").is_ok());
    }

    #[test]
    fn no_needless_space() {
        let mut tree = sample();
        for i in 0..3000 {
            tree.insert(&format!("many/{i}"), Node::file(vec![1; 20_000], 0));
        }
        tree.insert("large", Node::file(vec![2; 90 << 20], 0));
        let filesystem = plan(&tree, &IDENTITY).expect("a layout");
        assert!(filesystem.free_blocks().expect("a superblock") < 64);
        assert_eq!(bytes(&sample()).len() as u64, MIN_BLOCKS * BLOCK);
    }

    #[test]
    fn same_tree_same_bytes() {
        assert!(bytes(&sample()) == bytes(&sample()));
    }

    #[test]
    fn what_ext4_cannot_hold_is_named() {
        let mut tree = Tree::new(0);
        tree.insert("a", Node::new(Kind::HardLink("nowhere".into()), 0o644, 1));
        let error = plan(&tree, &IDENTITY).err().expect("an error").to_string();
        assert!(error.contains("a is a hard link to nowhere: no such file"), "{error}");
    }
}
