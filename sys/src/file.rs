//! Files that are whole after a power cut: either the old or the new content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` by a file with this content and mode. When it returns, that is on the disk.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // Left over from a power cut, perhaps.
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
        .sync_all()
}

/// Makes `path` a file of at least `len` bytes that has its room on the disk.
pub fn allocate(path: &Path, len: u64) -> io::Result<()> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len)?)
}

/// Size in bytes of the filesystem of `folder`, less what it needs for itself.
pub fn capacity(folder: &Path) -> io::Result<u64> {
    let known = rustix::fs::statvfs(folder)?;
    Ok(known.f_blocks.saturating_mul(known.f_frsize))
}

/// Writes all that is pending on the filesystem of `folder` to its disk.
pub fn flush_filesystem(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn content_and_mode_are_replaced_and_nothing_is_left_over() {
        let folder = std::env::temp_dir().join(format!("berth-replace-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("file");
        fs::write(folder.join("file.new"), "left over").expect("written");
        for content in ["one", "two"] {
            replace(&path, content.as_bytes(), 0o600).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("readable"), content);
        }
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 1);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
