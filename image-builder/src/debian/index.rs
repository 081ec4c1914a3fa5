//! Package indexes: `Packages.xz`, cut down to what is needed and looked up by name.
//!
//! An index of Debian's main archive is 57 MB of text with 69,000 packages. What matters of it is
//! kept as one text of tab-separated lines, which is also how it is cached; nothing is parsed
//! before someone asks for that package.

use super::version;
use super::{Archive, Package};
use crate::cache::parse_hex;
use crate::{Error, Result};
use std::io::{BufRead, BufReader, Read};

/// Increase when the lines change, so that cached ones are made again.
pub const FORMAT: &[u8] = b"index 1";

/// An index may not be longer than this: ten times what the largest is today.
const MAX_LEN: u64 = 600 << 20;

/// The fields in the order of a line.
const FIELDS: [&str; 11] = [
    "Package",
    "Version",
    "Architecture",
    "Filename",
    "Size",
    "SHA256",
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Provides",
    "Conflicts",
];

/// Cuts a `Packages` file down to tab-separated lines. `name` is for errors.
pub fn condense(packages: impl Read, name: &str) -> Result<String> {
    let mut lines = BufReader::with_capacity(256 << 10, packages.take(MAX_LEN));
    let mut out = String::new();
    let mut values: [String; FIELDS.len()] = Default::default();
    let mut line = Vec::new();
    let mut current = None;
    loop {
        line.clear();
        let read = lines
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::corrupt(format!("{name}: cannot be unpacked: {e}")))?;
        while line.pop_if(|c| c.is_ascii_whitespace()).is_some() {}
        if line.is_empty() {
            if !values[0].is_empty() {
                for (i, value) in values.iter_mut().enumerate() {
                    out.push_str(if i == 0 { "" } else { "\t" });
                    out.push_str(value);
                    value.clear();
                }
                out.push('\n');
            }
            if read == 0 {
                return Ok(out);
            }
            continue;
        }
        if !matches!(line[0], b' ' | b'\t') {
            let colon = line.iter().position(|c| *c == b':').unwrap_or(0);
            current = field_index(&line[..colon]);
            line.drain(..(colon + 1).min(line.len()));
        }
        let Some(field) = current else { continue };
        let text = std::str::from_utf8(&line)
            .map_err(|_| Error::corrupt(format!("{name}: a field is not UTF-8")))?;
        let value = &mut values[field];
        // `Breaks` joins `Conflicts`: here, where nothing is installed yet, they mean the same.
        if !value.is_empty() {
            value.push_str(if field == FIELDS.len() - 1 { ", " } else { " " });
        }
        value.extend(text.trim().chars().map(|c| if c == '\t' { ' ' } else { c }));
    }
}

fn field_index(name: &[u8]) -> Option<usize> {
    if name.eq_ignore_ascii_case(b"Breaks") {
        return Some(FIELDS.len() - 1);
    }
    FIELDS.iter().position(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// The packages of one suite.
#[derive(Clone, Debug)]
pub struct Index {
    /// The archive that serves them.
    pub archive: Archive,
    /// Their lines, from [`condense`].
    pub text: String,
}

/// One package of an index.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    archive: Archive,
    line: &'a str,
}

impl<'a> Record<'a> {
    fn field(self, at: usize) -> &'a str {
        self.line.split('\t').nth(at).unwrap_or_default()
    }

    /// Name.
    pub fn name(self) -> &'a str {
        self.field(0)
    }

    /// Version.
    pub fn version(self) -> &'a str {
        self.field(1)
    }

    /// What must be there before and while it runs.
    pub fn depends(self) -> [&'a str; 2] {
        [self.field(6), self.field(7)]
    }

    /// What would usually be there too.
    pub fn recommends(self) -> &'a str {
        self.field(8)
    }

    /// Other names that it stands for.
    pub fn provides(self) -> &'a str {
        self.field(9)
    }

    /// What it cannot be together with: `Conflicts` and `Breaks`.
    pub fn conflicts(self) -> &'a str {
        self.field(10)
    }

    /// The package to fetch.
    pub fn package(self) -> Result<Package> {
        let wrong = |what: &str| {
            Error::corrupt(format!("index: package {}: {what} is not valid", self.name()))
        };
        let package = Package {
            name: self.name().to_owned(),
            version: self.version().to_owned(),
            architecture: self.field(2).to_owned(),
            archive: self.archive,
            filename: self.field(3).to_owned(),
            size: self.field(4).parse().map_err(|_| wrong("Size"))?,
            sha256: parse_hex(self.field(5)).ok_or_else(|| wrong("SHA256"))?,
        };
        package.check()?;
        Ok(package)
    }
}

