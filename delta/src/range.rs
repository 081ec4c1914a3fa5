//! An adaptive binary range coder. The models are written once, generic over [`Bits`]: the encoder
//! codes the bit that it is given and returns it, the decoder ignores what it is given and returns
//! the bit that was coded.

/// The probability that a bit is one, learned as it goes: the mean of a quick and a slow learner.
#[derive(Clone, Copy)]
pub struct Chance {
    quick: u16,
    slow: u16,
}

impl Chance {
    /// Nothing is known.
    pub const EVEN: Chance = Chance { quick: 1 << 15, slow: 1 << 15 };

    /// In 1/65536, never 0.
    fn one(self) -> u32 {
        ((u32::from(self.quick) + u32::from(self.slow)) >> 1).max(32)
    }

    fn learn(&mut self, bit: bool) {
        if bit {
            self.quick += (u16::MAX - self.quick) >> 4;
            self.slow += (u16::MAX - self.slow) >> 7;
        } else {
            self.quick -= self.quick >> 4;
            self.slow -= self.slow >> 7;
        }
    }
}

/// Codes bits one way or the other.
pub trait Bits {
    /// A bit that a model predicts.
    fn bit(&mut self, chance: &mut Chance, bit: bool) -> bool;

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

    pub fn len(&self) -> usize {
        self.bytes.len()
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
    fn bit(&mut self, chance: &mut Chance, bit: bool) -> bool {
        self.narrow(split(self.low, self.high, chance.one()), bit);
        chance.learn(bit);
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
    fn bit(&mut self, chance: &mut Chance, _: bool) -> bool {
        let bit = self.narrow(split(self.low, self.high, chance.one()));
        chance.learn(bit);
        bit
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
    low + (range >> 16) * one + ((range & 0xffff) * one >> 16)
}
