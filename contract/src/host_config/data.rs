//! `[data]`: where `/var` lies, and what becomes of it when it is lost.

use super::Wrong;
use crate::data_place::MAX_DISK;
use serde::Deserialize;

/// `[data]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawData {
    /// The disk that is to hold it.
    pub disk: Option<String>,
    /// What happens to a filesystem that cannot be repaired.
    pub unrepairable: Option<Unrepairable>,
    /// Days between two times that free space is given back to the disk.
    pub trim: Option<u32>,
}

/// What happens to a filesystem that cannot be repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unrepairable {
    /// It stays as it is, and the host runs without containers.
    #[default]
    Keep,
    /// A new, empty one is made in its place.
    Replace,
}

/// Where `/var` lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Kernel name, serial number or WWID of the disk, or a pattern of one; `None`: the disk that
    /// the system lies on.
    pub disk: Option<String>,
    /// What happens to a filesystem that cannot be repaired.
    pub unrepairable: Unrepairable,
    /// Days between two times that free space is given back to the disk; 0: never.
    pub trim: u32,
}

/// As often as others do it.
const TRIM_DAYS: u32 = 7;

impl RawData {
    /// This layer over `below`: its keys win.
    pub(super) fn over(self, below: RawData) -> RawData {
        RawData {
            disk: self.disk.or(below.disk),
            unrepairable: self.unrepairable.or(below.unrepairable),
            trim: self.trim.or(below.trim),
        }
    }

    pub(super) fn validate(self) -> Result<Data, Wrong> {
        if let Some(disk) = &self.disk {
            let printable = |c: char| c == ' ' || c.is_ascii_graphic();
            if disk.trim().is_empty() || disk.len() > MAX_DISK || !disk.chars().all(printable) {
                let why = format!("`{disk}` is no name, serial number or WWID of a disk");
                return Err(Wrong::new("disk", why));
            }
            if disk.contains('/') {
                let why = format!(
                    "`{disk}` is a path, and there is no udev that would make it: say the serial \
                     number, the WWID or the kernel's name"
                );
                return Err(Wrong::new("disk", why));
            }
        }
        Ok(Data {
            disk: self.disk,
            unrepairable: self.unrepairable.unwrap_or_default(),
            trim: self.trim.unwrap_or(TRIM_DAYS),
        })
    }
}
