//! Everything that reads bytes that others made: a disk, a network, a mirror, a person. Each is a
//! [`Target`]: a function of any bytes that states what has to hold, and samples to begin with.
//!
//! The same functions serve three drivers: `make test` runs some thousand inputs of each, always
//! the same; `make fuzz` runs a million; cargo-fuzz, where a nightly toolchain is at hand, looks
//! for new paths by itself. An input that once found something is a test of its own beside the
//! code that it was found in.

mod debian;
mod disk;
mod mutate;
mod network;
mod program;
mod release;
mod text;

pub use mutate::Mutations;

/// One reader of foreign bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics where something does not hold that has to. Whether the bytes were taken for what they
    /// should be.
    pub run: fn(&[u8]) -> bool,
    /// What it reads every day.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub fn targets() -> Vec<Target> {
    [
        disk::TARGETS,
        text::TARGETS,
        debian::TARGETS,
        network::TARGETS,
        program::TARGETS,
        release::TARGETS,
    ]
    .concat()
}
