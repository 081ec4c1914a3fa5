//! Output files that appear whole or not at all.
//!
//! A file that is being written has no name where the filesystem can do that, so nothing stays
//! when this program is killed. Elsewhere it has a hidden name beside its final one, and what a
//! killed program left there goes when the same file is written again.

use crate::{Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that is being written. Dropping it takes it away again.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// Its name until it is whole. Nothing may have that name.
    temporary: PathBuf,
}

/// Refuses a path that no file can be written to, whatever its content: for commands that work
/// long before they write.
pub fn check(path: &Path) -> Result<()> {
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(Error::refused(format!("there is no folder {}", folder.display()))
            .with_hint(format!("make it with `mkdir -p {}`", folder.display())));
    }
    match path.is_dir() || path.file_name().is_none() {
        true => Err(Error::refused(format!("{} is a folder", path.display()))
            .with_hint("name the file to write")),
        false => Ok(()),
    }
}

/// Where `path` lies.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

impl NewFile {
    /// Starts `path`, whose directory exists.
    pub fn create(path: &Path) -> Result<NewFile> {
        check(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        sweep(folder(path), &name);
        let file = match nameless(folder(path)).map_err(Error::io("create", path))? {
            Some(file) => file,
            None => named(&temporary, path)?,
        };
        Ok(NewFile { file, path: path.to_owned(), temporary })
    }

    /// Writes all of `path` at once.
    pub fn write(path: &Path, content: &[u8]) -> Result<()> {
        let new = NewFile::create(path)?;
        new.file().write_all(content).map_err(Error::io("write", path))?;
        new.finish()
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, in place of an older one.
    pub fn finish(self) -> Result<()> {
        self.appear().map_err(Error::io("create", &self.path))
    }

    fn appear(&self) -> io::Result<()> {
        if !self.temporary.exists() {
            match self.link(&self.path) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
            // Only a rename takes the place of a file.
            self.link(&self.temporary)?;
        }
        fs::rename(&self.temporary, &self.path)
    }

    fn link(&self, to: &Path) -> Result<(), Errno> {
        let from = format!("{OWN_FILES}/{}", self.file.as_raw_fd());
        linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Not there in the good case, and else the error that led here is the one to tell.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Open files by number.
const OWN_FILES: &str = "/proc/self/fd";

/// A locked file in `folder` without a name; none where that is not possible.
fn nameless(folder: &Path) -> io::Result<Option<File>> {
    if !Path::new(OWN_FILES).is_dir() {
        return Ok(None);
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(folder, flags, Mode::from_raw_mode(0o666)) {
        // The kernel, or the filesystem, does not know of it.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
        other => {
            let file = File::from(other?);
            // Nobody else can have it; who sweeps must not take it while it gets its name.
            let _ = file.try_lock();
            Ok(Some(file))
        }
    }
}

/// A locked file with a name of its own.
fn named(temporary: &Path, path: &Path) -> Result<File> {
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(temporary).map_err(Error::io("create", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy { what: path.display().to_string() });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
        }
        // Another one may have swept it in between.
        let same = |there: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == there.ino());
        if fs::metadata(temporary).is_ok_and(same) {
            file.set_len(0).map_err(Error::io("create", path))?;
            return Ok(file);
        }
    }
}

/// Takes away what killed programs left of the file `name`. Not being able to is no reason to
/// fail.
fn sweep(folder: &Path, name: &str) {
    let prefix = format!(".{name}.");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let left_over =
            file_name.to_str().and_then(|n| n.strip_prefix(&prefix)?.strip_suffix(".part"));
        if left_over.is_some_and(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn nothing_half_written_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        drop(NewFile::create(&path).expect("a file"));
        assert_eq!(names(folder.path()), [""; 0]);
        NewFile::write(&path, b"one").expect("written");
        NewFile::write(&path, b"2").expect("written again");
        assert_eq!(fs::read(&path).expect("readable"), b"2");
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn without_nameless_files_it_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let temporary = folder.path().join(".x.1.part");
        let new = || {
            let file = named(&temporary, &path)?;
            Ok::<_, Error>(NewFile { file, path: path.clone(), temporary: temporary.clone() })
        };
        let first = new().expect("a file");
        assert!(new().is_err(), "two at once");
        sweep(folder.path(), "x");
        assert!(temporary.exists(), "it is in use");
        drop(first);
        assert_eq!(names(folder.path()), [""; 0]);
        // Killed in the middle, and once more.
        fs::write(&temporary, "left over").expect("written");
        new().expect("a file").finish().expect("whole");
        assert_eq!(fs::read(&path).expect("readable"), b"");
        fs::write(&temporary, "left over").expect("written");
        fs::write(folder.path().join(".x.y.part"), "not ours").expect("written");
        NewFile::write(&path, b"2").expect("written");
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, [".x.y.part", "x"]);
    }

    #[test]
    fn places_that_no_file_can_have_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in [("gone/x", "there is no folder"), ("", "is a folder")] {
            let error = check(&folder.path().join(path)).expect_err(text);
            assert!(error.to_string().contains(text) && error.hint().is_some(), "{error}");
        }
        assert!(check(Path::new("x")).is_ok());
    }
}
