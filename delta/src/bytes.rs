//! Predicts the bytes of deltas: where the old byte stays, and what it becomes where it does not.
//!
//! Two things change all over a program when a little of it grows: the distances in its
//! instructions between where they stand and where they point to, and tables of addresses. For the
//! first, whatever looks like such a distance in x86-64 code is predicted from how far its target
//! moved, which is learned from the operations and distances before. For the second, the changes
//! one or more table entries earlier are taken as contexts.

use crate::mix::{Logistic, Mixer};
use crate::range::{Bits, Chance};

/// Most bytes of a run. Both sides must cut deltas alike, as nothing is predicted across runs.
pub const RUN: usize = 16 << 10;

/// Old bytes that a part of a delta is made from.
pub struct Run<'o> {
    pub old: &'o [u8],
    /// Address of the first in the old release.
    pub from: u64,
    /// Address of what it becomes in the new one.
    pub at: u64,
}

/// How many contexts a distance is told apart by.
const CLASSES: usize = 16;
/// After so many bytes as expected one model is enough.
const QUIET: u32 = u32::MAX >> 6;
/// How many bytes back changes are remembered.
const PAST: usize = 32;

/// So many bytes before there may be an entry of the same table.
const BACK: [usize; 5] = [4, 8, 12, 16, 24];
/// What a change is guessed from: those before, and the last.
const GUESSES: usize = BACK.len() + 1;

/// Chances for one half of a byte, as a tree: what is needed together lies in one line of the
/// processor's cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Nibble([Chance; 16]);

/// The upper half of a byte, and the lower half after each upper one.
const NIBBLES: usize = 17;

/// The model. Begins anew with each piece.
pub struct Bytes {
    logistic: Logistic,
    shifts: Shifts,
    /// Whether the bytes before were as expected, the last in the lowest bit.
    history: u32,
    /// Whether the bytes before differ from the old ones, likewise.
    differ: u32,
    /// By how much the last bytes differ from the old ones.
    changes: [u8; PAST],
    place: usize,
    last: u8,
    quiet: [Chance; CLASSES],
    recent: Vec<Chance>,
    tables: Vec<Chance>,
    scores: [u16; GUESSES],
    guessed: Vec<Chance>,
    becomes: [Vec<Nibble>; 5],
    mixers: Vec<Mixer<5>>,
}

impl Bytes {
    pub fn new() -> Bytes {
        Bytes {
            logistic: Logistic::new(),
            shifts: Shifts::new(),
            history: 0,
            differ: 0,
            changes: [0; PAST],
            place: 0,
            last: 0,
            quiet: [Chance::EVEN; CLASSES],
            recent: vec![Chance::EVEN; CLASSES << 12],
            tables: vec![Chance::EVEN; CLASSES << 13],
            scores: [1 << 15; GUESSES],
            guessed: vec![Chance::EVEN; GUESSES * 128],
            becomes: std::array::from_fn(|_| vec![Nibble([Chance::EVEN; 16]); 256 * NIBBLES]),
            mixers: vec![Mixer::FAIR; 256],
        }
    }

    /// Tells that bytes from `from` on now stand at `at`.
    pub fn moved(&mut self, from: u64, at: u64, len: u64) {
        self.shifts.moved(from, at, len);
    }

    /// Codes what a run becomes: reads `new`, or fills it.
    pub fn run<B: Bits>(&mut self, bits: &mut B, run: &Run<'_>, new: &mut [u8]) {
        // The distance under way: how many of its bytes are left, and what they should be.
        let (mut left, mut expected, mut class, mut begin) = (0, 0u32, 0, 0);
        let old = run.old;
        for number in 0..old.len().min(new.len()) {
            if left == 0 && is_distance(old, number) {
                let distance = le32(&old[number..]);
                let next = run.from.wrapping_add(number as u64 + 4);
                let here = run.at.wrapping_sub(run.from) as i64;
                let target = next.wrapping_add_signed(i64::from(distance));
                let (shift, source) = self.shifts.of(target);
                let change = if source == 0 { 0 } else { shift.wrapping_sub(here) as i32 };
                expected = distance.wrapping_add(change) as u32;
                (left, class, begin) = (4, 1 + 4 * source, number);
            }
            let byte = old[number];
            let hint = if left > 0 { expected as u8 } else { byte };
            let kind = if left > 0 { class + 4 - left } else { 0 };
            new[number] = self.byte(bits, byte, hint, kind, new[number]);
            if left > 0 {
                left -= 1;
                expected >>= 8;
                if left == 0 {
                    let (was, is) = (le32(&old[begin..]), le32(&new[begin..]));
                    let next = run.from.wrapping_add(begin as u64 + 4);
                    let target = next.wrapping_add_signed(i64::from(was));
                    let here = run.at.wrapping_sub(run.from) as i64;
                    let shift = here.wrapping_add(i64::from(is.wrapping_sub(was)));
                    self.shifts.learn(target, shift);
                }
            }
        }
    }

