//! Why a slot did not start.

use crate::machine::Fault;
use contract::Slot;
use core::fmt;

/// Why a slot did not start. Its text goes into the boot record and onto the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The record says that nothing was ever written there.
    Empty,
    /// The partition table does not have it.
    NoPartition(Slot),
    /// The record names a length in bytes that cannot be.
    Length(u64, Slot),
    /// There is no memory for so many bytes.
    Memory(usize, Fault),
    /// The disk does not give the UKI from this byte on.
    Read(Slot, usize, Fault),
    /// Damaged, or half-written.
    Digest,
    /// Firmware refuses it.
    Load(Fault),
    /// It ran and ended.
    CameBack(Fault),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Empty => f.write_str("empty"),
            Failure::NoPartition(slot) => write!(f, "there is no partition boot-{slot}"),
            Failure::Length(len, slot) => write!(f, "UKI of {len} bytes cannot be in boot-{slot}"),
            Failure::Memory(len, fault) => {
                write!(f, "no memory for a UKI of {len} bytes: {fault}")
            }
            Failure::Read(slot, at, fault) => write!(f, "read boot-{slot} at byte {at}: {fault}"),
            Failure::Digest => f.write_str("UKI does not match its SHA-256"),
            Failure::Load(fault) => write!(f, "firmware does not load the UKI: {fault}"),
            Failure::CameBack(fault) => write!(f, "UKI was started and came back: {fault}"),
        }
    }
}
