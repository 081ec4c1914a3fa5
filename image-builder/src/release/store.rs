//! The files of a repository, written so that a cut of power at any moment loses nothing that was
//! there before: each appears by rename, whole and durable, and what refers to others comes last.

use crate::{Error, Result};
use contract::hex;
use contract::manifest::File as Described;
use contract::release::{CONTENT_DIR, METADATA_DIR, TARGETS_DIR};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Held while something is written. Dots keep web servers from listing it.
const LOCK: &str = ".lock";
/// Begins the names of files that are being written.
const PART: &str = ".part-";
/// The metadata that makes everything else count.
pub const TIMESTAMP: &str = "timestamp.json";
/// All that lies in a repository.
const FOLDERS: [&str; 3] = [METADATA_DIR, TARGETS_DIR, CONTENT_DIR];

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Whether the folder was not there before.
    created: bool,
    _lock: File,
    parts: Cell<u32>,
    /// New content that no metadata refers to yet. It goes again when nothing comes of it.
    loose: RefCell<Vec<PathBuf>>,
}

impl Store {
    /// Opens the repository in `root`, or makes an empty one where there is nothing. Takes away
    /// what a process that was killed had half written.
    pub fn open(root: &Path) -> Result<Store> {
        let is_repository = root.join(METADATA_DIR).join(TIMESTAMP).exists();
        let created = match fs::read_dir(root) {
            // A repository may lie beside what else a web server shows.
            Ok(_) if is_repository => false,
            Ok(_) => {
                if let Some(other) = names(root)?.iter().find(|name| !is_known(name)) {
                    return Err(not_a_repository(root, &format!("there is {other} in it")));
                }
                false
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(not_a_repository(root, "it is no folder"));
            }
            Err(e) => return Err(Error::io("open", root)(e)),
        };
        if created {
            fs::create_dir_all(root).map_err(Error::io("create", root))?;
        }
        let lock = lock(root)?;
        for folder in FOLDERS {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))?.flatten() {
                if entry.file_name().to_string_lossy().starts_with(PART) {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        let store = Store {
            root: root.to_owned(),
            created,
            _lock: lock,
            parts: Cell::new(0),
            loose: RefCell::default(),
        };
        store.sync("")?;
        Ok(store)
    }

    /// The repository's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts a file in `folder`.
    pub fn create(&self, folder: &'static str) -> Result<Part<'_>> {
        let number = self.parts.get();
        self.parts.set(number + 1);
        let path = self.root.join(folder).join(format!("{PART}{number}"));
        step().map_err(Error::io("create", &path))?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        Ok(Part { store: self, folder, path, file, hash: Sha256::new(), size: 0, named: false })
    }

    /// Writes all of a file. Others may see it at once; it survives a cut of power after
    /// [`Store::sync`].
    pub fn write(&self, folder: &'static str, name: &str, bytes: &[u8]) -> Result<()> {
        let mut part = self.create(folder)?;
        part.write_all(bytes).map_err(Error::io("write", &part.path))?;
        part.finish(name)
    }

    /// Makes the names in `folder` durable.
    pub fn sync(&self, folder: &str) -> Result<()> {
        let path = self.root.join(folder);
        step().and_then(|()| File::open(&path)?.sync_all()).map_err(Error::io("write", &path))?;
        #[cfg(test)]
        power::synced(&path);
        Ok(())
    }

    /// Takes a file away. That it is gone already is no error.
    pub fn remove(&self, folder: &str, name: &str) -> Result<()> {
        let path = self.root.join(folder).join(name);
        step().map_err(Error::io("remove", &path))?;
        #[cfg(test)]
        power::changing(&path);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// What was written is about to be referred to: it stays.
    pub fn keep(&self) {
        self.loose.borrow_mut().clear();
    }

    /// Names of the files in `folder`.
    pub fn names(&self, folder: &str) -> Result<Vec<String>> {
        names(&self.root.join(folder))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if step().is_err() {
            return;
        }
        for path in self.loose.borrow().iter() {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(path);
        }
        // A repository that nothing came into. Folders with something in them stay.
        if !self.root.join(METADATA_DIR).join(TIMESTAMP).exists() {
            let emptied = FOLDERS.iter().all(|f| fs::remove_dir(self.root.join(f)).is_ok());
            if emptied && fs::remove_file(self.root.join(LOCK)).is_ok() && self.created {
                let _ = fs::remove_dir(&self.root);
            }
        }
    }
}

/// A file that has no name yet. Dropping it takes it away.
#[derive(Debug)]
pub struct Part<'a> {
    store: &'a Store,
    folder: &'static str,
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
    named: bool,
}

impl Part<'_> {
    /// Gives the file its digest for a name.
    pub fn finish_by_digest(self) -> Result<Described> {
        let sha256 = hex::encode(&self.hash.clone().finalize());
        let described = Described { size: self.size, sha256 };
        self.finish(&described.sha256)?;
        Ok(described)
    }

    fn finish(mut self, name: &str) -> Result<()> {
        let target = self.path.with_file_name(name);
        step().and_then(|()| self.file.sync_all()).map_err(Error::io("write", &self.path))?;
        #[cfg(test)]
        power::synced(&self.path);
        step().map_err(Error::io("create", &target))?;
        #[cfg(test)]
        power::naming(&self.path, &target);
        if self.folder == CONTENT_DIR && !target.exists() {
            self.store.loose.borrow_mut().push(target.clone());
        }
        fs::rename(&self.path, &target).map_err(Error::io("create", &target))?;
        self.named = true;
        Ok(())
    }
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step()?;
        let written = self.file.write(bytes)?;
        #[cfg(test)]
        power::wrote(&self.path);
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.named && step().is_ok() {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Every change of a file passes here first: tests cut the power.
#[cfg(test)]
use super::tests::power::{self, step};

#[cfg(not(test))]
fn step() -> io::Result<()> {
    Ok(())
}

/// Takes the lock of a folder, for as long as the file is open.
pub fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("another berth is writing to {}", folder.display());
            Err(Error::refused(what).with_hint("wait for it to end"))
        }
        Err(TryLockError::Error(e)) => Err(Error::io("lock", &path)(e)),
    }
}

/// Names of the files in `folder`, in order; none where there is no folder.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The error for a folder that holds something else.
pub fn not_a_repository(path: &Path, why: &str) -> Error {
    let error = Error::refused(format!("{} is not a repository: {why}", path.display()));
    error.with_hint(match path.to_string_lossy().contains("://") {
        true => "berth works on the folder that a web server shows, not through the web",
        false => "give a folder that `berth release add` made, or one that does not exist yet",
    })
}

fn is_known(name: &str) -> bool {
    FOLDERS.contains(&name) || name == LOCK
}