/// All packages of some indexes by name.
pub struct Universe<'a> {
    /// Sorted by name, the highest version of each first.
    records: Vec<(&'a str, Record<'a>)>,
    /// Virtual name, record. Sorted by virtual name, then by real name.
    providers: Vec<(&'a str, Record<'a>)>,
}

impl<'a> Universe<'a> {
    /// Sorts the packages of `indexes`.
    pub fn new(indexes: &'a [Index]) -> Universe<'a> {
        let mut records: Vec<(&str, Record)> = Vec::new();
        for index in indexes {
            let archive = index.archive;
            records.extend(index.text.lines().map(|line| {
                (line.split('\t').next().unwrap_or_default(), Record { archive, line })
            }));
        }
        records.sort_by(|(name_a, a), (name_b, b)| {
            name_a.cmp(name_b).then_with(|| version::compare(b.version(), a.version()))
        });
        let mut providers = Vec::new();
        for (at, (name, record)) in records.iter().enumerate() {
            let highest = at == 0 || records[at - 1].0 != *name;
            if highest && !record.provides().is_empty() {
                let names = record.provides().split(',').map(|provided| {
                    provided.split_once('(').map_or(provided, |(name, _)| name).trim()
                });
                providers.extend(names.map(|virtual_name| (virtual_name, *record)));
            }
        }
        providers.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name().cmp(y.name())));
        Universe { records, providers }
    }

    /// All versions of a package, the highest first.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = Record<'a>> {
        range(&self.records, name)
    }

    /// Packages whose highest version provides `name`, by their own name.
    pub fn providers(&self, name: &str) -> impl Iterator<Item = Record<'a>> {
        range(&self.providers, name)
    }

    /// Every name of a real package.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.records.iter().map(|(name, _)| *name)
    }
}

fn range<'a>(sorted: &[(&'a str, Record<'a>)], name: &str) -> impl Iterator<Item = Record<'a>> {
    let start = sorted.partition_point(|(n, _)| *n < name);
    let len = sorted[start..].partition_point(|(n, _)| *n <= name);
    sorted[start..start + len].iter().map(|(_, record)| *record)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &str = "Package: a\nVersion: 1\nArchitecture: all\nDescription: one\n two\n\
        Filename: pool/a.deb\nSize: 3\nDepends: b (>= 1),\n c\nBreaks: d\nConflicts: e\n\
        SHA256: 0000000000000000000000000000000000000000000000000000000000000000\n\n\n\
        package: b\nversion: 1\nprovides: v (= 2), w\n";

    fn index(packages: &str) -> Index {
        Index { archive: Archive::Main, text: condense(packages.as_bytes(), "test").unwrap() }
    }

    #[test]
    fn a_package_keeps_what_is_needed() {
        let indexes = [index(PACKAGES)];
        let universe = Universe::new(&indexes);
        let a = universe.versions("a").next().unwrap();
        assert_eq!(a.depends(), ["", "b (>= 1), c"]);
        assert_eq!(a.conflicts(), "d, e");
        assert_eq!(a.package().unwrap().filename, "pool/a.deb");
        let provider = universe.providers("w").next().unwrap();
        assert_eq!((provider.name(), provider.version()), ("b", "1"));
        assert!(provider.package().is_err(), "it has no file");
        assert_eq!(universe.versions("w").count(), 0);
    }

    #[test]
    fn the_highest_version_of_all_suites_comes_first() {
        let indexes = ["1.0-1", "1.0-1+deb13u1", "1.0-1~x"]
            .map(|v| index(&format!("Package: p\nVersion: {v}\nProvides: v{v}\n")));
        let universe = Universe::new(&indexes);
        let versions: Vec<_> = universe.versions("p").map(Record::version).collect();
        assert_eq!(versions, ["1.0-1+deb13u1", "1.0-1", "1.0-1~x"]);
        assert_eq!(universe.providers("v1.0-1").count(), 0);
        assert_eq!(universe.providers("v1.0-1+deb13u1").count(), 1);
    }
}
