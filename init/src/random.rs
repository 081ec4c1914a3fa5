//! Numbers that are hard to guess: transaction ids, source ports, jitter. Not for keys.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence that nobody can know: the standard library seeds its hashers from the kernel.
    pub fn new() -> Random {
        Random(RandomState::new().build_hasher().finish())
    }

    /// Always the same sequence, for tests.
    #[cfg(test)]
    pub const fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number (SplitMix64).
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number's upper half.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// `time` made longer or shorter by up to a quarter, so that machines that were switched on
    /// together do not ask together for ever.
    pub fn around(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.75 + f64::from(self.next_u32()) / f64::from(u32::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let mut random = Random::from_seed(1);
        let (mut low, mut high) = (f64::MAX, 0f64);
        for _ in 0..1000 {
            let seconds = random.around(Duration::from_secs(100)).as_secs_f64();
            low = low.min(seconds);
            high = high.max(seconds);
        }
        assert!((75.0..80.0).contains(&low) && (120.0..=125.0).contains(&high), "{low} {high}");
    }

    #[test]
    fn two_sequences_differ() {
        assert_ne!(Random::new().next_u64(), Random::new().next_u64());
    }
}