    #[inline(always)]
    fn byte<B: Bits>(&mut self, bits: &mut B, old: u8, hint: u8, class: usize, new: u8) -> u8 {
        let hit = new == hint;
        let hit = if self.history & QUIET == QUIET {
            bits.bit(&mut self.quiet[class], hit)
        } else {
            let history = self.history as usize;
            // Of the bytes one table entry before: 4, 8, 12, 16 and 24 back.
            let m = self.differ;
            let pasts = m >> 3 & 1 | m >> 6 & 2 | m >> 9 & 4 | m >> 12 & 8 | m >> 19 & 16;
            let pasts = pasts as usize;
            let recent = &mut self.recent[class << 12 | history & 0xfff];
            let tables = &mut self.tables[class << 13 | pasts << 8 | history & 255];
            let hit = bits.code((recent.one() + 3 * tables.one()) / 4, hit);
            recent.learn(hit);
            tables.learn(hit);
            hit
        };
        self.history = self.history << 1 | u32::from(hit);
        let new = if hit { hint } else { self.changed(bits, old, new) };
        let change = new.wrapping_sub(old);
        self.differ = self.differ << 1 | u32::from(change != 0);
        self.changes[self.place % PAST] = change;
        self.place += 1;
        if change != 0 {
            self.last = change;
        }
        new
    }

    /// The difference between the byte so many bytes ago and the old one.
    fn change(&self, back: usize) -> u8 {
        self.changes[(self.place + PAST - back) % PAST]
    }

    /// Codes by how much a byte changes: the guess that was best of late, or else the change.
    #[inline(never)]
    fn changed<B: Bits>(&mut self, bits: &mut B, old: u8, new: u8) -> u8 {
        let wanted = new.wrapping_sub(old);
        let mut guesses = [self.last; GUESSES];
        for (guess, back) in guesses.iter_mut().zip(BACK) {
            *guess = self.change(back);
        }
        let best = (0..GUESSES).max_by_key(|&guess| self.scores[guess]).unwrap_or(0);
        let sure = usize::from(self.scores[best] >> 12);
        let agree = guesses.iter().filter(|&&guess| guess == guesses[best]).count();
        let context = (best * 16 + sure) * 8 + agree;
        let chance = &mut self.guessed[context];
        let change = match bits.bit(chance, wanted == guesses[best]) {
            true => guesses[best],
            false => {
                self.spelled(bits, [guesses[0], guesses[2], guesses[4], self.last, old], wanted)
            }
        };
        for (score, guess) in self.scores.iter_mut().zip(guesses) {
            match guess == change {
                true => *score += (u16::MAX - *score) >> 4,
                false => *score -= *score >> 4,
            }
        }
        old.wrapping_add(change)
    }

    fn spelled<B: Bits>(&mut self, bits: &mut B, contexts: [u8; 5], wanted: u8) -> u8 {
        let [a, b, c, d, e] = &mut self.becomes;
        let mut node = 1;
        for place in (0..8).rev() {
            let (nibble, below) = match node {
                0..16 => (0, node),
                _ => (
                    1 + (node >> (3 - place) & 15),
                    1 << (3 - place) | node & ((1 << (3 - place)) - 1),
                ),
            };
            let at = |model: usize| usize::from(contexts[model]) * NIBBLES + nibble;
            let chances = [
                &mut a[at(0)].0[below & 15],
                &mut b[at(1)].0[below & 15],
                &mut c[at(2)].0[below & 15],
                &mut d[at(3)].0[below & 15],
                &mut e[at(4)].0[below & 15],
            ];
            let mixer = &mut self.mixers[node];
            let bit = wanted >> place & 1 == 1;
            let bit = self.logistic.bit(bits, mixer, chances, bit);
            node = node << 1 | usize::from(bit);
        }
        node as u8
    }
}

/// Whether four bytes from `at` on look like a distance: after the opcode of a call or a jump, or
/// of an instruction that addresses relative to itself.
#[inline(always)]
fn is_distance(old: &[u8], at: usize) -> bool {
    if at < 2 || at + 4 > old.len() {
        return false;
    }
    let (opcode, last) = (old[at - 2], old[at - 1]);
    match last {
        0xe8 | 0xe9 => true,
        0x80..=0x8f => opcode == 0x0f,
        _ if last & 0xc7 == 0x05 => {
            matches!(
                opcode,
                0x8b | 0x8d | 0x89 | 0x3b | 0x39 | 0x10 | 0x11 | 0x6f | 0x7f | 0x28 | 0x29
            )
        }
        _ => false,
    }
}

fn le32(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

/// What is known about how far old addresses moved, finely and coarsely.
struct Shifts {
    tables: [Vec<Option<i64>>; 2],
}

const SCALES: [u32; 2] = [5, 12];
const SLOTS: usize = 1 << 16;

impl Shifts {
    fn new() -> Shifts {
        Shifts { tables: std::array::from_fn(|_| vec![None; SLOTS]) }
    }

    fn slot(address: u64, table: usize) -> usize {
        let key = (address >> SCALES[table]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (key >> 48) as usize
    }

    /// The shift, and how it is known: 2 finely, 1 coarsely, 0 not at all.
    fn of(&self, address: u64) -> (i64, usize) {
        (0..2)
            .find_map(|table| Some((self.tables[table][Shifts::slot(address, table)]?, 2 - table)))
            .unwrap_or((0, 0))
    }

    fn learn(&mut self, address: u64, shift: i64) {
        for table in 0..2 {
            self.tables[table][Shifts::slot(address, table)] = Some(shift);
        }
    }

    fn moved(&mut self, from: u64, at: u64, len: u64) {
        let shift = at.wrapping_sub(from) as i64;
        for step in 0..=len.min(1 << 20) >> SCALES[1] {
            let address = from.saturating_add(step << SCALES[1]);
            self.tables[1][Shifts::slot(address, 1)] = Some(shift);
        }
    }
}
