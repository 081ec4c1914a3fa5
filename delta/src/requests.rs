//! Which ranges of a pack to ask for, so that there are few requests.

use crate::table::Piece;
use std::ops::Range;

/// Most ranges that one pack is asked for. With six files of metadata and the table an update
/// stays within 20 requests.
pub const MOST_REQUESTS: usize = 12;
/// Bytes between two wanted ranges that are fetched for nothing rather than asked around: about
/// what a request costs on a line of 10 Mbit/s with a round trip of 25 ms.
pub const GAP: u64 = 32 << 10;

/// One range of the pack. Its pieces' payloads lie in it in order, perhaps with gaps that are
/// fetched for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The bytes of the pack.
    pub range: Range<u64>,
    /// Which pieces of the list need something from it; those between that need nothing are in it.
    pub pieces: Range<usize>,
}

/// The requests that bring the payloads of all wanted pieces: at most `most`, and with as few
/// unneeded bytes as that allows. Gaps of up to `gap` bytes are always read through: a request
/// costs more than they do.
pub fn requests(
    pieces: &[Piece],
    mut wanted: impl FnMut(usize) -> bool,
    most: usize,
    gap: u64,
) -> Vec<Request> {
    let mut requests: Vec<Request> = pieces
        .iter()
        .enumerate()
        .filter(|(number, _)| wanted(*number))
        .filter_map(|(number, piece)| {
            Some(Request { range: piece.payload()?, pieces: number..number + 1 })
        })
        .collect();
    let mut gaps: Vec<u64> =
        requests.windows(2).map(|pair| pair[1].range.start - pair[0].range.end).collect();
    gaps.sort_unstable();
    // One gap more than there are requests has to be read through for each request too many.
    let excess = requests.len().saturating_sub(most.max(1));
    let bearable = excess.checked_sub(1).map_or(gap, |last| gap.max(gaps[last]));
    requests.dedup_by(|next, previous| {
        let near = next.range.start - previous.range.end <= bearable;
        if near {
            previous.range.end = next.range.end;
            previous.pieces.end = next.pieces.end;
        }
        near
    });
    requests
}
