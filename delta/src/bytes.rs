//! Predicts the bytes of deltas: where the old byte stays, and what it becomes where it does not.
//!
//! Two things change all over a program when a little of it grows: the distances in its
//! instructions between where they stand and where they point to, and tables of addresses. For the
//! first, whatever looks like such a distance in x86-64 code is predicted from how far its target
//! moved, which is learned from the operations and distances before. For the second, the changes
//! one or more table entries earlier are taken as contexts.

use crate::distance::{Distance, Shifts, is_distance, le32};
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

impl Run<'_> {
    /// How far the run moved.
    fn shift(&self) -> i64 {
        self.at.wrapping_sub(self.from) as i64
    }

    /// Where the distance points to whose first byte is the one with this number.
    fn target(&self, number: usize) -> u64 {
        let next = self.from.wrapping_add(number as u64 + 4);
        next.wrapping_add_signed(i64::from(le32(&self.old[number..])))
    }
}

/// Of so many bytes one bit tells whether all are as expected...
const SPAN: usize = 32;
/// ... where so many before them were.
const CALM: u32 = 0xff;
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
    /// Whether the last spans were as expected, the last in the lowest bit.
    calm: u8,
    spans: [Chance; 8],
    recent: Vec<Chance>,
    tables: Vec<Chance>,
    scores: [u16; GUESSES],
    guessed: Vec<Chance>,
    becomes: [Vec<Nibble>; 3],
}

impl Bytes {
    pub fn new() -> Bytes {
        Bytes {
            shifts: Shifts::new(),
            history: 0,
            differ: 0,
            changes: [0; PAST],
            place: 0,
            last: 0,
            quiet: [Chance::EVEN; CLASSES],
            calm: 0,
            spans: [Chance::EVEN; 8],
            recent: vec![Chance::EVEN; CLASSES << 12],
            tables: vec![Chance::EVEN; CLASSES << 13],
            scores: [1 << 15; GUESSES],
            guessed: vec![Chance::EVEN; GUESSES * 128],
            becomes: std::array::from_fn(|_| vec![Nibble([Chance::EVEN; 16]); 256 * NIBBLES]),
        }
    }

    /// Tells that bytes from `from` on now stand at `at`.
    pub fn moved(&mut self, from: u64, at: u64, len: u64) {
        self.shifts.moved(from, at, len);
    }

    /// Codes what a run becomes: reads `new`, or fills it.
    pub fn run<B: Bits>(&mut self, bits: &mut B, run: &Run<'_>, new: &mut [u8]) {
        let mut distance = Distance::default();
        let end = run.old.len().min(new.len());
        let (mut number, mut careful) = (0, 0);
        while number < end {
            let quiet = self.history & CALM == CALM;
            let span = new[number..end].first_chunk_mut::<SPAN>();
            if let Some(span) = span.filter(|_| quiet && number >= careful) {
                let (mut guess, mut after) = ([0; SPAN], distance);
                self.expect(run, number, &mut after, &mut guess);
                let context = usize::from(self.calm & 7);
                let calm = bits.bit(&mut self.spans[context], *span == guess);
                self.calm = self.calm << 1 | u8::from(calm);
                if calm {
                    *span = guess;
                    self.note_expected(&run.old[number..][..SPAN], &guess);
                    distance = after;
                    number += SPAN;
                    continue;
                }
                careful = number + SPAN;
            }
            if distance.left == 0 {
                self.look_for_distance(run, number, &mut distance);
            }
            let byte = run.old[number];
            let (hint, kind) = distance.hint(byte);
            new[number] = self.byte(bits, byte, hint, kind, new[number]);
            if distance.left > 0 && distance.step() {
                let begin = distance.begin;
                let (was, is) = (le32(&run.old[begin..]), le32(&new[begin..]));
                let shift = run.shift().wrapping_add(i64::from(is.wrapping_sub(was)));
                self.shifts.learn(run.target(begin), shift);
            }
            number += 1;
        }
    }

    /// Begins a distance if one stands at `number`.
    #[inline(always)]
    fn look_for_distance(&self, run: &Run<'_>, number: usize, distance: &mut Distance) {
        if is_distance(run.old, number) {
            let (shift, source) = self.shifts.of(run.target(number));
            let change = if source == 0 { 0 } else { shift.wrapping_sub(run.shift()) as i32 };
            let expected = le32(&run.old[number..]).wrapping_add(change) as u32;
            *distance = Distance { left: 4, expected, class: 1 + 4 * source, begin: number };
        }
    }

    /// What is expected from `number` on, if nothing is learned meanwhile.
    fn expect(
        &self,
        run: &Run<'_>,
        number: usize,
        distance: &mut Distance,
        guess: &mut [u8; SPAN],
    ) {
        guess.copy_from_slice(&run.old[number..][..SPAN]);
        for (number, guess) in (number..).zip(guess) {
            if distance.left == 0 {
                self.look_for_distance(run, number, distance);
            }
            if distance.left > 0 {
                *guess = distance.expected as u8;
                distance.step();
            }
        }
    }

    /// Takes note of bytes that were as expected.
    fn note_expected(&mut self, old: &[u8], new: &[u8; SPAN]) {
        self.history = u32::MAX;
        self.place += SPAN;
        self.differ = 0;
        self.changes = [0; PAST];
        if old != new {
            for back in (1..=PAST).rev() {
                let change = new[SPAN - back].wrapping_sub(old[SPAN - back]);
                self.differ = self.differ << 1 | u32::from(change != 0);
                self.changes[(self.place + PAST - back) % PAST] = change;
                if change != 0 {
                    self.last = change;
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
            false => self.spelled(bits, [guesses[0], self.last, old], wanted),
        };
        for (score, guess) in self.scores.iter_mut().zip(guesses) {
            match guess == change {
                true => *score += (u16::MAX - *score) >> 4,
                false => *score -= *score >> 4,
            }
        }
        old.wrapping_add(change)
    }

    /// Codes a change that was not guessed, in two halves, from the change four bytes before, the
    /// last one, and the old byte.
    fn spelled<B: Bits>(&mut self, bits: &mut B, contexts: [u8; 3], wanted: u8) -> u8 {
        let mut made = 0;
        for half in 0..2 {
            let nibble = if half == 0 { 0 } else { 1 + usize::from(made) };
            let [a, b, c] = &mut self.becomes;
            let at = |model: usize| usize::from(contexts[model]) * NIBBLES + nibble;
            let (a, b, c) = (&mut a[at(0)].0, &mut b[at(1)].0, &mut c[at(2)].0);
            let part = wanted >> (4 - 4 * half) & 15;
            let mut node = 1;
            for place in (0..4).rev() {
                let chances = [&mut a[node & 15], &mut b[node & 15], &mut c[node & 15]];
                let one = (chances[0].one() + chances[1].one() + 2 * chances[2].one()) / 4;
                let bit = bits.code(one, part >> place & 1 == 1);
                chances.into_iter().for_each(|chance| chance.learn(bit));
                node = node << 1 | usize::from(bit);
            }
            made = made << 4 | (node as u8 & 15);
        }
        made
    }
}
