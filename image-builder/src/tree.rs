//! A file tree in memory: names and metadata here, content where it lies.
//!
//! Nothing is unpacked to a disk, so nothing needs root privileges, and ownership, modes, links,
//! extended attributes and device nodes are exactly what the packages say. Filesystem and archive
//! writers read the tree in path order.

use crate::definition::{ExtraContent, ExtraFile};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Content of a regular file.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A range of an open file, usually an unpacked package in the cache.
    Range {
        /// The open file.
        file: Arc<File>,
        /// Its path, for errors.
        path: Arc<PathBuf>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Content {
    /// Content that was made here.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Content {
        Content::Bytes(bytes.into())
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Range { len, .. } => *len,
        }
    }

    /// Whether both are the same bytes by where they lie; false when only a comparison could tell.
    pub fn is_same_source(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Bytes(a), Content::Bytes(b)) => a == b,
            (
                Content::Range { path: a, offset: a_offset, len: a_len, .. },
                Content::Range { path: b, offset: b_offset, len: b_len, .. },
            ) => a == b && a_offset == b_offset && a_len == b_len,
            _ => false,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `at` on. The caller stays within [`Content::len`].
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        match self {
            Content::Bytes(bytes) => {
                let start = at as usize;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Content::Range { file, path, offset, .. } => {
                file.read_exact_at(buffer, offset + at).map_err(Error::io("read", path.as_ref()))
            }
        }
    }

    /// All bytes. For small files; large ones are read in pieces.
    pub fn read_all(&self) -> Result<Vec<u8>> {
        let mut all = vec![0; self.len() as usize];
        self.read_exact_at(&mut all, 0)?;
        Ok(all)
    }

    /// A reader from the start to the end.
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, at: 0 }
    }
}

/// Reads a [`Content`] in order.
pub struct ContentReader<'a> {
    content: &'a Content,
    at: u64,
}

