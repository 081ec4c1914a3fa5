//! The formats of `docs/contract.md` are those of the code: its examples are read, and made.

use delta::{Decoder, Image, Images, Source, Table, chunks, patch};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contract.md");
    std::fs::read_to_string(path).expect("docs/contract.md")
}

/// The two indented blocks of hexadecimal digits behind a mark.
fn example(name: &str) -> [Vec<u8>; 2] {
    let document = document();
    let (_, rest) =
        document.split_once(&format!("<!-- example: {name} -->\n\n")).expect("the mark");
    let mut blocks = rest.split("\n\n").map(|block| {
        let digits: String = block.split_whitespace().collect();
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        assert!(rest.is_empty(), "{digits}");
        let byte = |pair: &[u8; 2]| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hexadecimal")
        };
        pairs.iter().map(byte).collect::<Vec<u8>>()
    });
    [blocks.next().expect("a table"), blocks.next().expect("a pack")]
}

fn images<'a>(uki: &'a Vec<u8>, root: &'a Vec<u8>) -> Images<'a> {
    let source = |bytes: &'a Vec<u8>| Source { bytes, len: bytes.len() as u64 };
    Images { uki: source(uki), root: source(root) }
}

fn decode(table: &[u8], pack: &[u8], old: &Images<'_>) -> BTreeMap<Image, Vec<u8>> {
    let table = Table::decode(table).expect("a table");
    let mut made = BTreeMap::from(Image::ALL.map(|image| (image, Vec::new())));
    let mut decoder = Decoder::new().expect("a decoder");
    for piece in table.pieces() {
        let range = piece.payload().unwrap_or(0..0);
        let payload = &pack[range.start as usize..range.end as usize];
        let image = made.entry(piece.image).or_default();
        let mut sink = |_, bytes: &[u8]| {
            image.extend_from_slice(bytes);
            Ok(())
        };
        decoder.decode(piece, payload, old, &mut sink).expect("decoded");
    }
    made
}

#[test]
fn chunks_are_as_documented() {
    let [table, pack] = example("table, pack");
    let (uki, root, nothing) = (b"hello".to_vec(), vec![0; 16384], Vec::new());
    let made = decode(&table, &pack, &images(&nothing, &nothing));
    assert_eq!(made, BTreeMap::from([(Image::Uki, uki.clone()), (Image::Root, root.clone())]));
    let mut written = Vec::new();
    let new = images(&uki, &root);
    let made = chunks(&new, delta::LEVEL, NonZeroUsize::MIN, &mut written, &mut |_, _| {});
    assert_eq!(Some(written), Some(pack));
    assert_eq!(made.expect("chunks"), Table::decode(&table).expect("a table"));
}

#[test]
fn patches_are_as_documented() {
    let [table, pack] = example("patch table, patch pack");
    let (old_uki, uki) = (b"hello".to_vec(), b"HELLO".to_vec());
    let old_root = [[b'a'; 4096], [b'b'; 4096]].concat();
    let mut root = [old_root.as_slice(), &[0; 4096]].concat();
    root[4096 + 9] = b'x';
    let old = images(&old_uki, &old_root);
    let made = decode(&table, &pack, &old);
    assert_eq!(made, BTreeMap::from([(Image::Uki, uki.clone()), (Image::Root, root.clone())]));
    let mut written = Vec::new();
    let made = patch(&old, &images(&uki, &root), NonZeroUsize::MIN, &mut written, &mut |_, _| {});
    assert_eq!(written, pack);
    assert_eq!(made.expect("a patch"), Table::decode(&table).expect("a table"));
}

#[test]
fn bounds_are_as_documented() {
    let document = document();
    for (what, most) in [
        ("a table of pieces", delta::MAX_TABLE),
        ("an image", delta::MAX_IMAGE),
        ("output of a piece", delta::MAX_PIECE),
        ("output of a chunk", delta::MAX_CHUNK),
        ("payload of a piece", delta::MAX_PAYLOAD),
    ] {
        assert!(document.contains(&format!("\n| {what} | {most} |\n")), "{what}: {most}");
    }
}
