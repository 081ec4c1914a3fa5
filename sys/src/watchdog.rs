//! The hardware watchdog: it restarts a machine whose PID 1 no longer runs.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::ioctl::{Getter, Updater, ioctl, opcode};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
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

    /// Keeps it open when this program starts another in its own place, and returns the number by
    /// which that one takes it over. Closing it would disarm some hardware.
    pub fn hand_over(&self) -> io::Result<RawFd> {
        fcntl_setfd(&self.device, FdFlags::empty())?;
        Ok(self.device.as_raw_fd())
    }

    /// Takes over what [`Watchdog::hand_over`] kept open under `number`. To be called once, before
    /// this program opens anything. An error when that is no watchdog.
    pub fn take_over(number: RawFd) -> io::Result<Watchdog> {
        if number < 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: lent for one system call, which answers EBADF when nothing is open there.
        let known = unsafe { rustix::fd::BorrowedFd::borrow_raw(number) };
        fcntl_setfd(known, FdFlags::CLOEXEC)?;
        // SAFETY: it is open, and whoever opened it is gone: nobody else closes it.
        let device = unsafe { File::from_raw_fd(number) };
        let watchdog = Watchdog { device };
        watchdog.timeout()?;
        Ok(watchdog)
    }

    /// The time in which it wants to hear that all is well, in whole seconds.
    pub fn timeout(&self) -> io::Result<Duration> {
        // SAFETY: WDIOC_GETTIMEOUT is _IOR('W', 7, int) and returns seconds.
        let request = unsafe { Getter::<{ opcode::read::<i32>(b'W', 7) }, i32>::new() };
        // SAFETY: the same; what is no watchdog answers ENOTTY.
        let seconds = unsafe { ioctl(&self.device, request) }?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_watchdog_is_not_taken_over() {
        let closed = Watchdog::take_over(9999).map(drop).unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(9), "EBADF");
        let file = Watchdog { device: File::open("/dev/null").expect("open") };
        let number = file.hand_over().expect("kept open");
        std::mem::forget(file);
        let error = Watchdog::take_over(number).map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(25), "ENOTTY");
    }
}
