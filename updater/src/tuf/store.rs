//! What the client remembers between refreshes: the metadata files that it trusted last.
//!
//! Files are replaced whole, so a power cut leaves the old or the new one. One that cannot be read
//! or that does not verify counts as absent, never as an error: a host with a rotten disk block has
//! to find back by itself. What protects from a rollback is therefore written down twice: the
//! version of a snapshot in the timestamp and in the snapshot, that of targets in the snapshot and
//! in the targets.
//!
//! Nothing in here is believed for being here: roots have to follow, signature by signature, from
//! the one in the image, and everything else has to be signed by the keys of the newest root.

use super::Error;
use super::metadata::{Envelope, Role, Root, Snapshot, Targets, Timestamp};
use crate::reserve;
use contract::release::limits;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A folder of metadata files.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens a folder, which is made if there is none.
    pub fn open(folder: &Path) -> io::Result<Store> {
        fs::create_dir_all(folder.join("roots"))?;
        Ok(Store { folder: folder.to_owned() })
    }

    /// A file's content. `None` when there is nothing that could be of use.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.folder.join(name)).ok()?;
        file.take(limits::ANY + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= limits::ANY).then_some(bytes)
    }

    /// The metadata of a role that was trusted last, if it would be under `root`.
    pub(super) fn trusted<R: Role>(&self, root: &Root) -> Option<(R, Vec<u8>)> {
        let bytes = self.read(&file_name(R::TYPE))?;
        let role = root.verify(&Envelope::parse(&bytes).ok()?).ok()?;
        Some((role, bytes))
    }

    /// Puts a file there; when it returns, it is on the disk. Nothing is written when the same is
    /// there already.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if self.read(name).as_deref() == Some(bytes) {
            return Ok(());
        }
        let path = self.folder.join(name);
        reserve::replace(&path, bytes).map_err(|source| Error::Store {
            what: "write",
            path,
            source,
        })
    }

    /// Forgets all versions that were seen, because the keys that vouched for them were replaced.
    ///
    /// To be called before the new root is written: in the other order, a power cut in between
    /// would leave versions behind that an attacker may have driven up.
    pub(super) fn forget(&self) -> Result<(), Error> {
        for role in [Timestamp::TYPE, Snapshot::TYPE, Targets::TYPE] {
            let path = self.folder.join(file_name(role));
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Store { what: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where the metadata of a role lies.
pub(super) fn file_name(role: &str) -> String {
    format!("{role}.json")
}

/// Where root `version` lies.
pub(super) fn root_name(version: u64) -> String {
    format!("roots/{version}.root.json")
}
