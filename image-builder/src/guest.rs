//! The programs that run on the host: the slot picker, PID 1 and the updater.
//!
//! They are built for the guest by `make guest` into a folder `guest` beside the `berth` program.

use crate::{Error, Result};
use std::path::PathBuf;

/// The programs' bytes.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Static ELF of PID 1.
    pub init: Vec<u8>,
    /// ELF of the slot picker, to be turned into a PE.
    pub picker: Vec<u8>,
    /// Static ELF of the updater.
    pub updater: Vec<u8>,
}

impl Programs {
    /// Reads them from `$BERTH_GUEST`, or from the nearest folder `guest` beside or above the
    /// running program.
    pub fn read() -> Result<Programs> {
        let folder = folder()?;
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(Error::io("read", &path))
        };
        Ok(Programs { init: read("init")?, picker: read("boot")?, updater: read("berth-updater")? })
    }
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("BERTH_GUEST") {
        return Ok(folder.into());
    }
    let program = std::env::current_exe().map_err(Error::io("find", "the running program"))?;
    let beside = program.ancestors().skip(1).take(3).map(|folder| folder.join("guest"));
    beside.into_iter().find(|folder| folder.join("init").is_file()).ok_or_else(|| {
        Error::refused("the guest programs `init`, `boot` and `berth-updater` are not beside berth")
            .with_hint("build them with `make guest`, or name their folder in BERTH_GUEST")
    })
}
