//! Finds, for bytes of the new release, the bytes of the old one that they most resemble, in the
//! way of bsdiff (Percival, "Naive differences of executable code", 2003): exact matches from a
//! suffix array, extended in both directions as long as by far more bytes agree than differ.

use crate::error::Result;
use crate::in_order::in_order;
use std::num::NonZeroUsize;
use std::ops::Range;

/// A stretch of the new bytes that resembles one of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub new: usize,
    pub old: usize,
    pub len: usize,
}

/// How many more bytes a match must get right than the alignment before, to be worth its cost.
const GAIN: isize = 8;
/// The same for a match in another place of the old release than the last: a host has to read it.
const FAR_GAIN: isize = 64;
/// So many bytes on it is another place.
const NEAR: usize = 64 << 10;
/// How many right bytes weigh as much as a wrong one, which takes the longest of all to decode.
const WRONG: isize = 3;
/// After so many bytes without a match only every `STRIDE`th place is looked up: they are
/// compressed data, in which nothing will be found.
const PATIENCE: usize = 2048;
const STRIDE: usize = 8;

/// Bytes that are aligned as one. Where one such part ends a match does too, which costs next to
/// nothing; the parts do not depend on the number of threads, so neither does the result.
const PART: usize = 1 << 20;

/// The segments, in order and without overlaps. What lies between them resembles nothing.
/// `progress` is told of bytes that are done.
pub fn align(
    index: &Index<'_>,
    new: &[u8],
    threads: NonZeroUsize,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Segment>> {
    let mut all = Vec::new();
    let worker = || {
        |part: Range<usize>| {
            let segments = align_part(index, &new[part.clone()]);
            (part, segments)
        }
    };
    let feed = |put: &mut dyn FnMut(Range<usize>) -> Result<()>| {
        let mut starts = (0..new.len()).step_by(PART);
        starts.try_for_each(|start| put(start..(start + PART).min(new.len())))
    };
    in_order(threads, worker, feed, |(part, segments)| {
        all.extend(segments.iter().map(|s| Segment { new: part.start + s.new, ..*s }));
        progress(part.len() as u64);
        Ok(())
    })?;
    Ok(all)
}

fn align_part(index: &Index<'_>, new: &[u8]) -> Vec<Segment> {
    let old = index.text;
    let mut segments = Vec::new();
    let at = |place: usize, shift: isize| place.checked_add_signed(shift).and_then(|i| old.get(i));
    // The segment under way: it starts at `start` and reads at `+ shift`.
    let (mut start, mut shift) = (0, 0);
    let (mut scan, mut len, mut found) = (0, 0, 0);
    while scan < new.len() {
        scan += len;
        len = 0;
        // How many bytes of new[scan..counted] the segment under way gets right.
        let (mut right, mut counted) = (0isize, scan);
        let from = scan;
        while scan < new.len() {
            (found, len) = index.longest(&new[scan..]);
            while counted < scan + len {
                right += isize::from(at(counted, shift) == Some(&new[counted]));
                counted += 1;
            }
            let far = (found as isize - scan as isize - shift).unsigned_abs() > NEAR;
            let gain = if far { FAR_GAIN } else { GAIN };
            if len as isize == right && len != 0 || len as isize > right + gain {
                break;
            }
            let step = if scan - from > PATIENCE { STRIDE } else { 1 };
            let next = (scan + step).min(new.len());
            right -= (scan..next.min(counted))
                .filter(|&place| at(place, shift) == Some(&new[place]))
                .count() as isize;
            counted = counted.max(next);
            scan = next;
            len = 0;
        }
        let goes_on = len as isize == right && scan < new.len();
        if goes_on {
            continue;
        }
        let old_start = start as isize + shift;
        let forward =
            best((0..scan - start).map(|i| at(start + i, shift) == Some(&new[start + i])));
        let next_shift = found as isize - scan as isize;
        let backward = match scan < new.len() {
            true => best((1..=(scan - start).min(found)).map(|i| old[found - i] == new[scan - i])),
            false => 0,
        };
        let overlap = (forward + backward).saturating_sub(scan - start);
        let (forward, backward) = match overlap {
            0 => (forward, backward),
            _ => {
                // Cut the overlap where the sum of what either gets right is largest.
                let first = start + forward - overlap;
                let gains = (0..overlap).map(|i| {
                    let byte = Some(&new[first + i]);
                    isize::from(at(first + i, shift) == byte)
                        - isize::from(at(first + i, next_shift) == byte)
                });
                let kept = peak(gains);
                (forward - overlap + kept, backward - kept)
            }
        };
        if forward > 0 {
            segments.push(Segment { new: start, old: old_start as usize, len: forward });
        }
        start = scan - backward;
        shift = next_shift;
    }
    segments
}

/// The length up to which right bytes most outweigh wrong ones, at `WRONG` to one.
fn best(right: impl Iterator<Item = bool>) -> usize {
    peak(right.map(|right| if right { 1 } else { -WRONG }))
}

/// The number of gains whose sum is largest; the smallest such number.
fn peak(gains: impl Iterator<Item = isize>) -> usize {
    let (mut sum, mut most, mut count) = (0, 0, 0);
    for (number, gain) in gains.enumerate() {
        sum += gain;
        if sum > most {
            (most, count) = (sum, number + 1);
        }
    }
    count
}

/// All places of the old bytes, sorted by what follows them. Takes 4 bytes of memory for each byte
/// of text, and 64 MiB.
pub struct Index<'t> {
    text: &'t [u8],
    sorted: Vec<i32>,
    /// How many bytes are looked up in `starts`: 3 of a long text, 2 of a short one.
    width: u32,
    /// Where in `sorted` the places with given first bytes start.
    starts: Vec<u32>,
}

