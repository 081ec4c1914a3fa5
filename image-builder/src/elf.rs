//! What an ELF file needs to run: its interpreter and shared libraries.
//!
//! Reads headers and the dynamic section only, never a whole file: container runtimes are large.

use crate::tree::{Content, Kind, Tree, join, parent};
use elf::abi::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use elf::endian::LittleEndian;
use elf::file::parse_ident;
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};
use std::collections::{BTreeMap, BTreeSet};

/// What one ELF file asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Path of the dynamic loader.
    pub interpreter: Option<String>,
    /// Names of shared libraries.
    pub libraries: Vec<String>,
    /// Folders that are searched first; `$ORIGIN` is the file's own.
    pub search: Vec<String>,
}

/// Reads what `content` needs; `None` when it is not a 64-bit ELF file.
pub fn needs(content: &Content) -> Option<Needs> {
    let read = |offset: u64, len: u64| -> Option<Vec<u8>> {
        // Headers and string tables are small; anything else is not what it says.
        if len > 8 << 20 || offset.checked_add(len)? > content.len() {
            return None;
        }
        let mut bytes = vec![0; len as usize];
        content.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    };
    let start = read(0, 64)?;
    let (endian, class, ..) = parse_ident::<LittleEndian>(&start).ok()?;
    if class != elf::file::Class::ELF64 {
        return None;
    }
    let u64_at = |at: usize| u64::from_le_bytes(start[at..at + 8].try_into().unwrap_or_default());
    let u16_at = |at: usize| u16::from_le_bytes(start[at..at + 2].try_into().unwrap_or_default());
    let (offset, size, count) = (u64_at(32), u64::from(u16_at(54)), u64::from(u16_at(56)));
    if size != ProgramHeader::size_for(class) as u64 {
        return None;
    }
    let headers = read(offset, size * count)?;
    let segments: Vec<ProgramHeader> = SegmentTable::new(endian, class, &headers).iter().collect();
    let segment = |kind: u32| segments.iter().find(|s| s.p_type == kind);

    let mut needs = Needs::default();
    if let Some(interp) = segment(PT_INTERP) {
        needs.interpreter = text(&read(interp.p_offset, interp.p_filesz)?, 0);
    }
    let Some(dynamic) = segment(PT_DYNAMIC) else { return Some(needs) };
    let dynamic = read(dynamic.p_offset, dynamic.p_filesz)?;
    let entries: Vec<(i64, u64)> = elf::dynamic::DynamicTable::new(endian, class, &dynamic)
        .iter()
        .map(|entry| (entry.d_tag, entry.d_val()))
        .collect();
    let value = |tag: i64| entries.iter().find(|(t, _)| *t == tag).map(|(_, v)| *v);
    let address = value(DT_STRTAB)?;
    let load = segments.iter().find(|s| {
        s.p_type == PT_LOAD && address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz
    })?;
    let strings = read(load.p_offset + (address - load.p_vaddr), value(DT_STRSZ)?)?;
    for (tag, at) in entries {
        match tag {
            DT_NEEDED => needs.libraries.extend(text(&strings, at)),
            DT_RUNPATH | DT_RPATH => {
                let paths = text(&strings, at).unwrap_or_default();
                needs.search.extend(paths.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Some(needs)
}

fn text(bytes: &[u8], at: u64) -> Option<String> {
    let bytes = bytes.get(usize::try_from(at).ok()?..)?;
    let end = bytes.iter().position(|&b| b == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}

/// The folders that Debian's dynamic loader searches, beside a file's own.
const LIBRARY_FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib"];

/// A library that a file needs and the tree does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The file.
    pub file: String,
    /// The library.
    pub library: String,
}

/// How the ELF files of a tree hang together.
#[derive(Debug, Default)]
pub struct Links {
    /// For each ELF file, the paths of the libraries that it needs itself. Symbolic links among
    /// them are listed with their targets.
    needed: BTreeMap<String, Vec<String>>,
    /// What is not there.
    pub missing: Vec<Missing>,
}

impl Links {
    /// Reads every ELF file of `tree`. Files for which `skip` holds are left out.
    pub fn read(tree: &Tree, skip: impl Fn(&str) -> bool) -> Links {
        let mut links = Links::default();
        for (path, node) in tree.iter() {
            let Kind::File(content) = &node.kind else { continue };
            if skip(path) {
                continue;
            }
            let Some(needs) = needs(content) else { continue };
            let mut found = Vec::new();
            let asked = needs.interpreter.iter().chain(&needs.libraries);
            for library in asked {
                match find(tree, path, library, &needs.search) {
                    Some(paths) => found.extend(paths),
                    None => links
                        .missing
                        .push(Missing { file: path.to_owned(), library: library.clone() }),
                }
            }
            links.needed.insert(path.to_owned(), found);
        }
        links
    }

    /// All paths that the files for which `root` holds need, directly or through others.
    pub fn reachable(&self, root: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&String> = self.needed.keys().filter(|path| root(path)).collect();
        while let Some(path) = open.pop() {
            for library in self.needed.get(path).into_iter().flatten() {
                if reached.insert(library.clone()) {
                    open.push(library);
                }
            }
        }
        reached
    }

    /// All ELF files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.needed.keys().map(String::as_str)
    }
}

/// The path of `library` and, when that is a link, of its target.
fn find(tree: &Tree, file: &str, library: &str, search: &[String]) -> Option<Vec<String>> {
    let candidates: Vec<String> = if library.starts_with('/') {
        vec![library.to_owned()]
    } else {
        let own = search.iter().map(|folder| folder.replace("$ORIGIN", parent(file)));
        own.chain(LIBRARY_FOLDERS.map(str::to_owned)).map(|f| join(&f, library)).collect()
    };
    candidates.iter().find_map(|path| {
        let (link, target) = (tree.real_path(path), tree.resolve(path));
        let is_file = |p: &str| {
            matches!(tree.get(p).map(|n| &n.kind), Some(Kind::File(_) | Kind::HardLink(_)))
        };
        is_file(&target).then(|| vec![link, target])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn this_program() -> Content {
        let program = std::env::current_exe().expect("this test");
        Content::from_bytes(std::fs::read(program).expect("readable"))
    }

    #[test]
    fn reads_what_this_test_needs() {
        let needs = needs(&this_program()).expect("an ELF file");
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{needs:?}");
        assert!(needs.interpreter.is_some_and(|i| i.contains("ld-linux")));
    }

    #[test]
    fn a_missing_library_names_both() {
        let mut tree = Tree::new(0);
        tree.insert("usr/bin/x", Node::new(Kind::File(this_program()), 0o755, 0));
        let missing = Links::read(&tree, |_| false).missing;
        let pair = Missing { file: "usr/bin/x".into(), library: "libc.so.6".into() };
        assert!(missing.contains(&pair), "{missing:?}");
    }

    #[test]
    fn what_is_not_elf_or_cut_short_is_no_elf() {
        assert_eq!(needs(&Content::from_bytes(*b"#!/bin/sh\n")), None);
        let mut cut = this_program().read_all().expect("bytes");
        cut.truncate(100);
        assert_eq!(needs(&Content::from_bytes(cut)), None);
    }
}
