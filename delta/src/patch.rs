//! Patches: what changed since one earlier release.

use crate::Progress;
use crate::align::{Index, Segment, align};
use crate::blocks::Old;
use crate::bytes::{Bytes, RUN, Run};
use crate::error::{Error, Result};
use crate::image::{BLOCK, Image, Images};
use crate::in_order::in_order;
use crate::range::Encoder;
use crate::script::{Kind, Model, Op, address, place};
use crate::table::{Digest, MAX_PAYLOAD, Origin, Piece, Table};
use sha2::{Digest as _, Sha256};
use std::io::Write;
use std::num::NonZeroUsize;

/// A piece ends when it makes this many bytes...
const PIECE: u64 = 32 << 20;
/// ... or has so many that are not copied.
const PIECE_WORK: u64 = 16 << 20;
/// ... or so many literals, which may not compress.
const PIECE_LITERALS: u64 = 2 << 20;
/// Pieces are whole steps, in bytes.
const STEP: u64 = 1 << 20;
const LEVEL: i32 = 19;

/// Compares two releases, writes the payloads of all pieces into the pack, and returns the table.
/// Memory: the changed bytes of both, four times those of the old one, and for each thread up to
/// 40 MB. The result is the same for any number of threads.
pub fn patch(
    old: &Images<'_>,
    new: &Images<'_>,
    threads: NonZeroUsize,
    pack: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Table> {
    let total = old.uki.len + old.root.len + 3 * (new.uki.len + new.root.len);
    let mut done = 0;
    let mut progress = |more: u64| {
        done += more;
        progress(done, total);
    };
    let mut blocks = Old::read(old, &mut progress)?;
    let mut runs = Vec::new();
    for image in Image::ALL {
        runs.push((image, blocks.runs(new, image, &mut progress)?.ops));
    }
    let left = blocks.left_over(old);
    drop(blocks);
    let old_text = gather(old, &left)?;
    let index = Index::new(&old_text);
    let mut resolved = Vec::new();
    for (image, runs) in runs {
        resolved.push((image, resolve(new, image, &runs, &index, &left, threads, &mut progress)?));
    }
    drop(index);
    drop(old_text);
    let (mut pieces, mut written) = (Vec::new(), 0);
    let feed = |put: &mut dyn FnMut(Job) -> Result<()>| {
        resolved.iter().try_for_each(|(image, ops)| {
            let mut offset = 0;
            split(ops).into_iter().try_for_each(|ops| {
                let len = ops.iter().map(|op| op.len).sum();
                let job = Job { image: *image, offset, len, ops };
                offset += len;
                put(job)
            })
        })
    };
    let worker = || |job: Job| script(old, new, &job).map(|coded| (job, coded));
    in_order(threads, worker, feed, |done| {
        let (Job { image, offset, len, ops }, (digest, payload)) = done?;
        let origin = match ops.as_slice() {
            [Op { kind: Kind::Zero, .. }] => Origin::Zero,
            [Op { kind: Kind::Copy, from, .. }] => {
                let (image, offset) = place(*from);
                Origin::Copy { image, offset }
            }
            _ => {
                pack.write_all(&payload)
                    .map_err(|source| Error::Write { what: "the pack", source })?;
                let start = written;
                written += payload.len() as u64;
                Origin::Script(start..written, Digest::of(&payload))
            }
        };
        let digest = (origin != Origin::Zero).then_some(digest);
        pieces.push(Piece { image, offset, len, digest, origin });
        progress(len);
        Ok(())
    })?;
    Ok(Table::new(pieces))
}

/// A piece on its way to a thread: where it starts and how long it is, in bytes.
struct Job {
    image: Image,
    offset: u64,
    len: u64,
    ops: Vec<Op>,
}

/// The old blocks, one after the other.
fn gather(old: &Images<'_>, blocks: &[u64]) -> Result<Vec<u8>> {
    let mut text = vec![0; blocks.len() * BLOCK];
    for (&at, block) in blocks.iter().zip(text.chunks_mut(BLOCK)) {
        let (image, offset) = place(at);
        old.read(image, block, offset)?;
    }
    Ok(text)
}

/// Turns the literals of an image into deltas where the old release has something similar.
fn resolve(
    new: &Images<'_>,
    image: Image,
    runs: &[Op],
    index: &Index<'_>,
    left: &[u64],
    threads: NonZeroUsize,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Op>> {
    // The literals of all runs as one text, so that an alignment goes on from one to the next.
    let mut text = Vec::new();
    let mut offset = 0;
    for run in runs {
        if run.kind == Kind::Literal {
            let start = text.len();
            text.resize(start + run.len as usize, 0);
            new.read(image, &mut text[start..], offset)?;
        }
        offset += run.len;
    }
    let segments = align(index, &text, threads, progress)?;
    progress(new.get(image).len - text.len() as u64);
    let mut segments = segments.as_slice();
    let mut ops: Vec<Op> = Vec::new();
    let mut at = 0;
    for run in runs {
        if run.kind != Kind::Literal {
            ops.push(*run);
            continue;
        }
        let end = at + run.len as usize;
        while at < end {
            // Segments that end before here are done.
            while segments.first().is_some_and(|segment| segment.new + segment.len <= at) {
                segments = &segments[1..];
            }
            let op = match segments.first() {
                Some(segment) if segment.new <= at => delta(segment, at, end, left),
                Some(segment) => literal(segment.new.min(end) - at),
                None => literal(end - at),
            };
            at += op.len as usize;
            match ops.last_mut() {
                Some(last) if follows(last, &op) => last.len += op.len,
                _ => ops.push(op),
            }
        }
    }
    Ok(ops)
}

/// Whether one operation can do what two do.
fn follows(last: &Op, next: &Op) -> bool {
    let reads = matches!(last.kind, Kind::Copy | Kind::Delta);
    last.kind == next.kind && (!reads || last.from + last.len == next.from)
}

fn literal(len: usize) -> Op {
    Op { kind: Kind::Literal, len: len as u64, from: 0 }
}

/// The part of a segment from `at` on that lies before `end` and in one old block.
fn delta(segment: &Segment, at: usize, end: usize, left: &[u64]) -> Op {
    let old = segment.old + (at - segment.new);
    let len = (segment.new + segment.len).min(end) - at;
    let len = len.min(BLOCK - old % BLOCK);
    Op { kind: Kind::Delta, len: len as u64, from: left[old / BLOCK] + (old % BLOCK) as u64 }
}

/// Splits the operations into pieces, at multiples of `STEP`.
fn split(ops: &[Op]) -> Vec<Vec<Op>> {
    let mut pieces: Vec<Vec<Op>> = Vec::new();
    let mut at = 0;
    // What the piece under way has: bytes, worked bytes, literals.
    let mut has = [0; 3];
    let mut step = Vec::new();
    for op in ops {
        let mut op = *op;
        while op.len > 0 {
            let part = op.len.min(STEP - at % STEP);
            step.push(Op { len: part, ..op });
            op = Op { len: op.len - part, from: op.from + part, ..op };
            at += part;
            if at % STEP == 0 {
                add(&mut pieces, &mut has, &mut step);
            }
        }
    }
    add(&mut pieces, &mut has, &mut step);
    pieces
}

/// Adds a step to the last piece, or starts one with it.
fn add(pieces: &mut Vec<Vec<Op>>, has: &mut [u64; 3], step: &mut Vec<Op>) {
    if step.is_empty() {
        return;
    }
    let sum = |kinds: &[Kind]| -> u64 {
        step.iter().filter(|op| kinds.contains(&op.kind)).map(|op| op.len).sum()
    };
    let more = [
        step.iter().map(|op| op.len).sum(),
        sum(&[Kind::Delta, Kind::Literal]),
        sum(&[Kind::Literal]),
    ];
    let limits = [PIECE, PIECE_WORK, PIECE_LITERALS];
    if pieces.is_empty() || (0..3).any(|i| has[i] + more[i] > limits[i]) {
        pieces.push(Vec::new());
        *has = [0; 3];
    }
    (0..3).for_each(|i| has[i] += more[i]);
    let Some(piece) = pieces.last_mut() else { return };
    for op in step.drain(..) {
        match piece.last_mut() {
            Some(last) if follows(last, &op) => last.len += op.len,
            _ => piece.push(op),
        }
    }
}

/// Encodes the operations of one piece: the digest of what they make, and their payload.
fn script(old: &Images<'_>, new: &Images<'_>, job: &Job) -> Result<(Digest, Vec<u8>)> {
    let image = job.image;
    let mut hasher = Sha256::new();
    let mut bits = Encoder::new();
    let mut model = Model::new();
    let mut bytes = Bytes::new();
    let mut literals = Vec::new();
    let (mut made, mut base) = (Vec::new(), Vec::new());
    let mut at = job.offset;
    for op in &job.ops {
        made.resize(op.len as usize, 0);
        new.read(image, &mut made, at)?;
        hasher.update(&made);
        model.op(&mut bits, address(image, at), *op);
        match op.kind {
            Kind::Zero | Kind::Copy => {}
            Kind::Literal => literals.extend_from_slice(&made),
            Kind::Delta => {
                base.resize(op.len as usize, 0);
                let (from, offset) = place(op.from);
                old.read(from, &mut base, offset)?;
                for (number, (base, made)) in base.chunks(RUN).zip(made.chunks_mut(RUN)).enumerate()
                {
                    let done = (number * RUN) as u64;
                    let run =
                        Run { old: base, from: op.from + done, at: address(image, at + done) };
                    bytes.run(&mut bits, &run, made);
                }
            }
        }
        if matches!(op.kind, Kind::Copy | Kind::Delta) {
            bytes.moved(op.from, address(image, at), op.len);
        }
        at += op.len;
    }
    let packed = zstd::bulk::compress(&literals, LEVEL).map_err(Error::Compress)?;
    let frame = if packed.len() < literals.len() { &packed } else { &literals };
    let mut payload = (literals.len() as u32).to_le_bytes().to_vec();
    payload.extend((frame.len() as u32).to_le_bytes());
    payload.extend_from_slice(frame);
    payload.extend(bits.finish());
    if payload.len() as u64 > MAX_PAYLOAD {
        return Err(Error::Refused("a piece of the patch takes more than 4 MiB"));
    }
    Ok((Digest::finish(hasher), payload))
}
