//! The lock file: every package of an image by version and content.

use super::{Package, Request, Resolved};
use crate::new_file::NewFile;
use crate::{Error, Result};
use contract::toml_input::{self, InputError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Format of the file. Another number is refused.
const FORMAT: u32 = 1;

/// What a request was resolved to, independent of any mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    format: u32,
    /// Debian suite.
    pub suite: String,
    /// Debian architecture.
    pub architecture: String,
    /// Whether recommended packages were taken too.
    pub recommends: bool,
    /// When the newest metadata was made, in seconds since 1970 UTC.
    pub release_date: u64,
    /// What was asked for, sorted.
    pub requested: Vec<String>,
    /// What came of it, sorted by name.
    #[serde(default, rename = "package")]
    pub packages: Vec<Package>,
}

impl Lock {
    /// The lock of what `request` came to.
    pub fn new(request: &Request, resolved: &Resolved) -> Lock {
        let mut requested = request.packages.clone();
        requested.sort();
        requested.dedup();
        Lock {
            format: FORMAT,
            suite: request.suite.clone(),
            architecture: request.architecture.clone(),
            recommends: request.recommends,
            release_date: resolved.release_date,
            requested,
            packages: resolved.packages.clone(),
        }
    }

    /// Reads a lock file.
    pub fn read(path: &Path) -> Result<Lock> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::refused(format!("there is no lock file {}", path.display()))
                    .with_hint("`berth lock` writes it"));
            }
            other => other.map_err(Error::io("read", path))?,
        };
        let file = path.display().to_string();
        let anew = "`berth lock` writes it anew";
        let lock: Lock = toml_input::parse(&file, &text).map_err(|e| e.with_hint(anew))?;
        let wrong = |message: String| Error::from(InputError::new(&file, message).with_hint(anew));
        if lock.format != FORMAT {
            return Err(wrong(format!("format {} is not known", lock.format)));
        }
        let mut names = BTreeSet::new();
        for package in &lock.packages {
            package.check().map_err(|e| wrong(e.to_string()))?;
            if !names.insert(&package.name) {
                return Err(wrong(format!("package {} is there twice", package.name)));
            }
        }
        Ok(lock)
    }

    /// Writes a lock file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let toml = toml::to_string(self)
            .map_err(|e| Error::refused(format!("lock file {}: {e}", path.display())))?;
        let text = format!("# Written by `berth lock`. Do not edit.\n{toml}");
        NewFile::write(path, text.as_bytes())
    }

    /// What the resolver would have said, without any index. A lock that was made for another
    /// request is refused.
    pub fn resolved(&self, request: &Request) -> Result<Resolved> {
        let mut wanted = request.packages.clone();
        wanted.sort();
        wanted.dedup();
        let mut differences = Vec::new();
        let mut compare =
            |what: &str, locked: &dyn std::fmt::Display, asked: &dyn std::fmt::Display| {
                let (locked, asked) = (locked.to_string(), asked.to_string());
                if locked != asked {
                    differences.push(format!("{what} is {asked} and not {locked}"));
                }
            };
        compare("suite", &self.suite, &request.suite);
        compare("architecture", &self.architecture, &request.architecture);
        compare("recommends", &self.recommends, &request.recommends);
        let missing = wanted.iter().filter(|p| !self.requested.contains(p));
        differences.extend(missing.map(|p| format!("{p} is asked for and not locked")));
        let gone = self.requested.iter().filter(|p| !wanted.contains(p));
        differences.extend(gone.map(|p| format!("{p} is locked and not asked for")));
        if !differences.is_empty() {
            let what = format!("the lock file does not fit: {}", differences.join("; "));
            return Err(Error::refused(what).with_hint("run `berth lock`"));
        }
        Ok(Resolved { packages: self.packages.clone(), release_date: self.release_date })
    }

    /// What would change from this lock to `new`, a line for each package.
    pub fn differences(&self, new: &Lock) -> Vec<String> {
        fn by_name(lock: &Lock) -> BTreeMap<&str, &Package> {
            lock.packages.iter().map(|p| (p.name.as_str(), p)).collect()
        }
        let (old, new) = (by_name(self), by_name(new));
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        let line = |name: &str| match (old.get(name), new.get(name)) {
            (Some(a), Some(b)) if a.version != b.version => {
                Some(format!("{name}: {} -> {}", a.version, b.version))
            }
            (Some(a), Some(b)) if a.sha256 != b.sha256 => {
                Some(format!("{name}: {} with other content", a.version))
            }
            (Some(a), None) => Some(format!("{name}: {} goes", a.version)),
            (None, Some(b)) => Some(format!("{name}: {} comes", b.version)),
            _ => None,
        };
        names.into_iter().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::Archive;

    fn package(name: &str, version: &str, content: u8) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            archive: Archive::Security,
            filename: format!("pool/{name}.deb"),
            size: 7,
            sha256: [content; 32],
        }
    }

    fn request(packages: &[&str]) -> Request {
        Request {
            suite: "trixie".into(),
            architecture: "amd64".into(),
            packages: packages.iter().map(|p| (*p).into()).collect(),
            recommends: false,
            assume: vec!["perl".into()],
        }
    }

    fn lock(packages: Vec<Package>) -> Lock {
        Lock::new(&request(&["b", "a"]), &Resolved { packages, release_date: 12 })
    }

    #[test]
    fn it_reads_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.lock");
        let written = lock(vec![package("a", "1:1.0~rc1-1+b1", 1), package("b", "2", 2)]);
        written.write(&path).unwrap();
        let read = Lock::read(&path).unwrap();
        assert_eq!(read, written);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let resolved = read.resolved(&request(&["a", "b"])).unwrap();
        assert_eq!(resolved.packages, written.packages);
        assert_eq!(resolved.release_date, 12);
    }

    #[test]
    fn a_lock_of_another_request_is_refused() {
        let error = lock(vec![]).resolved(&request(&["a", "c"])).unwrap_err().to_string();
        assert!(error.contains("c is asked for and not locked"), "{error}");
        assert!(error.contains("b is locked and not asked for"), "{error}");
    }

    #[test]
    fn differences_are_lines() {
        let old = [("a", "1", 1), ("b", "1", 1), ("c", "1", 1), ("e", "1", 1)];
        let new = [("a", "1", 1), ("b", "2", 2), ("d", "1", 1), ("e", "1", 2)];
        let [old, new] = [old, new].map(|all| lock(all.map(|(n, v, c)| package(n, v, c)).to_vec()));
        let lines = ["b: 1 -> 2", "c: 1 goes", "d: 1 comes", "e: 1 with other content"];
        assert_eq!(old.differences(&new), lines);
        assert!(old.differences(&old).is_empty());
    }

    #[test]
    fn bad_files_are_refused_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.lock");
        assert!(Lock::read(&path).unwrap_err().hint().unwrap().contains("berth lock"));
        lock(vec![package("a", "1", 1)]).write(&path).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (from, to, message) in [
            ("format = 1", "format = 2", "format 2 is not known"),
            ("filename", "filenam", "unknown field `filenam`"),
            ("pool/a.deb", "../a.deb", "filename"),
            ("010101", "01010g", "SHA-256"),
            ("\"security\"", "\"other\"", "unknown variant `other`"),
        ] {
            fs::write(&path, good.replacen(from, to, 1)).unwrap();
            let error = Lock::read(&path).unwrap_err().to_string();
            assert!(error.contains(message), "{from} -> {to}: {error}");
            assert!(error.contains("docker.lock"), "{error}");
        }
    }
}
