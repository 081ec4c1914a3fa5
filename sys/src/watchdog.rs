//! The hardware watchdog: it restarts a machine whose PID 1 no longer runs.

use rustix::ioctl::{Updater, ioctl, opcode};
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

/// An armed watchdog. Dropping it leaves it armed; [`Watchdog::disarm`] stops it.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Opens, and thereby arms, the first watchdog. `None` when the machine has none.
    pub fn arm() -> io::Result<Option<Watchdog>> {
        match File::options().write(true).open("/dev/watchdog") {
            Ok(device) => Ok(Some(Watchdog { device })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Asks for `timeout` and returns what the hardware really took, in whole seconds.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<Duration> {
        let mut seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        // SAFETY: WDIOC_SETTIMEOUT is _IOWR('W', 6, int) and takes and returns seconds.
        let request =
            unsafe { Updater::<{ opcode::read_write::<i32>(b'W', 6) }, i32>::new(&mut seconds) };
        // SAFETY: the same; a driver without it answers EOPNOTSUPP.
        unsafe { ioctl(&self.device, request) }?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// All is well until the timeout has passed again.
    pub fn keep_alive(&mut self) -> io::Result<()> {
        self.device.write_all(b"\0")
    }

    /// Stops the watchdog, where the hardware lets itself be stopped.
    pub fn disarm(mut self) -> io::Result<()> {
        // The magic character of the kernel's watchdog-api document.
        self.device.write_all(b"V")
    }
}
