//! The EFI system partition: FAT32.

use super::window::Window;
use crate::{Error, Result};
use contract::layout::{HOST_CONFIG_PATH, PICKER_PATH};
use hadris_fat::format::{
    FatFormatOptions, FatTypeSelection, FatVolumeFormatter, OemName, SectorSize,
};
use hadris_fat::time::EpochTimeProvider;
use hadris_fat::{FatVolume, FatVolumeReadExt, FatVolumeWriteExt};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Every time on the ESP is the epoch of FAT, 1980: the files carry no other.
static CLOCK: EpochTimeProvider = EpochTimeProvider;

/// Below so many sectors clusters are one sector. A FAT32 needs 65,525 clusters, and firmware reads
/// a volume with fewer as FAT16 and finds nothing.
const SMALL: u64 = (260 << 20) / 512;

/// The smallest volume with enough clusters, and room for its own tables, in MiB.
fn min_mib(sector_size: u64) -> u64 {
    match sector_size {
        512 => 34,
        _ => (65_525 + 200) * sector_size / (1 << 20) + 1,
    }
}

/// The largest file that is read back.
const READ_LIMIT: u64 = 16 << 20;

/// Files of an ESP by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Where an ESP lies in an image, and what else it is formatted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
    /// That of the disk: Linux does not mount a FAT with smaller sectors than those of the disk.
    pub sector_size: u64,
    /// Serial number.
    pub id: u32,
}

/// Formats a range of `image` and puts `files` there. The range holds zeros before.
pub fn write(image: &File, path: &Path, volume: &Volume, files: &Files) -> Result<()> {
    let Volume { offset, len, sector_size, id } = *volume;
    let min = min_mib(sector_size);
    if len < min << 20 {
        let what = format!(
            "an ESP of {} MiB is too small for FAT32 with sectors of {sector_size} bytes",
            len >> 20
        );
        let hint = format!("raise `[partitions] esp` to at least {min} MiB");
        return Err(Error::refused(what).with_hint(hint));
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
    options.sector_size = match sector_size {
        4096 => SectorSize::S4096,
        _ => SectorSize::S512,
    };
    options.hidden_sectors = u32::try_from(offset / sector_size).unwrap_or(0);
    if len / sector_size < SMALL {
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

    fn volume(sector_size: u64, len: u64) -> Volume {
        Volume { offset: MIB, len, sector_size, id: 0x1234_5678 }
    }

    fn written(volume: &Volume) -> File {
        let image = tempfile::tempfile().expect("a temporary file");
        image.set_len(volume.len + 2 * MIB).expect("set length");
        write(&image, Path::new("x"), volume, &files()).expect("an ESP");
        image
    }

    fn head(image: &File, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        image.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    }

    /// Sector size and length.
    fn sizes() -> impl Iterator<Item = (u64, u64)> {
        let small = [34, 64, 259, 260, 300, 1024].map(|mib| (512, mib * MIB));
        let large = [min_mib(4096), 300, 2079, 2080, 4096].map(|mib| (4096, mib * MIB));
        small.into_iter().chain(large)
    }

    #[test]
    fn files_come_back_and_the_rest_of_the_disk_is_untouched() {
        for (sector_size, len) in sizes() {
            let image = written(&volume(sector_size, len));
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
        for (sector_size, len) in sizes() {
            let image = written(&volume(sector_size, len));
            let boot = head(&image, MIB + 512).split_off(MIB as usize);
            let number =
                |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| boot[at + i])));
            assert_eq!(u64::from(u16::from_le_bytes([boot[11], boot[12]])), sector_size);
            assert_eq!(number(28) * sector_size, MIB, "hidden sectors");
            let reserved = 32 + 2 * number(36);
            let clusters = (number(32) - reserved) / u64::from(boot[13]);
            assert!(clusters >= 65_525, "{len}: {clusters} clusters");
            assert_eq!(number(67), 0x1234_5678);
        }
    }

    #[test]
    fn same_input_same_bytes() {
        let volume = volume(512, 34 * MIB);
        let [a, b] = [0, 1].map(|_| head(&written(&volume), volume.len));
        assert!(a == b);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let image = tempfile::tempfile().expect("a temporary file");
        let cases = [(512, 1, 1), (512, 34, 34 << 20), (4096, 256, 1)];
        for (sector_size, mib, size) in cases {
            let files = Files::from([("x".to_owned(), vec![0; size])]);
            let volume = volume(sector_size, mib * MIB);
            let error = write(&image, Path::new("x"), &volume, &files).unwrap_err();
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
