//! What people and machines press to switch a host off: the power button, Ctrl-Alt-Del, signals.
//!
//! | asked by | means |
//! |---|---|
//! | power button (ACPI, also QEMU's `system_powerdown`) | power off |
//! | Ctrl-Alt-Del, SIGINT, SIGTERM | restart |
//! | SIGUSR2, SIGPWR | power off |
//! | SIGUSR1 | halt, taken as power off |
//!
//! These are the signals of busybox's `reboot`, `poweroff` and `halt`.

use crate::log;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use sys::input::{DirectoryWatch, PowerKey};
use sys::signal::Signal;

const INPUT: &str = "/dev/input";

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Off.
    PowerOff,
    /// And start again.
    Restart,
}

/// What a signal asks for.
pub fn meaning(signal: Signal) -> Option<Ending> {
    match signal {
        Signal::Interrupt | Signal::Terminate => Some(Ending::Restart),
        Signal::User1 | Signal::User2 | Signal::Power => Some(Ending::PowerOff),
        Signal::Child => None,
    }
}

/// The power buttons of the machine.
#[derive(Debug)]
pub struct PowerButtons {
    watch: Option<DirectoryWatch>,
    keys: BTreeMap<PathBuf, Option<PowerKey>>,
}

impl PowerButtons {
    /// Opens those that are there and watches for others. Without a button a host still ends by
    /// signals.
    pub fn open() -> PowerButtons {
        // The kernel makes this folder with its first device; here it may come before.
        let watch = fs::create_dir_all(INPUT).and_then(|()| DirectoryWatch::open(Path::new(INPUT)));
        if let Err(e) = &watch {
            log::warning(&format!("watch {INPUT} for power buttons: {e}"));
        }
        let mut buttons = PowerButtons { watch: watch.ok(), keys: BTreeMap::new() };
        buttons.look();
        buttons
    }

    /// What to wait for.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        let keys = self.keys.values().flatten().map(AsFd::as_fd);
        self.watch.iter().map(AsFd::as_fd).chain(keys).collect()
    }

    /// Whether a button was pressed since the last call.
    pub fn pressed(&mut self) -> bool {
        let mut pressed = false;
        self.keys.retain(|_, key| match key.as_ref().map(PowerKey::pressed) {
            Some(Ok(yes)) => {
                pressed |= yes;
                true
            }
            // Unplugged: if it comes back it is looked at anew.
            Some(Err(_)) => false,
            None => true,
        });
        self.look();
        pressed
    }

    fn look(&mut self) {
        if let Some(watch) = &self.watch {
            watch.clear();
        }
        let Ok(entries) = fs::read_dir(INPUT) else { return };
        let paths: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
            .map(|entry| entry.path())
            .collect();
        self.keys.retain(|path, _| paths.contains(path));
        for path in paths {
            if !self.keys.contains_key(&path)
                && let Ok(key) = PowerKey::open(&path)
            {
                self.keys.insert(path, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_busybox_means() {
        assert_eq!(meaning(Signal::Terminate), Some(Ending::Restart));
        assert_eq!(meaning(Signal::Interrupt), Some(Ending::Restart));
        assert_eq!(meaning(Signal::User2), Some(Ending::PowerOff));
        assert_eq!(meaning(Signal::Power), Some(Ending::PowerOff));
        assert_eq!(meaning(Signal::Child), None);
    }
}
