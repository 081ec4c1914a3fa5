//! What the initramfs tells the real root.

use crate::disk::Disk;
use crate::error::{Error, On};
use contract::Slot;
use contract::handover::{Handover, PATH};
use std::fs;

pub use contract::handover::RUN_DIR;

/// How this system was started: see [`Handover`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The slot that the slot picker started; `None` when the kernel was started without it.
    pub slot: Option<Slot>,
    /// The slot that holds the root filesystem.
    pub root_slot: Slot,
    /// The disk.
    pub disk: Disk,
}

impl Boot {
    /// Writes the file.
    pub fn store(&self) -> Result<(), Error> {
        let Boot { slot, root_slot, disk: Disk { name, devices } } = self.clone();
        let text = Handover { slot, root_slot, disk: name, devices }.to_text();
        fs::create_dir_all(RUN_DIR).on("make", RUN_DIR)?;
        fs::write(PATH, text).on("write", PATH)
    }

    /// Reads the file.
    pub fn load() -> Result<Boot, Error> {
        let text = fs::read_to_string(PATH).on("read", PATH)?;
        let read = Handover::from_text(&text).ok_or_else(|| Error::Invalid {
            object: PATH.to_owned(),
            problem: "not what the initramfs writes".to_owned(),
        })?;
        let Handover { slot, root_slot, disk: name, devices } = read;
        Ok(Boot { slot, root_slot, disk: Disk { name, devices } })
    }
}
