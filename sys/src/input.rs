//! Keys of input devices (`/dev/input/event*`), and directories to watch for them.

use rustix::fs::inotify;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `KEY_POWER` of `linux/input-event-codes.h`.
pub const KEY_POWER: u16 = 116;
const EV_KEY: u16 = 1;
/// Size of `struct input_event` on 64-bit machines: two words of time, type, code, value.
const EVENT_LEN: usize = 24;

/// A device that has a power key.
#[derive(Debug)]
pub struct PowerKey(File);

impl PowerKey {
    /// Opens `path` if it is an input device with a power key and nothing like a keyboard's
    /// letters to listen in on.
    pub fn open(path: &Path) -> io::Result<Option<PowerKey>> {
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut keys = [0u8; 96];
        // EVIOCGBIT(EV_KEY, len): _IOC(_IOC_READ, 'E', 0x20 + EV_KEY, len).
        let request = (2u64 << 30) | ((keys.len() as u64) << 16) | (0x45 << 8) | 0x21;
        // SAFETY: the kernel writes at most the length encoded in `request`, that of `keys`.
        let written = unsafe {
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), request, keys.as_mut_ptr())
        };
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
        let has = keys[usize::from(KEY_POWER) / 8] & (1 << (KEY_POWER % 8)) != 0;
        Ok(has.then_some(PowerKey(file)))
    }

    /// Whether the key was pressed since the last call. An error means that the device has gone.
    pub fn pressed(&self) -> io::Result<bool> {
        let mut pressed = false;
        let mut events = [0; EVENT_LEN * 16];
        loop {
            match (&self.0).read(&mut events) {
                Ok(0) => return Ok(pressed),
                Ok(n) => pressed |= events[..n].chunks_exact(EVENT_LEN).any(is_power_press),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(pressed),
                Err(e) => return Err(e),
            }
        }
    }
}

/// Whether these bytes of a `struct input_event` say that the power key went down.
fn is_power_press(event: &[u8]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    half(16) == EV_KEY && half(18) == KEY_POWER && value == 1
}

impl AsFd for PowerKey {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Tells that something appeared in a directory.
#[derive(Debug)]
pub struct DirectoryWatch(OwnedFd);

impl DirectoryWatch {
    /// Watches `directory`.
    pub fn open(directory: &Path) -> io::Result<DirectoryWatch> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&fd, directory, what)?;
        Ok(DirectoryWatch(fd))
    }

    /// Forgets what was told so far.
    pub fn clear(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while reader.next().is_ok() {}
    }
}

impl AsFd for DirectoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_key_going_down_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0; EVENT_LEN];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..24].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_power_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_power_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_power_press(&event(EV_KEY, 30, 1)));
        assert!(!is_power_press(&event(0, KEY_POWER, 1)));
    }
}