impl std::io::Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.content.len() - self.at;
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.content.read_exact_at(&mut buffer[..n], self.at).map_err(std::io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// What a path is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link to this target.
    Symlink(String),
    /// A hard link to this path of the same tree, which is a regular file.
    HardLink(String),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A path of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 UTC.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Node {
    /// A node of root with these permissions.
    pub fn new(kind: Kind, mode: u16, mtime: i64) -> Node {
        Node { kind, mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }

    /// A directory of root, mode 0755.
    pub fn directory(mtime: i64) -> Node {
        Node::new(Kind::Directory, 0o755, mtime)
    }

    /// A regular file of root, mode 0644.
    pub fn file(bytes: impl Into<Arc<[u8]>>, mtime: i64) -> Node {
        Node::new(Kind::File(Content::from_bytes(bytes)), 0o644, mtime)
    }

    /// A symbolic link of root.
    pub fn symlink(target: &str, mtime: i64) -> Node {
        Node::new(Kind::Symlink(target.to_owned()), 0o777, mtime)
    }

    /// The same with other permissions.
    pub fn with_mode(self, mode: u16) -> Node {
        Node { mode, ..self }
    }

    /// The same with another owner and group.
    pub fn with_owner(self, uid: u32, gid: u32) -> Node {
        Node { uid, gid, ..self }
    }
}

/// Paths without a leading slash (`usr/bin/docker`) to nodes, in byte order. The root directory
/// itself is the empty path and always there.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// A tree with nothing but its root directory.
    pub fn new(mtime: i64) -> Tree {
        Tree { nodes: BTreeMap::from([(String::new(), Node::directory(mtime))]) }
    }

    /// A tree with the links of a merged /usr, which Debian ships in base-files.
    pub fn with_merged_usr(mtime: i64) -> Tree {
        let mut tree = Tree::new(mtime);
        for name in ["bin", "lib", "lib64", "sbin"] {
            tree.insert(&format!("usr/{name}"), Node::directory(mtime));
            tree.insert(name, Node::symlink(&format!("usr/{name}"), mtime));
        }
        tree
    }

    /// The path that `path` really names, with symbolic links among its parent directories
    /// followed: `lib/x` is `usr/lib/x` on a merged-/usr system. The last part is not followed.
    pub fn real_path(&self, path: &str) -> String {
        let mut done = String::new();
        let mut parts: Vec<String> =
            path.split('/').filter(|p| !p.is_empty() && *p != ".").rev().map(Into::into).collect();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            if part == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let here = join(&done, &part);
            match self.nodes.get(&here).map(|node| &node.kind) {
                Some(Kind::Symlink(target)) if !parts.is_empty() && links < 40 => {
                    links += 1;
                    if target.starts_with('/') {
                        done.clear();
                    }
                    let target = target.split('/').filter(|p| !p.is_empty() && *p != ".");
                    parts.extend(target.rev().map(str::to_owned));
                }
                _ => done = here,
            }
        }
        done
    }

    /// Like [`Tree::real_path`], following the last part too.
    pub fn resolve(&self, path: &str) -> String {
        let mut path = self.real_path(path);
        for _ in 0..40 {
            let Some(Kind::Symlink(target)) = self.nodes.get(&path).map(|n| &n.kind) else { break };
            let base = if target.starts_with('/') { "" } else { parent(&path) };
            path = self.real_path(&join(base, target.trim_start_matches('/')));
        }
        path
    }

    /// Puts `node` at `path`, in place of what was there; a directory over a directory changes
    /// only its metadata. Missing parents are made, owned by root, mode 0755.
    pub fn insert(&mut self, path: &str, node: Node) {
        let path = self.real_path(path);
        let mut above = parent(&path);
        while !above.is_empty() && !self.nodes.contains_key(above) {
            self.nodes.insert(above.to_owned(), Node::directory(node.mtime));
            above = parent(above);
        }
        self.nodes.insert(path, node);
    }

    /// Puts `node` at exactly `path`, without looking at what leads there.
    pub fn insert_exactly(&mut self, path: &str, node: Node) {
        self.nodes.insert(path.to_owned(), node);
    }

    /// Puts what a definition's `[[file]]` describes where it says.
    pub fn insert_extra(&mut self, file: &ExtraFile, mtime: i64) -> Result<()> {
        let kind = match &file.content {
            ExtraContent::Directory => Kind::Directory,
            ExtraContent::Link(target) => Kind::Symlink(target.clone()),
            ExtraContent::Text(text) => Kind::File(Content::from_bytes(text.as_bytes())),
            ExtraContent::Source(source) => {
                let bytes = std::fs::read(source).map_err(Error::io("read", source))?;
                Kind::File(Content::from_bytes(bytes))
            }
        };
        let node = Node::new(kind, file.mode, mtime).with_owner(file.uid, file.gid);
        self.insert(&file.path, node);
        Ok(())
    }

    /// The node at exactly `path`.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at exactly `path`, to change.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Takes away `path` and everything below it. Returns the paths that went.
    pub fn remove(&mut self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        // `/` sorts after `-` and `.`: namesakes like `path-x` may lie between the two.
        let gone: Vec<String> = self
            .nodes
            .range(below.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .chain(self.nodes.get_key_value(path).map(|(p, _)| p))
            .cloned()
            .collect();
        for path in &gone {
            self.nodes.remove(path);
        }
        gone
    }

    /// Whether `path` is a directory with nothing in it.
    pub fn is_empty_directory(&self, path: &str) -> bool {
        let below = format!("{path}/");
        matches!(self.nodes.get(path), Some(Node { kind: Kind::Directory, .. }))
            && !self.nodes.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below))
    }

    /// All paths in byte order, the root directory (the empty path) first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// All nodes, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Node)> {
        self.nodes.iter_mut().map(|(path, node)| (path.as_str(), node))
    }
}

/// The directory that holds `path`; empty for the top.
pub fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

/// `directory/name`, or `name` at the top.
pub fn join(directory: &str, name: &str) -> String {
    match directory.is_empty() {
        true => name.to_owned(),
        false => format!("{directory}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::new(0);
        tree.insert("lib", Node::symlink("usr/lib", 0));
        tree.insert("lib/x86/libc.so.6", Node::file(*b"c", 0));
        tree.insert("usr/lib/x86-extra", Node::file(*b"e", 0));
        tree
    }

    #[test]
    fn links_among_parents_are_followed() {
        let tree = sample();
        assert!(tree.get("usr/lib/x86/libc.so.6").is_some());
        assert_eq!(tree.real_path("/lib/../lib/x86"), "usr/lib/x86");
        assert_eq!(tree.resolve("lib"), "usr/lib");
    }

    #[test]
    fn removing_a_directory_leaves_its_namesakes() {
        let mut tree = sample();
        assert_eq!(tree.remove("usr/lib/x86"), ["usr/lib/x86/libc.so.6", "usr/lib/x86"]);
        assert!(tree.get("usr/lib/x86-extra").is_some());
    }

    #[test]
    fn a_link_that_leads_to_itself_ends() {
        let mut tree = Tree::new(0);
        tree.insert("a", Node::symlink("a", 0));
        assert_eq!(tree.resolve("a"), "a");
        tree.real_path("a/b");
    }
}
