//! What the initramfs tells the real root: lines of `KEY VALUE` in a file below `/run`.

use crate::disk::Disk;
use crate::error::{Error, On};
use contract::Slot;
use std::collections::BTreeMap;
use std::fs;

/// Folder below `/run` for what belongs to Berth.
pub const RUN_DIR: &str = "/run/berth";
const PATH: &str = "/run/berth/boot";

/// How this system was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The slot that the slot picker started; `None` when the kernel was started without it.
    pub slot: Option<Slot>,
    /// The slot that holds the root filesystem. The same one, unless that one is rotted and both
    /// hold the same release.
    pub root_slot: Slot,
    /// The disk.
    pub disk: Disk,
}

impl Boot {
    /// Writes the file.
    pub fn store(&self) -> Result<(), Error> {
        fs::create_dir_all(RUN_DIR).on("make", RUN_DIR)?;
        fs::write(PATH, self.to_text()).on("write", PATH)
    }

    /// Reads the file.
    pub fn load() -> Result<Boot, Error> {
        let text = fs::read_to_string(PATH).on("read", PATH)?;
        Boot::from_text(&text).ok_or_else(|| Error::Invalid {
            object: PATH.to_owned(),
            problem: "not what the initramfs writes".to_owned(),
        })
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(slot) = self.slot {
            text.push_str(&format!("slot {slot}\n"));
        }
        text.push_str(&format!("root-slot {}\ndisk {}\n", self.root_slot, self.disk.name));
        for (label, device) in &self.disk.devices {
            text.push_str(&format!("partition {label} {device}\n"));
        }
        text
    }

    fn from_text(text: &str) -> Option<Boot> {
        let (mut slot, mut root_slot, mut name) = (None, None, None);
        let mut devices = BTreeMap::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ')?;
            match key {
                "slot" => slot = Some(Slot::from_name(value)?),
                "root-slot" => root_slot = Some(Slot::from_name(value)?),
                "disk" => name = Some(value.to_owned()),
                "partition" => {
                    let (label, device) = value.split_once(' ')?;
                    devices.insert(label.to_owned(), device.to_owned());
                }
                _ => return None,
            }
        }
        Some(Boot { slot, root_slot: root_slot?, disk: Disk { name: name?, devices } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let devices =
            [("esp", "/dev/vda1"), ("data", "/dev/vda9")].map(|(l, d)| (l.into(), d.into()));
        let disk = Disk { name: "vda".to_owned(), devices: devices.into() };
        for slot in [None, Some(Slot::A), Some(Slot::B)] {
            let boot = Boot { slot, root_slot: Slot::B, disk: disk.clone() };
            assert_eq!(Boot::from_text(&boot.to_text()), Some(boot));
        }
        assert_eq!(Boot::from_text("disk vda\n"), None);
        assert_eq!(Boot::from_text("what is this\nroot-slot a\ndisk vda\n"), None);
    }
}
