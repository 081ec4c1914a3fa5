//! Output files that appear whole or not at all.

use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A file that is being written under a temporary name beside its final one. Dropping it takes it
/// away again.
pub struct NewFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl NewFile {
    /// Starts `path`, whose directory exists. What a killed build left behind is replaced.
    pub fn create(path: &Path) -> Result<NewFile> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.part"));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&temporary).map_err(Error::io("create", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("another build is writing {}", path.display());
                return Err(Error::refused(what).with_hint("wait for it, or use another folder"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &temporary)(e)),
        }
        file.set_len(0).map_err(Error::io("create", path))?;
        Ok(NewFile { file, temporary, path: path.to_owned(), finished: false })
    }

    /// Writes all of `path` at once.
    pub fn write(path: &Path, content: &[u8]) -> Result<()> {
        let new = NewFile::create(path)?;
        io::Write::write_all(&mut new.file(), content).map_err(Error::io("write", path))?;
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
    pub fn finish(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.path).map_err(Error::io("create", &self.path))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_half_written_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x");
        let names = || fs::read_dir(&directory).expect("readable").count();
        let new = NewFile::create(&path).expect("a file");
        assert!(NewFile::create(&path).is_err(), "two at once");
        drop(new);
        assert_eq!(names(), 0);
        NewFile::write(&path, b"one").expect("written");
        NewFile::write(&path, b"2").expect("written again");
        assert_eq!(fs::read(&path).expect("readable"), b"2");
        assert_eq!(names(), 1);
    }
}
