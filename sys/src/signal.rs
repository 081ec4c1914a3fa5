//! Signals as something to wait for, instead of as something that interrupts.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};

/// A signal that PID 1 listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A child ended.
    Child,
    /// SIGINT: Ctrl-Alt-Del, once [`crate::reboot::catch_ctrl_alt_del`] was called.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGPWR.
    Power,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Signal::Child => "SIGCHLD",
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
            Signal::User1 => "SIGUSR1",
            Signal::User2 => "SIGUSR2",
            Signal::Power => "SIGPWR",
        })
    }
}

const SIGNALS: [(libc::c_int, Signal); 6] = [
    (libc::SIGCHLD, Signal::Child),
    (libc::SIGINT, Signal::Interrupt),
    (libc::SIGTERM, Signal::Terminate),
    (libc::SIGUSR1, Signal::User1),
    (libc::SIGUSR2, Signal::User2),
    (libc::SIGPWR, Signal::Power),
];

/// Size of `struct signalfd_siginfo`; its first four bytes are the signal's number.
const INFO_LEN: usize = 128;

/// A file that becomes readable when a [`Signal`] arrives.
#[derive(Debug)]
pub struct SignalFd(File);

impl SignalFd {
    /// Blocks every [`Signal`] in this thread, and in threads that it starts later, and opens the
    /// file. To be called before the first thread is started. Children that are started through
    /// [`crate::process::spawn`] get an empty mask.
    pub fn open() -> io::Result<SignalFd> {
        // SAFETY: `set` is a plain value that sigemptyset initialises; the calls only read and
        // write it. signalfd returns a new descriptor that nothing else owns.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for (number, _) in SIGNALS {
                libc::sigaddset(&mut set, number);
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(SignalFd(File::from_raw_fd(fd))),
            }
        }
    }

    /// A signal that has arrived, or `None`. Several of the same kind may be told once.
    pub fn read(&self) -> io::Result<Option<Signal>> {
        let mut info = [0; INFO_LEN];
        match (&self.0).read(&mut info) {
            Ok(INFO_LEN) => {
                let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                Ok(SIGNALS.iter().find(|(n, _)| *n == number).map(|(_, signal)| *signal))
            }
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
