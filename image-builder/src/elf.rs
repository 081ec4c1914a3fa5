//! What an ELF file needs to run: its interpreter and shared libraries.
//!
//! Reads headers and the dynamic section only, never a whole file: container runtimes are large.

use crate::Error;
use crate::little_endian::{u16_at, u64_at};
use crate::tree::{Content, Kind, Tree, join, parent};
use elf::abi::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRTAB, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use elf::dynamic::DynamicTable;
use elf::endian::LittleEndian;
use elf::file::{Class, parse_ident};
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

/// Headers are small; more than this is not what it says.
const HEADERS_LIMIT: u64 = 1 << 20;
/// Longest name of a library, or list of folders.
const TEXT_LIMIT: u64 = 4096;

/// Reads what `content` needs; `None` when it is not a 64-bit ELF file. A file that says it is one
/// and cannot be read as one is an error, in words.
pub fn needs(content: &Content) -> Result<Option<Needs>, String> {
    if content.len() < 64 {
        return Ok(None);
    }
    let start = read(content, 0, 64)?;
    let Ok((endian, Class::ELF64, ..)) = parse_ident::<LittleEndian>(&start) else {
        return Ok(None);
    };
    let offset = u64_at(&start, 32);
    let (size, count) = (u64::from(u16_at(&start, 54)), u64::from(u16_at(&start, 56)));
    if count > 0 && size != ProgramHeader::size_for(Class::ELF64) as u64 {
        return Err(format!("program headers of {size} bytes"));
    }
    let headers = read(content, offset, size * count)?;
    let table = SegmentTable::new(endian, Class::ELF64, &headers);
    let segments: Vec<ProgramHeader> = table.iter().collect();
    let segment = |kind: u32| segments.iter().find(|s| s.p_type == kind);

    let mut needs = Needs::default();
    if let Some(interp) = segment(PT_INTERP) {
        needs.interpreter = Some(text(content, interp.p_offset)?);
    }
    let Some(dynamic) = segment(PT_DYNAMIC) else { return Ok(Some(needs)) };
    let dynamic = read(content, dynamic.p_offset, dynamic.p_filesz)?;
    let entries: Vec<(i64, u64)> = DynamicTable::new(endian, Class::ELF64, &dynamic)
        .iter()
        .map(|entry| (entry.d_tag, entry.d_val()))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let Some((_, address)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
        return Ok(Some(needs));
    };
    let holds = |s: &&ProgramHeader| {
        s.p_type == PT_LOAD && *address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz
    };
    let load = segments.iter().find(holds).ok_or("a string table outside of the file")?;
    let strings = load.p_offset.saturating_add(address - load.p_vaddr);
    for (tag, at) in entries {
        match tag {
            DT_NEEDED => needs.libraries.push(text(content, strings.saturating_add(at))?),
            DT_RUNPATH | DT_RPATH => {
                let paths = text(content, strings.saturating_add(at))?;
                needs.search.extend(paths.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(Some(needs))
}

fn read(content: &Content, offset: u64, len: u64) -> Result<Vec<u8>, String> {
    let end = offset.checked_add(len).filter(|end| *end <= content.len());
    if len > HEADERS_LIMIT || end.is_none() {
        return Err(format!("{len} bytes at {offset} are not in the file"));
    }
    let mut bytes = vec![0; len as usize];
    content.read_exact_at(&mut bytes, offset).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// The text at `at`, up to its NUL. String tables of large programs are never read whole.
fn text(content: &Content, at: u64) -> Result<String, String> {
    let bytes = read(content, at, content.len().saturating_sub(at).min(TEXT_LIMIT))?;
    let end = bytes.iter().position(|&b| b == 0).ok_or("a name without an end")?;
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| "a name that is not UTF-8".to_owned())
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
    pub fn read(tree: &Tree, skip: impl Fn(&str) -> bool) -> crate::Result<Links> {
        let mut links = Links::default();
        for (path, node) in tree.iter() {
            let Kind::File(content) = &node.kind else { continue };
            if skip(path) {
                continue;
            }
            let needs = needs(content)
                .map_err(|why| Error::corrupt(format!("/{path} is not a whole ELF file: {why}")))?;
            let Some(needs) = needs else { continue };
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
        Ok(links)
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
        let needs = needs(&this_program()).expect("whole").expect("an ELF file");
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{needs:?}");
        assert!(needs.interpreter.is_some_and(|i| i.contains("ld-linux")));
    }

    #[test]
    fn a_missing_library_names_both() {
        let mut tree = Tree::new(0);
        tree.insert("usr/bin/x", Node::new(Kind::File(this_program()), 0o755, 0));
        let missing = Links::read(&tree, |_| false).expect("whole").missing;
        let pair = Missing { file: "usr/bin/x".into(), library: "libc.so.6".into() };
        assert!(missing.contains(&pair), "{missing:?}");
    }

    #[test]
    fn what_is_not_elf_is_none_and_what_is_cut_short_an_error() {
        let script = [b"#!/bin/sh\n".as_slice(), &[b'#'; 100]].concat();
        assert_eq!(needs(&Content::from_bytes(script)), Ok(None));
        assert_eq!(needs(&Content::from_bytes(*b"\x7fELF")), Ok(None));
        let mut cut = this_program().read_all().expect("bytes");
        cut.truncate(100);
        assert!(needs(&Content::from_bytes(cut)).is_err());
    }
}
