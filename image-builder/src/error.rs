//! Everything that can go wrong here, each with its object and, where a person can do something,
//! a hint.

use contract::toml_input::InputError;
use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Its text never repeats its source: `main` prints the chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file.
    #[error("{operation} {}", path.display())]
    Io {
        /// `read`, `write`, `create`...
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that a person wrote is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What was asked for cannot be: bad arguments, unknown packages, sizes that do not fit.
    #[error("{what}")]
    Refused {
        /// What and why, naming the object.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Another `berth` is at it.
    #[error("another berth uses {what}")]
    Busy {
        /// The file or folder.
        what: String,
    },
    /// Something that was fetched or read is not what it has to be: signature, digest, format.
    #[error("{what}")]
    Corrupt {
        /// What and why, naming the object.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A server did not answer as it has to.
    #[error("fetch {url}")]
    Fetch {
        /// The address, without credentials.
        url: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another program failed.
    #[error("{program}: {message}")]
    Program {
        /// Its name.
        program: String,
        /// What it said, or how it ended.
        message: String,
    },
    /// The virtual machine.
    #[error(transparent)]
    Qemu(#[from] qemu::Error),
}

/// Reads a text that a person named on the command line; `kind` says what it should be.
pub fn read_input(kind: &str, path: &Path) -> Result<String> {
    let shown = path.display();
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::refused(format!("there is no {kind} {shown}"))
            .with_hint("examples are in the folder configs of the Berth sources"),
        io::ErrorKind::IsADirectory => Error::refused(format!("{shown} is a folder"))
            .with_hint(format!("name the {kind}, a TOML file")),
        io::ErrorKind::InvalidData => Error::refused(format!("{shown} is not UTF-8 text"))
            .with_hint(format!("name the {kind}, a TOML file")),
        _ => Error::io("read", path)(e),
    })
}

impl Error {
    /// For `map_err`: an operation on a file failed.
    pub fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { operation, path: path.as_ref().to_owned(), source }
    }

    /// What was asked for cannot be.
    pub fn refused(what: impl Into<String>) -> Error {
        Error::Refused { what: what.into(), hint: None }
    }

    /// Something is not what it has to be.
    pub fn corrupt(what: impl Into<String>) -> Error {
        Error::Corrupt { what: what.into(), hint: None }
    }

    /// The same error with a hint, where it can carry one.
    pub fn with_hint(self, text: impl Into<String>) -> Error {
        match self {
            Error::Refused { what, .. } => Error::Refused { what, hint: Some(text.into()) },
            Error::Corrupt { what, .. } => Error::Corrupt { what, hint: Some(text.into()) },
            other => other,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Input(e) => e.hint.clone(),
            Error::Refused { hint, .. } | Error::Corrupt { hint, .. } => hint.clone(),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                let folders = "-o for results, XDG_CACHE_HOME for the cache";
                Some(format!("free some space, or choose another folder: {folders}"))
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => Some(
                "raise the limit of file sizes (`ulimit -f unlimited`), or choose a folder on a \
                 filesystem that holds large files"
                    .into(),
            ),
            Error::Busy { .. } => Some("wait until it has ended, or choose another place".into()),
            Error::Fetch { .. } => {
                Some("check the network, name a mirror with --mirror, or use --offline".into())
            }
            Error::Qemu(e) => e.hint(),
            _ => None,
        }
    }

    /// The exit code that `main` ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Input(_)
            | Error::Refused { .. }
            | Error::Qemu(qemu::Error::NotAnImage { .. }) => ExitCode::BadInput,
            Error::Busy { .. } => ExitCode::Nothing,
            _ => ExitCode::Failed,
        }
    }
}

/// How every Berth command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// Bad input or usage.
    BadInput = 2,
    /// Nothing to do, or refused by policy.
    Nothing = 3,
}
