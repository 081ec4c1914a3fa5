//! What the picker needs of the machine: a disk, memory, a console, and a way to start a UKI.

use contract::Slot;
use core::fmt;
use core::ops::DerefMut;

/// The machine that the picker runs on.
///
/// Lengths given to [`read`](Machine::read) and [`write`](Machine::write) are multiples of the
/// sector size and buffers come from [`pages`](Machine::pages).
pub trait Machine {
    /// Memory that begins at a page boundary, is zeroed, and is given back when dropped.
    type Pages: DerefMut<Target = [u8]>;
    /// An image that firmware has accepted.
    type Image;

    /// Sector size of the disk in bytes.
    fn sector_size(&self) -> u32;
    /// Number of sectors of the disk.
    fn sectors(&self) -> u64;
    /// Reads sectors from `lba` on.
    fn read(&mut self, lba: u64, out: &mut [u8]) -> Result<(), Fault>;
    /// Writes sectors from `lba` on.
    fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), Fault>;
    /// Returns when everything written is durable.
    fn flush(&mut self) -> Result<(), Fault>;
    /// Memory of at least `len` bytes, rounded up to whole pages.
    fn pages(&mut self, len: usize) -> Result<Self::Pages, Fault>;
    /// Seconds since 1970 UTC; 0 when there is no clock.
    fn time(&mut self) -> u64;
    /// Shows one line on screen and serial line.
    fn say(&mut self, line: fmt::Arguments);
    /// The next slot gets its whole time before the watchdog resets the machine.
    fn rearm_watchdog(&mut self);
    /// Hands `uki` to the firmware. The bytes are not needed afterwards.
    fn load(&mut self, uki: &[u8]) -> Result<Self::Image, Fault>;
    /// Starts `image`; comes back only if that did not work.
    fn start(&mut self, slot: Slot, image: Self::Image) -> Fault;
}

/// What firmware answered: an `EFI_STATUS` (UEFI 2.10, appendix D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub usize);

const ERROR: usize = 1 << (usize::BITS - 1);

impl Fault {
    /// Asked for more memory than there is.
    pub const OUT_OF_RESOURCES: Fault = Fault(ERROR | 9);
    /// The device failed.
    pub const DEVICE_ERROR: Fault = Fault(ERROR | 7);
    /// There is no such thing.
    pub const NOT_FOUND: Fault = Fault(ERROR | 14);
    /// Outside of the disk or partition.
    pub const INVALID_PARAMETER: Fault = Fault(ERROR | 2);
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 ^ ERROR {
            1 => "load error",
            2 => "invalid parameter",
            3 => "unsupported",
            6 => "not ready",
            7 => "device error",
            8 => "write protected",
            9 => "out of memory",
            10 => "volume corrupted",
            12 => "no medium",
            13 => "medium changed",
            14 => "not found",
            15 => "access denied",
            18 => "time-out",
            21 => "aborted",
            26 => "refused by Secure Boot",
            27 => "checksum error",
            ERROR => "no error",
            code if code & ERROR == 0 => return write!(f, "firmware error {code}"),
            code => return write!(f, "firmware warning {}", code & !ERROR),
        })
    }
}
