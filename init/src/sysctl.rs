//! Settings of the kernel that the host configuration asks for.

use crate::log;
use contract::host_config::sysctl_path;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Makes the settings. One that the kernel does not know or not take is told, and no more.
pub fn apply(settings: &BTreeMap<String, String>) {
    for (name, value) in settings {
        let Some(path) = sysctl_path(name) else { continue };
        if let Err(e) = fs::write(Path::new("/proc/sys").join(path), value) {
            log::warning(&format!("sysctl {name} = {value}: {e}"));
        }
    }
}
