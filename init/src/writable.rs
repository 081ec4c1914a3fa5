//! Folders of the read-only root that an image wants to be written to, such as `/etc/kubernetes`:
//! overlays of what the image has there and of what was written, which is kept in `/var`. And folders of
//! `/var` whose programs it wants to be run, such as `/var/lib/kubelet`, in which volumes of pods lie.

use crate::error::{Error, On, chain};
use crate::{log, modules, var};
use contract::layout::{LIB_DIR, WRITABLE, WRITTEN_DIR};
use std::fs;
use std::io::ErrorKind;
use sys::mount::{Limits, mount};

/// Mounts all of them. One that cannot be is told, and stays read-only.
pub fn mount_all() -> Result<(), Error> {
    let list = format!("/{LIB_DIR}/{WRITABLE}");
    let text = match fs::read_to_string(&list) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.on("read", list)?,
    };
    modules::load_now(&["overlay"])?;
    for folder in text.lines() {
        if let Err(e) = mount_one(folder) {
            log::warning(&chain(&e));
        }
    }
    Ok(())
}

fn mount_one(folder: &str) -> Result<(), Error> {
    if folder.starts_with("/var/") {
        return var::bring(&[folder.to_owned()]);
    }
    let kept = format!("{WRITTEN_DIR}{folder}");
    for layer in ["upper", "work"] {
        let path = format!("{kept}/{layer}");
        fs::create_dir_all(&path).on("make", path)?;
    }
    // Programs may be put there: that is what /opt/cni/bin is for.
    let limits = Limits { no_suid: true, no_dev: true, ..Limits::default() };
    let data = format!("lowerdir={folder},upperdir={kept}/upper,workdir={kept}/work");
    mount("overlay", folder, "overlay", limits, &data).on("mount an overlay on", folder)
}
