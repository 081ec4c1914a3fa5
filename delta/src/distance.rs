//! Distances in x86-64 code: what looks like one, and how far the addresses moved that they point
//! to.

/// The distance under way.
#[derive(Clone, Copy, Default)]
pub struct Distance {
    /// How many of its bytes are to come.
    pub left: usize,
    /// What these should be, the next in the lowest byte.
    pub expected: u32,
    /// How that is known.
    pub class: usize,
    /// Number of its first byte in the run.
    pub begin: usize,
}

impl Distance {
    /// What the next byte should be, and the context.
    #[inline(always)]
    pub fn hint(&self, old: u8) -> (u8, usize) {
        match self.left {
            0 => (old, 0),
            left => (self.expected as u8, self.class + 4 - left),
        }
    }

    /// On to the next byte. Whether that was the last.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        self.left -= 1;
        self.expected >>= 8;
        self.left == 0
    }
}

/// Whether four bytes from `at` on look like a distance: after the opcode of a call or a jump, or
/// of an instruction that addresses relative to itself.
#[inline(always)]
pub fn is_distance(old: &[u8], at: usize) -> bool {
    if at < 2 || at + 4 > old.len() {
        return false;
    }
    match LAST[usize::from(old[at - 1])] {
        Last::Other => false,
        Last::Always => true,
        Last::Jump => old[at - 2] == 0x0f,
        Last::Relative => matches!(
            old[at - 2],
            0x8b | 0x8d | 0x89 | 0x3b | 0x39 | 0x10 | 0x11 | 0x6f | 0x7f | 0x28 | 0x29
        ),
    }
}

/// What the byte right before four others may be.
#[derive(Clone, Copy)]
enum Last {
    /// Nothing of interest.
    Other,
    /// `call` or `jmp`.
    Always,
    /// The second byte of a conditional jump.
    Jump,
    /// How an instruction addresses: relative to itself.
    Relative,
}

const LAST: [Last; 256] = {
    let mut table = [Last::Other; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = match byte {
            0xe8 | 0xe9 => Last::Always,
            0x80..=0x8f => Last::Jump,
            _ if byte & 0xc7 == 0x05 => Last::Relative,
            _ => Last::Other,
        };
        byte += 1;
    }
    table
};

/// The number that the first four bytes are; 0 of fewer.
pub fn le32(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

/// What is known about how far old addresses moved, finely and coarsely.
pub struct Shifts {
    tables: [Vec<Option<i64>>; 2],
}

const SCALES: [u32; 2] = [5, 12];
const SLOTS: usize = 1 << 16;

impl Shifts {
    pub fn new() -> Shifts {
        Shifts { tables: std::array::from_fn(|_| vec![None; SLOTS]) }
    }

    fn slot(address: u64, table: usize) -> usize {
        let key = (address >> SCALES[table]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (key >> 48) as usize
    }

    /// The shift, and how it is known: 2 finely, 1 coarsely, 0 not at all.
    pub fn of(&self, address: u64) -> (i64, usize) {
        (0..2)
            .find_map(|table| Some((self.tables[table][Shifts::slot(address, table)]?, 2 - table)))
            .unwrap_or((0, 0))
    }

    pub fn learn(&mut self, address: u64, shift: i64) {
        for table in 0..2 {
            self.tables[table][Shifts::slot(address, table)] = Some(shift);
        }
    }

    pub fn moved(&mut self, from: u64, at: u64, len: u64) {
        let shift = at.wrapping_sub(from) as i64;
        for step in 0..=len.min(1 << 20) >> SCALES[1] {
            let address = from.saturating_add(step << SCALES[1]);
            self.tables[1][Shifts::slot(address, 1)] = Some(shift);
        }
    }
}
