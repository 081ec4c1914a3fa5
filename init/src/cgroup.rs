//! Control groups: PID 1 in `/init.scope`, each daemon in a group of its own below `/system`.
//!
//! Containers land in `/docker/ID`, beside `/system`. All controllers are enabled in the root and
//! in `/system`: dockerd looks for them in its own group to find out what the kernel can limit.

use crate::error::{Error, On};
use std::fs;
use std::path::{Path, PathBuf};
use sys::mount::{Limits, mount};

const ROOT: &str = "/sys/fs/cgroup";
/// Containers with cgroup namespaces cannot move processes out of their own part; memory that is
/// promised to a group counts for those below it.
const OPTIONS: &str = "nsdelegate,memory_recursiveprot";

/// Mounts the hierarchy unless it is, enables the controllers and moves this process.
pub fn set_up() -> Result<(), Error> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.procs").exists() {
        let limits = Limits { no_suid: true, no_dev: true, no_exec: true, ..Limits::default() };
        mount("cgroup2", ROOT, "cgroup2", limits, OPTIONS).on("mount", ROOT)?;
    }
    enable_controllers(root)?;
    let own = make(&root.join("init.scope"))?;
    fs::write(own.join("cgroup.procs"), "1").on("move PID 1 to", own.display())?;
    let system = make(&root.join("system"))?;
    enable_controllers(&system)
}

/// The group of the daemon `name`, made if need be.
pub fn of_daemon(name: &str) -> Result<PathBuf, Error> {
    make(&Path::new(ROOT).join("system").join(name))
}

fn make(path: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(path).on("make", path.display())?;
    Ok(path.to_owned())
}

fn enable_controllers(group: &Path) -> Result<(), Error> {
    let available = group.join("cgroup.controllers");
    let available = fs::read_to_string(&available).on("read", available.display())?;
    let control = group.join("cgroup.subtree_control");
    // One by one: a controller that cannot be enabled here must not keep the others away.
    for enable in enabling(&available) {
        if let Err(e) = fs::write(&control, &enable) {
            crate::log::warning(&format!("{}: {enable}: {e}", control.display()));
        }
    }
    Ok(())
}

fn enabling(available: &str) -> Vec<String> {
    available.split_whitespace().map(|name| format!("+{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_is_asked_for() {
        assert_eq!(enabling("cpuset cpu io\n"), ["+cpuset", "+cpu", "+io"]);
        assert!(enabling("\n").is_empty());
    }
}
