//! An adaptive binary range coder. The models are written once, generic over [`Bits`]: the encoder
//! codes the bit that it is given and returns it, the decoder ignores what it is given and returns
//! the bit that was coded.

/// The probability that a bit is one, learned as it goes: quickly at first, then ever more slowly.
/// 22 bits of probability, and in the 10 lowest how often it learned.
#[derive(Clone, Copy)]
pub struct Chance(u32);

/// No slower than after so many bits.
const PATIENCE: u32 = 24;

/// How far to go towards what happened, in 1/8192, after a number of bits.
const PACE: [u32; 256] = {
    let mut pace = [0; 256];
    let mut count = 0;
    while count < pace.len() {
        pace[count] = 16384 / (2 * count as u32 + 3);
        count += 1;
    }
    pace
};

impl Chance {
    /// Nothing is known.
    pub const EVEN: Chance = Chance(1 << 31);

    /// In 1/65536, neither 0 nor 65536.
    pub fn one(self) -> u32 {
        (self.0 >> 16).clamp(24, 65536 - 24)
    }

    pub fn learn(&mut self, bit: bool) {
        let count = self.0 & 1023;
        let (chance, goal) = ((self.0 >> 10) as i32, i32::from(bit) * ((1 << 22) - 1));
        let step = ((goal - chance) >> 3).wrapping_mul(PACE[count as usize & 255] as i32);
        self.0 = self.0.wrapping_add(step as u32 & !1023) + u32::from(count < PATIENCE);
    }
}

/// Codes bits one way or the other.
pub trait Bits {
    /// A bit that is a one with the chance `one`, in 1/65536, neither 0 nor 65536.
    fn code(&mut self, one: u32, bit: bool) -> bool;

    /// A bit that one model predicts.
    fn bit(&mut self, chance: &mut Chance, bit: bool) -> bool {
        let bit = self.code(chance.one(), bit);
        chance.learn(bit);
        bit
    }

    /// The low `count` bits (at most 32), which nothing predicts.
    fn plain(&mut self, value: u32, count: u32) -> u32;
}

/// A tree of chances for numbers of a fixed number of bits.
pub fn tree<B: Bits>(bits: &mut B, chances: &mut [Chance], count: u32, value: u32) -> u32 {
    let mut node = 1;
    for place in (0..count).rev() {
        let bit = bits.bit(&mut chances[node], value >> place & 1 == 1);
        node = node << 1 | usize::from(bit);
    }
    node as u32 - (1 << count)
}

/// Writes.
pub struct Encoder {
    low: u32,
    high: u32,
    bytes: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder { low: 0, high: u32::MAX, bytes: Vec::new() }
    }

    pub fn finish(mut self) -> Vec<u8> {
        // `low` and `high` differ in their first byte, and what is missing reads as zeros.
        self.bytes.push((self.high >> 24) as u8);
        self.bytes
    }

    fn narrow(&mut self, middle: u32, bit: bool) {
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.bytes.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
        }
    }
}

impl Bits for Encoder {
    fn code(&mut self, one: u32, bit: bool) -> bool {
        self.narrow(split(self.low, self.high, one), bit);
        bit
    }

    fn plain(&mut self, value: u32, count: u32) -> u32 {
        for place in (0..count).rev() {
            self.narrow(split(self.low, self.high, 1 << 15), value >> place & 1 == 1);
        }
        value
    }
}

/// Reads. Past the end it reads zeros, and [`Decoder::overrun`] tells.
pub struct Decoder<'a> {
    low: u32,
    high: u32,
    code: u32,
    bytes: std::slice::Iter<'a, u8>,
    missing: u32,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        let mut decoder =
            Decoder { low: 0, high: u32::MAX, code: 0, bytes: bytes.iter(), missing: 0 };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | decoder.next();
        }
        decoder
    }

    /// Whether more was read than any encoder leaves out.
    pub fn overrun(&self) -> bool {
        self.missing > 4
    }

    fn next(&mut self) -> u32 {
        match self.bytes.next() {
            Some(&byte) => u32::from(byte),
            None => {
                self.missing = self.missing.saturating_add(1);
                0
            }
        }
    }

    fn narrow(&mut self, middle: u32) -> bool {
        let bit = self.code <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            self.code = self.code << 8 | self.next();
        }
        bit
    }
}

impl Bits for Decoder<'_> {
    fn code(&mut self, one: u32, _: bool) -> bool {
        self.narrow(split(self.low, self.high, one))
    }

    fn plain(&mut self, _: u32, count: u32) -> u32 {
        (0..count).fold(0, |value, _| {
            let bit = self.narrow(split(self.low, self.high, 1 << 15));
            value << 1 | u32::from(bit)
        })
    }
}

/// The last number of the part that belongs to a one. Below `high`, as a chance is below 65536.
fn split(low: u32, high: u32, one: u32) -> u32 {
    let range = high - low;
    low + (range >> 16) * one + (((range & 0xffff) * one) >> 16)
}
