//! An image or a disk, opened to be looked at. Everything on it is untrusted.

use crate::image::verity::Range;
use crate::{Error, Result};
use contract::gpt::{ENTRIES_LEN, Guid, Header, SECTOR_SIZES, Table};
use contract::layout::Partition;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The most that is read at once.
const READ_LIMIT: u64 = 256 << 20;

/// An open image.
#[derive(Debug)]
pub struct Disk {
    /// The file.
    pub file: File,
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The partition table: the primary copy where it is whole, else the backup.
    pub table: Table,
    /// What is wrong with the primary and the backup copy of the table.
    pub table_faults: [Option<String>; 2],
}

impl Disk {
    /// Opens `path`. Fails when it has no Berth partition table.
    pub fn open(path: &Path) -> Result<Disk> {
        let mut file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(not_an_image(path, "there is no such file"));
            }
            other => other.map_err(Error::io("open", path))?,
        };
        let meta = file.metadata().map_err(Error::io("open", path))?;
        if meta.is_dir() {
            return Err(not_an_image(path, "it is a folder"));
        }
        // A block device has no length of its own.
        let size = file.seek(SeekFrom::End(0)).map_err(Error::io("read", path))?;
        let mut why = "it is too small".to_owned();
        for sector in SECTOR_SIZES {
            let sectors = size / sector;
            if sectors < 2 {
                continue;
            }
            let read = |lba: u64| read_table(&file, sector, sectors, lba);
            let (primary, backup) = (read(1), read(sectors - 1));
            let table_faults = faults(&primary, &backup);
            match (primary, backup) {
                (Ok((table, _)), _) | (Err(_), Ok((table, _))) => {
                    let disk = Disk { file, path: path.to_owned(), size, table, table_faults };
                    return match disk.range(Partition::State) {
                        Ok(_) => Ok(disk),
                        Err(why) => Err(not_an_image(path, &why)),
                    };
                }
                (Err(e), Err(_)) => why = e,
            }
        }
        Err(not_an_image(path, &why))
    }

    /// Where `partition` lies; the reason when it is not there, or not on the disk.
    pub fn range(&self, partition: Partition) -> Result<Range, String> {
        let label = partition.label();
        let entry = self.table.find(label).ok_or_else(|| format!("it has no partition {label}"))?;
        let sector = self.table.sector_size;
        let offset = entry.first_lba.checked_mul(sector);
        let end = entry.last_lba.checked_add(1).and_then(|lba| lba.checked_mul(sector));
        match (offset, end) {
            (Some(offset), Some(end)) if offset < end && end <= self.size => {
                Ok(Range { offset, len: end - offset })
            }
            _ => Err(format!("partition {label} does not lie on the disk")),
        }
    }

    /// `len` bytes of `range` from `at` on; an error when they do not lie in it.
    pub fn read(&self, range: Range, at: u64, len: u64) -> Result<Vec<u8>> {
        let inside = at.checked_add(len).is_some_and(|end| end <= range.len) && len <= READ_LIMIT;
        if !inside {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(Error::io("read", &self.path)(source));
        }
        let mut bytes = vec![0; len as usize];
        self.file
            .read_exact_at(&mut bytes, range.offset + at)
            .map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    /// The block of `range` at `at`.
    pub fn block<const N: usize>(&self, range: Range, at: u64) -> Result<[u8; N]> {
        let mut block = [0; N];
        block.copy_from_slice(&self.read(range, at, N as u64)?);
        Ok(block)
    }
}

fn not_an_image(path: &Path, why: &str) -> Error {
    Error::refused(format!("{} is not a Berth image: {why}", path.display()))
        .with_hint("give the .raw file that `berth build` wrote, or a disk that it was put on")
}

/// The table whose header is at `lba`, and the disk GUID.
fn read_table(file: &File, sector: u64, sectors: u64, lba: u64) -> Result<(Table, Guid), String> {
    let mut header_bytes = vec![0; sector as usize];
    let read = |bytes: &mut [u8], lba: u64| {
        let offset = lba.checked_mul(sector).ok_or("GPT points beyond the disk")?;
        file.read_exact_at(bytes, offset).map_err(|e| e.to_string())
    };
    read(&mut header_bytes, lba)?;
    let header = Header::decode(&header_bytes).map_err(|e| e.to_string())?;
    let mut array = vec![0; ENTRIES_LEN];
    read(&mut array, header.entries_lba)?;
    if header.my_lba != lba {
        return Err(format!("GPT header says that it is at sector {}", header.my_lba));
    }
    let table = Table::decode(&header_bytes, &array, sector, sectors).map_err(|e| e.to_string())?;
    Ok((table, header.disk_guid))
}

type Read = Result<(Table, Guid), String>;

fn faults(primary: &Read, backup: &Read) -> [Option<String>; 2] {
    let differ = matches!((primary, backup), (Ok(a), Ok(b)) if a != b);
    let fault = |copy: &Read| copy.as_ref().err().cloned();
    match differ {
        true => [None, Some("GPT copies say different things".to_owned())],
        false => [fault(primary), fault(backup)],
    }
}
