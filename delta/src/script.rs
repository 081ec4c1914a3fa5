//! Scripts: how a piece is made from the old release and from bytes that it does not have. The
//! models here drive both directions (see [`crate::range`]).
//!
//! A script's payload is the length of the literals and of their zstd frame (u32 each,
//! little-endian), the frame, and the range-coded operations.

use crate::image::{BLOCK, Image};
use crate::range::{Bits, Chance, tree};

/// Most literals of a script, in bytes.
pub const MAX_LITERALS: usize = 4 << 20;

/// What an operation does with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Blocks of zeros.
    Zero,
    /// Blocks of the old release, unchanged.
    Copy,
    /// Bytes of the old release, some of them changed.
    Delta,
    /// Bytes that come with the script.
    Literal,
}

const KINDS: [Kind; 4] = [Kind::Zero, Kind::Copy, Kind::Delta, Kind::Literal];

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    pub kind: Kind,
    /// How many bytes it makes; of `Zero` and `Copy` whole blocks but at an image's end.
    pub len: u64,
    /// Where in the old release, for `Copy` and `Delta`: see [`address`].
    pub from: u64,
}

/// One address space over both images of a release: the root begins where no UKI ends.
pub fn address(image: Image, offset: u64) -> u64 {
    offset | (image as u64) << ROOT_SHIFT
}

/// The image and offset of an address.
pub fn place(address: u64) -> (Image, u64) {
    let image = if address >> ROOT_SHIFT == 0 { Image::Uki } else { Image::Root };
    (image, address & !(1 << ROOT_SHIFT))
}

const ROOT_SHIFT: u32 = 40;

/// How far behind the new address the old one was, most recent first.
type Alignments = [i64; 4];

/// Predicts operations. Begins anew with each piece.
pub struct Model {
    kind: usize,
    kinds: [[Chance; 4]; 5],
    sizes: [Vec<Chance>; 4],
    recent: Alignments,
    choices: [[Chance; 8]; 2],
    signs: Chance,
    distances: Vec<Chance>,
}

impl Model {
    pub fn new() -> Model {
        Model {
            kind: 4,
            kinds: [[Chance::EVEN; 4]; 5],
            sizes: std::array::from_fn(|_| vec![Chance::EVEN; 64 * 9]),
            recent: [0; 4],
            choices: [[Chance::EVEN; 8]; 2],
            signs: Chance::EVEN,
            distances: vec![Chance::EVEN; 64 * 9],
        }
    }

    /// Codes an operation that starts at address `at` of the new release.
    pub fn op<B: Bits>(&mut self, bits: &mut B, at: u64, op: Op) -> Op {
        let kind = tree(bits, &mut self.kinds[self.kind], 2, op.kind as u32);
        self.kind = kind as usize;
        let kind = KINDS[self.kind];
        let unit = match kind {
            Kind::Zero | Kind::Copy => BLOCK as u64,
            Kind::Delta | Kind::Literal => 1,
        };
        let units = number(bits, &mut self.sizes[self.kind], op.len.div_ceil(unit));
        let len = units.saturating_mul(unit);
        let from = match kind {
            Kind::Zero | Kind::Literal => 0,
            Kind::Copy | Kind::Delta => self.from(bits, kind, at, op.from),
        };
        Op { kind, len, from }
    }

    fn from<B: Bits>(&mut self, bits: &mut B, kind: Kind, at: u64, from: u64) -> u64 {
        let alignment = (from as i64).wrapping_sub(at as i64);
        let known = self.recent.iter().position(|&recent| recent == alignment);
        let choices = &mut self.choices[usize::from(kind == Kind::Copy)];
        let choice = tree(bits, choices, 3, known.unwrap_or(4) as u32) as usize;
        let alignment = match self.recent.get(choice) {
            Some(&recent) => recent,
            None => {
                let change = alignment.wrapping_sub(self.recent[0]);
                let negative = bits.bit(&mut self.signs, change < 0);
                let change = number(bits, &mut self.distances, change.unsigned_abs()) as i64;
                self.recent[0].wrapping_add(if negative { change.wrapping_neg() } else { change })
            }
        };
        self.recent[..=choice.min(3)].rotate_right(1);
        self.recent[0] = alignment;
        (at as i64).wrapping_add(alignment) as u64
    }
}

/// Codes a number: how many bits it has, the three below the first with a model, the others as
/// they are.
fn number<B: Bits>(bits: &mut B, chances: &mut [Chance], value: u64) -> u64 {
    let (sizes, tops) = chances.split_at_mut(64);
    let size = tree(bits, sizes, 6, (64 - value.leading_zeros()).min(63));
    if size < 2 {
        return u64::from(size);
    }
    let below = size - 1;
    let modelled = below.min(3);
    let top = (value >> (below - modelled)) as u32 & ((1 << modelled) - 1);
    let tops = &mut tops[size as usize * 8..][..8];
    let mut result = 1 << modelled | u64::from(tree(bits, tops, modelled, top));
    let mut left = below - modelled;
    while left > 0 {
        let count = left.min(16);
        left -= count;
        let part = bits.plain((value >> left) as u32 & ((1 << count) - 1), count);
        result = result << count | u64::from(part);
    }
    result
}
