//! How this system was started: what `init` in the initramfs found out, for `init` in the real root
//! and for the updater. Lines of `KEY VALUE` in a file below `/run`.

use crate::Slot;
use std::collections::BTreeMap;

/// Folder below `/run` for what belongs to Berth.
pub const RUN_DIR: &str = "/run/berth";
/// The file.
pub const PATH: &str = "/run/berth/boot";

/// The ESP's folder `berth`, as it was when the host configuration was read.
pub const ESP_FILES: &str = "/run/berth/esp";

/// The last lines of the console before a start of a slot failed lie here, with the slot's name at
/// the end, as far as `/var` could be written.
pub const LAST_WORDS: &str = "/var/lib/berth/last-words-";

/// The last lines of the kernel's log before it panicked, as far as the firmware kept them; of whichever
/// slot ran then.
pub const LAST_PANIC: &str = "/var/lib/berth/last-panic";

/// How this system was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The slot that the slot picker started; `None` when the kernel was started without it.
    pub slot: Option<Slot>,
    /// The slot that holds the root filesystem. The same one, unless that one is rotted and both
    /// hold the same release.
    pub root_slot: Slot,
    /// Kernel name of the disk.
    pub disk: String,
    /// Device nodes by GPT partition name.
    pub devices: BTreeMap<String, String>,
}

impl Handover {
    /// Content of the file.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(slot) = self.slot {
            text.push_str(&format!("slot {slot}\n"));
        }
        text.push_str(&format!("root-slot {}\ndisk {}\n", self.root_slot, self.disk));
        for (label, device) in &self.devices {
            text.push_str(&format!("partition {label} {device}\n"));
        }
        text
    }

    /// Reads it; `None` when it is not what `init` writes.
    pub fn from_text(text: &str) -> Option<Handover> {
        let (mut slot, mut root_slot, mut disk) = (None, None, None);
        let mut devices = BTreeMap::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ')?;
            match key {
                "slot" => slot = Some(Slot::from_name(value)?),
                "root-slot" => root_slot = Some(Slot::from_name(value)?),
                "disk" => disk = Some(value.to_owned()),
                "partition" => {
                    let (label, device) = value.split_once(' ')?;
                    devices.insert(label.to_owned(), device.to_owned());
                }
                _ => return None,
            }
        }
        Some(Handover { slot, root_slot: root_slot?, disk: disk?, devices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let devices =
            [("esp", "/dev/vda1"), ("data", "/dev/vda9")].map(|(l, d)| (l.into(), d.into()));
        for slot in [None, Some(Slot::A), Some(Slot::B)] {
            let devices = devices.clone().into();
            let boot = Handover { slot, root_slot: Slot::B, disk: "vda".to_owned(), devices };
            assert_eq!(Handover::from_text(&boot.to_text()), Some(boot));
        }
        assert_eq!(Handover::from_text("disk vda\n"), None);
        assert_eq!(Handover::from_text("what is this\nroot-slot a\ndisk vda\n"), None);
    }
}