/// Compares no further than this: a longer match is found in parts.
const LONGEST: usize = 1 << 16;

impl<'t> Index<'t> {
    /// Sorts. The text must be shorter than 2 GiB.
    pub fn new(text: &'t [u8]) -> Index<'t> {
        let mut sorted = vec![0; text.len()];
        divsufsort::sort_in_place(text, &mut sorted);
        let width = if text.len() < 1 << 22 { 2 } else { 3 };
        let mut starts = vec![0; (1 << (8 * width)) + 1];
        for place in 0..text.len() {
            starts[key(&text[place..], width) + 1] += 1;
        }
        for number in 1..starts.len() {
            starts[number] += starts[number - 1];
        }
        Index { text, sorted, width, starts }
    }

    /// Where the longest match of the start of `wanted` lies, and how long it is.
    fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let wanted = &wanted[..wanted.len().min(LONGEST)];
        let key = key(wanted, self.width);
        let (mut low, mut high) = (self.starts[key] as usize, self.starts[key + 1] as usize);
        // What the neighbours outside of low..high share with `wanted`; all between share the less.
        let (mut below, mut above) = (0, 0);
        let mut best = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let place = self.sorted[middle] as usize;
            let rest = &self.text[place..];
            let shared = usize::min(below, above).min(rest.len());
            let shared = shared + common(&rest[shared..], &wanted[shared..]);
            if shared > best.1 {
                best = (place, shared);
            }
            if shared == wanted.len() {
                break;
            }
            if rest.get(shared) < wanted.get(shared) {
                (low, below) = (middle + 1, shared);
            } else {
                (high, above) = (middle, shared);
            }
        }
        best
    }
}

/// The first bytes as a number; what is missing sorts first.
fn key(bytes: &[u8], width: u32) -> usize {
    (0..width as usize).fold(0, |key, i| key << 8 | usize::from(bytes.get(i).copied().unwrap_or(0)))
}

/// How many bytes two texts share from their starts.
fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let start = 8 * words.take_while(|(a, b)| a == b).count();
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}
