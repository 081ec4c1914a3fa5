//! Mixes the opinions of several models about one bit, in the logistic domain, as the PAQ family
//! of compressors does. Integers only, so that every machine decodes the same.

use crate::range::{Bits, Chance};

/// Weights that learn which of `N` models to believe.
#[derive(Clone, Copy)]
pub struct Mixer<const N: usize> {
    weights: [i32; N],
}

/// One, as a weight.
const ONE: i32 = 1 << 16;
/// How quickly weights move.
const RATE: i32 = 10;

impl<const N: usize> Mixer<N> {
    /// Believes all alike, and the sum a little more than each.
    pub const FAIR: Mixer<N> = Mixer { weights: [(ONE + ONE / 3) / N as i32; N] };
}

/// Conversions between chances, in 1/4096, and the logistic domain, in 1/256.
pub struct Logistic {
    stretch: Box<[i16; 4096]>,
    squash: Box<[i16; 4096]>,
}

impl Logistic {
    pub fn new() -> Logistic {
        let mut logistic =
            Logistic { stretch: Box::new([2047; 4096]), squash: Box::new([4095; 4096]) };
        let mut next = 0;
        for domain in -2047..=2047 {
            let chance = squash(domain);
            logistic.squash[(domain + 2048) as usize] = chance as i16;
            (next..=chance).for_each(|chance| logistic.stretch[chance as usize] = domain as i16);
            next = next.max(chance + 1);
        }
        logistic
    }

    /// Codes a bit that several models predict, and lets them and the mixer learn.
    #[inline(always)]
    pub fn bit<B: Bits, const N: usize>(
        &self,
        bits: &mut B,
        mixer: &mut Mixer<N>,
        chances: [&mut Chance; N],
        bit: bool,
    ) -> bool {
        let inputs: [i32; N] =
            std::array::from_fn(|i| i32::from(self.stretch[chances[i].coarse() & 4095]));
        let sum: i32 = (0..N).map(|i| inputs[i] * mixer.weights[i]).sum();
        let domain = (sum >> 16).clamp(-2047, 2047) + 2048;
        let one = i32::from(self.squash[domain as usize & 4095]);
        let bit = bits.code((one as u32 * 16 + 8).clamp(16, 65520), bit);
        let error = ((i32::from(bit) << 12) - one) * RATE;
        for (weight, input) in mixer.weights.iter_mut().zip(inputs) {
            let moved = *weight + ((input * error + (1 << 15)) >> 16);
            // So far that no sum of five overflows.
            *weight = moved.clamp(-3 * ONE, 3 * ONE);
        }
        chances.into_iter().for_each(|chance| chance.learn(bit));
        bit
    }
}

/// 4096 / (1 + e^-x), with x in 1/256, between sampled points.
fn squash(domain: i32) -> i32 {
    const POINTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994,
        3348, 3607, 3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let shifted = domain + 2048;
    let (point, between) = ((shifted >> 7) as usize, shifted & 127);
    (POINTS[point] * (128 - between) + POINTS[point + 1] * between + 64) >> 7
}
