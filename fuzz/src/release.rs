//! What the tables and scripts of a release say. Both are signed for, but whoever signs may err.

use crate::Target;
use delta::{Decoder, Digest, Images, Origin, Piece, Source, Table, patch};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::OnceLock;

pub const TARGETS: &[Target] = &[
    Target { name: "release-table", run: table, samples: tables },
    Target { name: "release-script", run: script, samples: scripts },
];

/// A release, the one after it, and the patch from one to the other.
struct Example {
    old: [Vec<u8>; 2],
    table: Table,
    pack: Vec<u8>,
}

fn images(images: &[Vec<u8>; 2]) -> Images<'_> {
    let [uki, root] =
        images.each_ref().map(|image| Source { bytes: image, len: image.len() as u64 });
    Images { uki, root }
}

fn example() -> &'static Example {
    static EXAMPLE: OnceLock<Example> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let noise =
            |seed: u32| (0..20_000_u32).map(move |i| ((i ^ seed).wrapping_mul(i) >> 7) as u8);
        let old: [Vec<u8>; 2] = [noise(1).collect(), noise(2).chain([0; 9000]).collect()];
        // Bytes that changed here and there, some that moved, and some that are new.
        let mut new = old.clone();
        new[0].iter_mut().step_by(700).for_each(|byte| *byte = byte.wrapping_add(9));
        new[1].splice(5000..5000, noise(3).take(3000));
        let mut pack = Vec::new();
        let table =
            patch(&images(&old), &images(&new), NonZeroUsize::MIN, &mut pack, &mut |_, _| {});
        Example { table: table.expect("a patch"), old, pack }
    })
}

/// The scripts of the example: the piece, and where its payload lies.
fn pieces() -> impl Iterator<Item = (&'static Piece, Range<usize>)> {
    example().table.pieces().iter().filter_map(|piece| match &piece.origin {
        Origin::Script(range, _) => Some((piece, range.start as usize..range.end as usize)),
        _ => None,
    })
}

/// On the wire the body is compressed behind twelve bytes.
fn tables() -> Vec<Vec<u8>> {
    let wire = example().table.encode().expect("encoded");
    vec![zstd::bulk::decompress(&wire[12..], 1 << 20).expect("a body")]
}

/// What is read follows one another without a gap, and is written as the same again.
fn table(body: &[u8]) -> bool {
    let wire = example().table.encode().expect("encoded");
    let mut wire = wire[..8].to_vec();
    wire.extend((body.len() as u32).to_le_bytes());
    wire.extend(zstd::bulk::compress(body, 1).expect("compressed"));
    let Ok(table) = Table::decode(&wire) else { return false };
    let mut ends = [0; 2];
    for piece in table.pieces() {
        let end = &mut ends[piece.image as usize];
        assert_eq!(piece.offset, *end);
        *end += piece.len;
    }
    let again = Table::decode(&table.encode().expect("encoded"));
    assert!(again.is_ok_and(|again| again == table));
    true
}

fn scripts() -> Vec<Vec<u8>> {
    pieces().map(|(_, range)| example().pack[range].to_vec()).collect()
}

/// Makes no more than its piece, and reads only what is there.
fn script(payload: &[u8]) -> bool {
    let mut decoder = Decoder::new().expect("a decoder");
    let mut any = false;
    for (piece, _) in pieces() {
        let origin = Origin::Script(0..payload.len() as u64, Digest::of(payload));
        let piece = Piece { origin, ..piece.clone() };
        let mut made = 0;
        let mut sink = |offset, bytes: &[u8]| {
            assert_eq!(offset, piece.offset + made);
            made += bytes.len() as u64;
            assert!(made <= piece.len);
            Ok(())
        };
        any |= decoder.decode(&piece, payload, &images(&example().old), &mut sink).is_ok();
    }
    any
}
