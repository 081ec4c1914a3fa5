//! Where the picker's partitions lie on its disk. Reads the partition table, writes nothing.

use crate::machine::{Fault, Machine};
use contract::Slot;
use contract::gpt::{self, ENTRIES_LEN, Header, Invalid};
use contract::layout::{BLOCK, Partition};
use core::fmt;

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    first_lba: u64,
    sectors: u64,
    sector_size: u64,
}

impl Extent {
    /// Size in bytes.
    pub const fn len(&self) -> u64 {
        self.sectors * self.sector_size
    }

    /// Whether it holds nothing; a partition never does.
    pub const fn is_empty(&self) -> bool {
        self.sectors == 0
    }

    /// Where `len` bytes from `offset` on lie on the disk; all are multiples of the sector size.
    fn lba(&self, offset: u64, len: usize) -> Result<u64, Fault> {
        let len = len as u64;
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        if !inside
            || !offset.is_multiple_of(self.sector_size)
            || !len.is_multiple_of(self.sector_size)
        {
            return Err(Fault::INVALID_PARAMETER);
        }
        Ok(self.first_lba + offset / self.sector_size)
    }

    /// Reads from byte `offset` of the partition on. A read that fails is tried once more: giving
    /// up a slot is for good, and disks have bad moments.
    pub fn read(
        &self,
        machine: &mut impl Machine,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Fault> {
        let lba = self.lba(offset, out.len())?;
        machine.read(lba, out).or_else(|_| machine.read(lba, out))
    }

    /// Writes to byte `offset` of the partition and returns when that is durable.
    pub fn write(
        &self,
        machine: &mut impl Machine,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let lba = self.lba(offset, bytes.len())?;
        machine.write(lba, bytes)?;
        machine.flush()
    }
}

/// The partitions that the picker uses. A damaged disk may lack any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `berth-state`.
    pub state: Option<Extent>,
    /// `boot-a` and `boot-b`.
    pub boot: [Option<Extent>; 2],
}

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLayout {
    /// A sector size other than 512, 1024, 2048 or 4096.
    SectorSize(u32),
    /// Neither copy of the partition table can be used.
    Tables {
        /// Why not the one at the start of the disk.
        primary: BadTable,
        /// Why not the one at its end.
        backup: BadTable,
    },
    /// There is not even memory to read it into.
    Memory(Fault),
}

/// Why a copy of the partition table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTable {
    /// It cannot be read.
    Read(Fault),
    /// It is not valid.
    Invalid(Invalid),
    /// It is valid, and belongs to another place.
    Misplaced,
}

impl fmt::Display for BadTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadTable::Read(fault) => fault.fmt(f),
            BadTable::Invalid(invalid) => invalid.fmt(f),
            BadTable::Misplaced => f.write_str("GPT header names another place as its own"),
        }
    }
}

impl fmt::Display for NoLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoLayout::SectorSize(size) => write!(f, "disk has sectors of {size} bytes"),
            NoLayout::Tables { primary, backup } => {
                write!(f, "no partition table: primary: {primary}; backup: {backup}")
            }
            NoLayout::Memory(fault) => write!(f, "no memory for the partition table: {fault}"),
        }
    }
}

/// Finds the partitions by their labels, in the primary partition table or else in the backup at
/// the end of the disk.
pub fn find(machine: &mut impl Machine) -> Result<Layout, NoLayout> {
    let size = machine.sector_size();
    if !(512..=BLOCK as u32).contains(&size) || !size.is_power_of_two() {
        return Err(NoLayout::SectorSize(size));
    }
    let mut array = machine.pages(ENTRIES_LEN).map_err(NoLayout::Memory)?;
    let array = &mut array[..ENTRIES_LEN];
    let last = machine.sectors().saturating_sub(1);
    if let Err(primary) = read_table(machine, 1, array) {
        read_table(machine, last, array).map_err(|backup| NoLayout::Tables { primary, backup })?;
        machine.say(format_args!("partition table: {primary}; using the backup"));
    }
    let extent = |partition: Partition| {
        let entry = gpt::entries(array).find(|e| e.label.as_str() == partition.label())?;
        let inside = entry.first_lba <= entry.last_lba && entry.last_lba <= last;
        inside.then(|| Extent {
            first_lba: entry.first_lba,
            sectors: entry.sectors(),
            sector_size: u64::from(size),
        })
    };
    Ok(Layout {
        state: extent(Partition::State),
        boot: Slot::ALL.map(|slot| extent(Partition::Boot(slot))),
    })
}

/// Reads the table whose header is at `lba` into `array`.
fn read_table(machine: &mut impl Machine, lba: u64, array: &mut [u8]) -> Result<(), BadTable> {
    let size = machine.sector_size() as usize;
    machine.read(lba, &mut array[..size]).map_err(BadTable::Read)?;
    let header = Header::decode(array).map_err(BadTable::Invalid)?;
    if header.my_lba != lba {
        return Err(BadTable::Misplaced);
    }
    machine.read(header.entries_lba, array).map_err(BadTable::Read)?;
    header.check_entries(array).map_err(BadTable::Invalid)
}
