//! Writes a tree to a folder, for programs that are run from there.
//!
//! It is not a way to unpack a system: owners, special permissions, extended attributes and
//! devices are left out, so that nothing needs root privileges.

use crate::tree::{Content, Kind, Tree, join, parent};
use crate::{Error, Result};
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;

/// Writes `tree` into the new folder `to`. Returns each regular file with its size.
///
/// Links to absolute paths become relative ones, so that they stay within the folder.
pub fn export(tree: &Tree, to: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    for (path, node) in tree.iter() {
        check(tree, path)?;
        let place = to.join(path);
        match &node.kind {
            Kind::Directory => {
                let made = DirBuilder::new().mode(0o755).create(&place);
                made.map_err(Error::io("create", &place))?;
            }
            Kind::File(content) => {
                write(content, u32::from(node.mode) & 0o755, &place, &mut buffer)?;
                files.push((path.to_owned(), content.len()));
            }
            Kind::Symlink(target) => {
                let target = relative(path, target);
                symlink(target, &place).map_err(Error::io("create", &place))?;
            }
            // After their targets, below.
            Kind::HardLink(_) => {}
            Kind::CharDevice(..) | Kind::BlockDevice(..) | Kind::Fifo => {}
        }
    }
    for (path, node) in tree.iter() {
        if let Kind::HardLink(target) = &node.kind {
            check(tree, target)?;
            let place = to.join(path);
            fs::hard_link(to.join(target), &place).map_err(Error::io("create", &place))?;
        }
    }
    Ok(files)
}

/// Refuses paths that could lead out of the folder.
fn check(tree: &Tree, path: &str) -> Result<()> {
    let plain = path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let below = tree.get(parent(path)).is_some_and(|node| matches!(node.kind, Kind::Directory));
    match plain && below {
        true => Ok(()),
        false => Err(Error::corrupt(format!("write `{path}`: it is not below a folder"))),
    }
}

fn write(content: &Content, mode: u32, place: &Path, buffer: &mut [u8]) -> Result<()> {
    let file = File::options().write(true).create_new(true).mode(mode).open(place);
    let mut file = file.map_err(Error::io("create", place))?;
    let mut at = 0;
    while at < content.len() {
        let n = (content.len() - at).min(buffer.len() as u64) as usize;
        content.read_exact_at(&mut buffer[..n], at)?;
        file.write_all(&buffer[..n]).map_err(Error::io("write", place))?;
        at += n as u64;
    }
    Ok(())
}

/// The target of a link at `path` as seen from there, when it is absolute.
fn relative(path: &str, target: &str) -> String {
    match target.strip_prefix('/') {
        None => target.to_owned(),
        Some(target) => join(&vec![".."; path.matches('/').count()].join("/"), target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_links_and_modes_arrive() {
        let mut tree = Tree::new(0);
        tree.insert("usr/bin/tool", Node::file(*b"program", 0).with_mode(0o4755));
        tree.insert("usr/bin/alias", Node::symlink("tool", 0));
        tree.insert("etc/alternatives/tool", Node::symlink("/usr/bin/tool", 0));
        tree.insert("a-link", Node::new(Kind::HardLink("usr/bin/tool".into()), 0o755, 0));
        tree.insert("dev/null", Node::new(Kind::CharDevice(1, 3), 0o666, 0));
        let large = vec![7; (2 << 20) + 5];
        tree.insert("usr/large", Node::file(large.clone(), 0));

        let dir = tempfile::tempdir().expect("a folder");
        let to = dir.path().join("new");
        let files = export(&tree, &to).expect("exported");
        assert_eq!(
            files,
            [("usr/bin/tool".to_owned(), 7), ("usr/large".to_owned(), large.len() as u64)]
        );
        let read = |path: &str| fs::read(to.join(path)).expect(path);
        for path in ["usr/bin/tool", "usr/bin/alias", "etc/alternatives/tool", "a-link"] {
            assert_eq!(read(path), b"program", "{path}");
        }
        assert_eq!(read("usr/large"), large);
        let mode = fs::metadata(to.join("usr/bin/tool")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7022, 0);
        assert!(!to.join("dev/null").exists());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let mut tree = Tree::new(0);
        tree.insert("out/file", Node::file(*b"x", 0));
        // A link in place of a folder that has files.
        tree.get_mut("out").expect("there").kind = Kind::Symlink("/tmp".into());
        let dir = tempfile::tempdir().expect("a folder");
        let error = export(&tree, &dir.path().join("new")).expect_err("refused");
        assert_eq!(error.to_string(), "write `out/file`: it is not below a folder");
    }

    #[test]
    fn absolute_links_stay_inside() {
        assert_eq!(relative("a", "/b/c"), "b/c");
        assert_eq!(relative("x/y/a", "/b/c"), "../../b/c");
        assert_eq!(relative("x/y/a", "b"), "b");
    }
}
