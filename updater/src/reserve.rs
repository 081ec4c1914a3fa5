//! Room on `/var` that is set aside, so that a full disk keeps no host from updating.
//!
//! What the updater has to remember is small. Where there is no room for it, a file that was made
//! beforehand shrinks by as much.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

const NAME: &str = "reserve";
/// Enough for some dozen full metadata files.
const LEN: u64 = 4 << 20;
/// What a file takes beside its content, rounded up generously: a block of its folder, its last block.
const BESIDE: u64 = 32 << 10;
/// Only the folder of a file and those above it, as far as they may be the updater's own.
const FOLDERS: usize = 4;

/// Sets room aside in `folder`. Where there is none, there may be later.
pub fn set_aside(folder: &Path) {
    // A host works without it, until its disk is full.
    let _ = sys::file::allocate(&folder.join(NAME), LEN);
}

/// Replaces `path` by a file with this content, out of the reserve if it must be. When it returns,
/// that is on the disk.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    const MODE: u32 = 0o600;
    match sys::file::replace(path, content, MODE) {
        Err(e) if e.kind() == io::ErrorKind::StorageFull && release(path, content.len()) => {
            sys::file::replace(path, content, MODE)
        }
        other => other,
    }
}

/// Shrinks the reserve for `len` bytes at `path`. Returns whether there was any.
fn release(path: &Path, len: usize) -> bool {
    let reserves = path.ancestors().skip(1).take(FOLDERS).map(|folder| folder.join(NAME));
    for reserve in reserves {
        let Ok(metadata) = fs::symlink_metadata(&reserve) else { continue };
        let shrunk = OpenOptions::new().write(true).open(&reserve).and_then(|file| {
            file.set_len(metadata.len().saturating_sub(len as u64 + BESIDE))?;
            // Blocks are free once this is on the disk.
            file.sync_all()
        });
        return metadata.is_file() && metadata.len() > 0 && shrunk.is_ok();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_shrinks_until_it_is_used_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tuf/0123/timestamp.json");
        assert!(!release(&file, 1), "there is none yet");
        set_aside(folder.path());
        let len = || fs::metadata(folder.path().join(NAME)).expect("the reserve").len();
        assert_eq!(len(), LEN);
        assert!(release(&file, 1000));
        assert_eq!(len(), LEN - BESIDE - 1000);
        assert!(release(&file, LEN as usize));
        assert_eq!(len(), 0);
        assert!(!release(&file, 1), "it is used up");
        set_aside(folder.path());
        assert_eq!(len(), LEN);
        assert!(!release(Path::new("/nowhere/file"), 1));
    }
}
