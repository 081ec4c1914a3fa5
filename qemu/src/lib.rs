//! Starts a disk image in QEMU.

/// What went wrong with a virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not written yet.
    #[error("not written yet")]
    Unwritten,
}

impl Error {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        None
    }
}
