//! Everything that can go wrong with a machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with a virtual machine. Its text never repeats its source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file.
    #[error("{operation} {}", path.display())]
    Io {
        /// `read`, `create`...
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image is not a disk with a partition table.
    #[error("{} is not a disk image: {why}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// Another program uses the image.
    #[error("{} is in use by another program", path.display())]
    ImageInUse {
        /// The image.
        path: PathBuf,
    },
    /// Nothing can listen on a port of this machine.
    #[error("listen on 127.0.0.1:{port}")]
    Port {
        /// The port of this machine.
        port: u16,
        /// The guest's port that it should lead to.
        guest: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("start {program}")]
    Spawn {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU ended at once.
    #[error("QEMU did not start: {message}")]
    Refused {
        /// What it said, or how it ended.
        message: String,
    },
    /// QEMU's control socket.
    #[error("QEMU command {command}: {message}")]
    Control {
        /// The command.
        command: String,
        /// What QEMU answered, or why it did not.
        message: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {} s{console}", within.as_secs_f32())]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// The last lines of the console, or nothing.
        console: Tail,
    },
    /// The machine ended while something was waited for.
    #[error("{what}: the machine ended before ({how}){console}")]
    Ended {
        /// What was waited for.
        what: String,
        /// How QEMU ended.
        how: String,
        /// The last lines of the console.
        console: Tail,
    },
    /// The configuration lacks what was asked for.
    #[error("{what}")]
    Absent {
        /// What and why.
        what: &'static str,
    },
    /// An HTTP answer that is none.
    #[error("GET http://127.0.0.1:{port}{path}: {message}")]
    Http {
        /// The port of this machine.
        port: u16,
        /// The path.
        path: String,
        /// What was wrong the last time.
        message: String,
    },
}

/// The last lines of a console, for an error's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail(pub Vec<String>);

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.0.is_empty() {
            write!(f, "; the console ended with:")?;
        }
        self.0.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

impl Error {
    /// For `map_err`: an operation on a file failed.
    pub(crate) fn io(
        operation: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { operation, path: path.as_ref().to_owned(), source }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Port { port, guest, source } => Some(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("choose a port above 1023: -p {}:{guest}", free_looking(*port))
                }
                _ => format!(
                    "stop what listens on port {port}, or choose another: -p {}:{guest}",
                    free_looking(*port)
                ),
            }),
            Error::ImageInUse { .. } => {
                Some("stop the machine that runs from it, or copy the image".into())
            }
            Error::NotAnImage { .. } => {
                Some("`berth build` makes images; give its .raw file or a definition".into())
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or set TMPDIR to a larger folder".into())
            }
            Error::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("install QEMU, or let berth take it from Debian packages".into())
            }
            _ => None,
        }
    }
}

/// Another port to suggest: one digit more, or a thousand up.
fn free_looking(port: u16) -> u16 {
    match port {
        0..1024 => port + 8000,
        _ => port.checked_add(1000).unwrap_or(8080),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_itself_and_another() {
        let taken = Error::Port { port: 8080, guest: 80, source: io::ErrorKind::AddrInUse.into() };
        assert_eq!(taken.to_string(), "listen on 127.0.0.1:8080");
        assert_eq!(
            taken.hint().as_deref(),
            Some("stop what listens on port 8080, or choose another: -p 9080:80")
        );
        let low =
            Error::Port { port: 80, guest: 80, source: io::ErrorKind::PermissionDenied.into() };
        assert_eq!(low.hint().as_deref(), Some("choose a port above 1023: -p 8080:80"));
    }

    #[test]
    fn the_console_is_shown_below_the_error() {
        let late = Error::Late {
            what: "`berth: ready`".into(),
            within: Duration::from_secs(3),
            console: Tail(vec!["one".into(), "two".into()]),
        };
        assert_eq!(
            late.to_string(),
            "`berth: ready`: not within 3 s; the console ended with:\n  | one\n  | two"
        );
    }
}
