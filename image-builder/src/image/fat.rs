//! The EFI system partition: FAT32.

use super::window::Window;
use crate::{Error, Result};
use contract::layout::{HOST_CONFIG_PATH, PICKER_PATH};
use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter, OemName};
use hadris_fat::time::EpochTimeProvider;
use hadris_fat::{FatVolume, FatVolumeReadExt, FatVolumeWriteExt};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Every time on the ESP is the epoch of FAT, 1980: the files carry no other.
static CLOCK: EpochTimeProvider = EpochTimeProvider;

/// Below this size clusters are one sector. A FAT32 needs 65,525 clusters, and firmware reads a
/// volume with fewer as FAT16 and finds nothing.
const SMALL: u64 = 260 << 20;

/// The smallest volume with enough clusters, and room for its own tables.
pub const MIN_SIZE: u64 = 34 << 20;

/// The largest file that is read back.
const READ_LIMIT: u64 = 16 << 20;

/// Files of an ESP by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Formats `len` bytes of `image` from `offset` on and puts `files` there. The range holds zeros
/// before. `id` is the volume's serial number.
pub fn write(
    image: &File,
    path: &Path,
    offset: u64,
    len: u64,
    id: u32,
    files: &Files,
) -> Result<()> {
    if len < MIN_SIZE {
        let what = format!("an ESP of {len} bytes is too small for FAT32");
        return Err(Error::refused(what).with_hint("raise `[partitions] esp` to at least 34 MiB"));
    }
    let wanted: usize = files.values().map(Vec::len).sum();
    if wanted as u64 > len / 2 {
        let what = format!("{wanted} bytes of files do not fit an ESP of {len} bytes");
        return Err(Error::refused(what).with_hint("raise `[partitions] esp`"));
    }
    let failed = |e: hadris_fat::Error| Error::Io {
        operation: "write the ESP of",
        path: path.to_owned(),
        source: io_error(e),
    };
    let mut options = FatFormatOptions::new(len).fat_type(FatTypeSelection::Fat32).volume_id(id);
    options.oem_name = OemName::new("BERTH");
    options.hidden_sectors = u32::try_from(offset / 512).unwrap_or(0);
    if len < SMALL {
        options = options.sectors_per_cluster(1);
    }
    let volume = FatVolumeFormatter::format(Window::new(image, offset, len), options);
    drop(volume.map_err(failed)?);
    let window = Window::new(image, offset, len);
    let volume = FatVolume::builder(window).time_provider(&CLOCK).open().map_err(failed)?;
    for (path, content) in files {
        let mut directory = volume.root_dir();
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in above.split('/').filter(|part| !part.is_empty()) {
            directory = match directory.find(part).map_err(failed)? {
                Some(entry) => directory.open_entry(&entry).map_err(failed)?,
                None => volume.create_dir(&directory, part).map_err(failed)?,
            };
        }
        let entry = volume.create_file(&directory, name).map_err(failed)?;
        let mut writer = volume.write_file(&entry).map_err(failed)?;
        let mut left = &content[..];
        while !left.is_empty() {
            let n = writer.write(left).map_err(failed)?;
            left = &left[n..];
        }
        writer.finish().map_err(failed)?;
    }
    volume.sync().map_err(failed)
}

/// What was found on an ESP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The slot picker.
    pub picker: Option<Vec<u8>>,
    /// The host configuration.
    pub host_config: Option<Vec<u8>>,
}

/// Reads what Berth knows of the ESP in this range of `image`; the reason when that cannot be
/// done.
pub fn read(image: &File, offset: u64, len: u64) -> Result<Found, String> {
    let volume = FatVolume::open(Window::new(image, offset, len)).map_err(|e| e.to_string())?;
    let file = |path: &str| -> Result<Option<Vec<u8>>, String> {
        let entry = match volume.open_path(path) {
            Ok(entry) => entry,
            Err(hadris_fat::Error::EntryNotFound) => return Ok(None),
            Err(e) => return Err(format!("{path}: {e}")),
        };
        if entry.len() > READ_LIMIT {
            return Err(format!("{path} is too large"));
        }
        let mut reader = volume.read_file(&entry).map_err(|e| format!("{path}: {e}"))?;
        reader.read_to_vec().map(Some).map_err(|e| format!("{path}: {e}"))
    };
    Ok(Found { picker: file(PICKER_PATH)?, host_config: file(HOST_CONFIG_PATH)? })
}

fn io_error(error: hadris_fat::Error) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    fn files() -> Files {
        let long = (0..200_000_u32).map(|i| (i / 3) as u8).collect();
        Files::from([
            (PICKER_PATH.to_owned(), long),
            (HOST_CONFIG_PATH.to_owned(), b"hostname = \"x\"\n".to_vec()),
            ("berth/a file with a long name.yaml".to_owned(), Vec::new()),
        ])
    }

    fn written(len: u64) -> File {
        let image = tempfile::tempfile().expect("a temporary file");
        image.set_len(len + 2 * MIB).expect("set length");
        write(&image, Path::new("x"), MIB, len, 0x1234_5678, &files()).expect("an ESP");
        image
    }

    fn head(image: &File, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        image.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    }

    #[test]
    fn files_come_back_and_the_rest_of_the_disk_is_untouched() {
        for len in [MIN_SIZE, 64 * MIB, 300 * MIB] {
            let image = written(len);
            let found = read(&image, MIB, len).expect("a FAT");
            assert_eq!(found.picker.as_ref(), files().get(PICKER_PATH));
            assert_eq!(found.host_config.as_ref(), files().get(HOST_CONFIG_PATH));
            let mut around = vec![0; MIB as usize];
            image.read_exact_at(&mut around, len + MIB).expect("read");
            assert!(around.iter().chain(&head(&image, MIB)).all(|&byte| byte == 0));
        }
    }

    #[test]
    fn enough_clusters_for_firmware_to_see_fat32() {
        for len in [MIN_SIZE, 64 * MIB, 259 * MIB, 260 * MIB, 300 * MIB, 1024 * MIB] {
            let boot = head(&written(len), MIB + 512).split_off(MIB as usize);
            let number =
                |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| boot[at + i])));
            let reserved = 32 + 2 * number(36);
            let clusters = (number(32) - reserved) / u64::from(boot[13]);
            assert!(clusters >= 65_525, "{len}: {clusters} clusters");
            assert_eq!(number(67), 0x1234_5678);
        }
    }

    #[test]
    fn same_input_same_bytes() {
        let [a, b] = [0, 1].map(|_| head(&written(MIN_SIZE), MIN_SIZE));
        assert!(a == b);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let image = tempfile::tempfile().expect("a temporary file");
        for (len, size) in [(MIB, 1), (MIN_SIZE, MIN_SIZE as usize)] {
            let files = Files::from([("x".to_owned(), vec![0; size])]);
            let error = write(&image, Path::new("x"), 0, len, 1, &files).unwrap_err();
            assert!(error.hint().is_some_and(|hint| hint.contains("[partitions] esp")));
        }
    }

    #[test]
    fn what_is_no_fat_says_so() {
        let image = tempfile::tempfile().expect("a temporary file");
        image.set_len(MIB).expect("set length");
        assert!(read(&image, 0, MIB).is_err());
    }
}
