//! Samples, changed in the ways in which formats break. The same seed gives the same inputs.

/// Numbers that lengths, counts and offsets go wrong with.
const EDGES: [u64; 10] =
    [0, 1, 7, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
/// No input is longer, unless a sample is.
const LONGEST: usize = 1 << 16;

/// Inputs without end.
#[derive(Clone, Debug)]
pub struct Mutations {
    samples: Vec<Vec<u8>>,
    state: u64,
}

impl Mutations {
    /// From `samples`, of which there is at least one.
    pub fn new(samples: Vec<Vec<u8>>, seed: u64) -> Mutations {
        Mutations { samples, state: seed | 1 }
    }

    /// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
    fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    fn sample(&mut self) -> Vec<u8> {
        let at = self.below(self.samples.len());
        self.samples[at].clone()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next_u64() as u8,
            2 => bytes.truncate(at),
            3 => {
                let byte = self.next_u64() as u8;
                bytes.insert(at, byte);
            }
            4 if at < bytes.len() => {
                let edge = EDGES[self.below(EDGES.len())];
                let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                match self.below(2) {
                    0 => bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]),
                    _ => bytes[at..at + width].copy_from_slice(&edge.to_be_bytes()[8 - width..]),
                }
            }
            5 => {
                let len = self.below(bytes.len() - at + 1).min(64);
                bytes.drain(at..at + len);
            }
            6 => {
                let len = self.below(bytes.len() - at + 1).min(256);
                let piece = bytes[at..at + len].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = self.sample();
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        let longest = LONGEST.max(self.samples.iter().map(Vec::len).max().unwrap_or(0));
        bytes.truncate(longest);
    }
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.sample();
        for _ in 0..=self.below(5) {
            self.change(&mut bytes);
        }
        Some(bytes)
    }
}
