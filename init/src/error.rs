//! What can go wrong in PID 1.

use std::fmt::Display;
use std::io;

/// What was attempted, and on what. The cause is the [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("{action} {object}")]
    Io {
        /// A verb.
        action: &'static str,
        /// What it was done to.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that was read is not what it should be.
    #[error("{object}: {problem}")]
    Invalid {
        /// What was read.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk that this system lies on is not there, or not alone.
    #[error("{0}")]
    Disk(String),
    /// No slot holds the root filesystem that belongs to this kernel.
    #[error("no slot holds root {}: {}", root_hash.get(..12).unwrap_or(root_hash), tried.join("; "))]
    NoRoot {
        /// The root hash that the kernel command line names.
        root_hash: String,
        /// One reason for each slot.
        tried: Vec<String>,
    },
    /// The PID 1 of the root filesystem cannot be started.
    #[error("start {program}")]
    NoStart {
        /// Its path.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program of the image did not do its work.
    #[error("{tool}: {problem}")]
    Tool {
        /// Its name.
        tool: String,
        /// How it ended.
        problem: String,
    },
    /// `/var` cannot be used.
    #[error("/var cannot be used: {0}")]
    Var(String),
    /// What was in `/var` is lost, as far as can be told.
    #[error("/var cannot be used: {0}")]
    Lost(String),
    /// The boot took too long.
    #[error("not everything that was asked for runs: {0}")]
    Overdue(String),
    /// A stage of the boot failed.
    #[error("{stage}")]
    Stage {
        /// Its name.
        stage: &'static str,
        /// Why.
        source: Box<Error>,
    },
}

/// Names what an I/O error is about.
pub trait On<T> {
    /// `action` is a verb, `object` what it was done to.
    fn on(self, action: &'static str, object: impl Display) -> Result<T, Error>;
}

impl<T> On<T> for io::Result<T> {
    fn on(self, action: &'static str, object: impl Display) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, object: object.to_string(), source })
    }
}

/// An error and all that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_stage_operation_object_and_cause() {
        let refused: io::Result<()> = Err(io::Error::other("no such thing"));
        let source = Box::new(refused.on("mount", "/var").unwrap_err());
        let error = Error::Stage { stage: "mount /var", source };
        assert_eq!(chain(&error), "mount /var: mount /var: no such thing");
    }
}
