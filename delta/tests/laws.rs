//! What holds for all images, and for all bytes that are no table or payload.

use delta::{
    BLOCK, Decoder, Digest, Error, Held, Image, Images, MAX_CHUNK, Origin, Piece, Source, Table,
    chunks, patch, requests,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

fn images<'a>(uki: &'a Vec<u8>, root: &'a Vec<u8>) -> Images<'a> {
    let source = |bytes: &'a Vec<u8>| Source { bytes, len: bytes.len() as u64 };
    Images { uki: source(uki), root: source(root) }
}

/// What a receiver does: table from its bytes, then piece by piece.
fn apply(table: &Table, pack: &[u8], old: &Images<'_>) -> Result<BTreeMap<Image, Vec<u8>>, Error> {
    let mut made = BTreeMap::from(Image::ALL.map(|image| (image, Vec::new())));
    let mut decoder = Decoder::new()?;
    for piece in table.pieces() {
        let range = piece.payload().unwrap_or(0..0);
        let payload = pack.get(range.start as usize..range.end as usize);
        let payload = payload.ok_or(Error::Corrupt("the pack is too short"))?;
        let image = made.entry(piece.image).or_default();
        decoder.decode(piece, payload, old, &mut |offset, bytes| {
            assert_eq!(offset, image.len() as u64, "pieces come in order and without holes");
            assert_eq!(offset % BLOCK as u64, 0);
            assert!(bytes.len() as u64 <= MAX_CHUNK);
            image.extend_from_slice(bytes);
            Ok(())
        })?;
    }
    Ok(made)
}

fn patched(old: &Images<'_>, new: &Images<'_>) -> (Table, Vec<u8>) {
    let mut pack = Vec::new();
    let table =
        patch(old, new, TWO, &mut pack, &mut |done, total| assert!(done <= total)).expect("patch");
    (again(&table), pack)
}

fn cut(new: &Images<'_>) -> (Table, Vec<u8>) {
    let mut pack = Vec::new();
    let table =
        chunks(new, delta::LEVEL, TWO, &mut pack, &mut |done, total| assert!(done <= total))
            .expect("chunks");
    (again(&table), pack)
}

/// The table as it arrives.
fn again(table: &Table) -> Table {
    let read = Table::decode(&table.encode().expect("encode")).expect("decode");
    assert_eq!(&read, table);
    read
}

/// Numbers that look like a program's bytes do: not random, not regular.
fn program(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let word = state >> 40;
        match word % 5 {
            0 => bytes.extend([0xe8, word as u8, (word >> 8) as u8, 0, 0]),
            1 => bytes.extend([0x48, 0x8d, 0x05, (word >> 4) as u8, 1, 0, 0]),
            2 => bytes.extend([0; 7]),
            _ => bytes.extend(word.to_le_bytes()),
        }
    }
    bytes.truncate(len);
    bytes
}

/// A change to an image.
#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Replace(usize, Vec<u8>),
    Move(usize, usize, usize),
    Clear(usize, usize),
    InsertBlocks(usize, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let place = 0..400_000usize;
    let bytes = vec(any::<u8>(), 0..9000);
    vec(
        prop_oneof![
            (place.clone(), bytes.clone()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            (place.clone(), 0..20_000usize).prop_map(|(at, len)| Edit::Remove(at, len)),
            (place.clone(), bytes).prop_map(|(at, bytes)| Edit::Replace(at, bytes)),
            (place.clone(), place.clone(), 0..50_000usize)
                .prop_map(|(a, b, n)| Edit::Move(a, b, n)),
            (place.clone(), 0..100_000usize).prop_map(|(at, len)| Edit::Clear(at, len)),
            (place, 1..30usize).prop_map(|(at, blocks)| Edit::InsertBlocks(at, blocks)),
        ],
        0..6,
    )
}

fn edit(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let len = bytes.len();
        let range = |at: usize, count: usize| at.min(len)..at.saturating_add(count).min(len);
        match edit {
            Edit::Insert(at, more) => drop(bytes.splice(range(*at, 0), more.iter().copied())),
            Edit::Remove(at, count) => drop(bytes.drain(range(*at, *count))),
            Edit::Replace(at, more) => {
                drop(bytes.splice(range(*at, more.len()), more.iter().copied()));
            }
            Edit::Move(from, to, count) => {
                let part: Vec<u8> = bytes[range(*from, *count)].to_vec();
                drop(bytes.splice(range(*to, 0), part));
            }
            Edit::Clear(at, count) => bytes[range(*at, *count)].fill(0),
            Edit::InsertBlocks(at, blocks) => {
                let more = program(blocks * BLOCK, *at as u64);
                drop(bytes.splice(range(at / BLOCK * BLOCK, 0), more));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_encoded_is_what_is_decoded(
        (uki, root) in (0..40_000usize, 0..400_000usize),
        (uki_edits, root_edits) in (edits(), edits()),
    ) {
        let (old_uki, old_root) = (program(uki, 1), program(root, 2));
        let (new_uki, new_root) =
            (edit(old_uki.clone(), &uki_edits), edit(old_root.clone(), &root_edits));
        let (old, new) = (images(&old_uki, &old_root), images(&new_uki, &new_root));
        let wanted = BTreeMap::from([(Image::Uki, new_uki.clone()), (Image::Root, new_root.clone())]);

        let (table, pack) = patched(&old, &new);
        prop_assert_eq!(table.pack_len(), pack.len() as u64);
        prop_assert_eq!(&apply(&table, &pack, &old).expect("apply"), &wanted);
        let (same_table, same_pack) = patched(&old, &new);
        prop_assert!(same_table == table && same_pack == pack, "same input, same bytes");

        let (table, pack) = cut(&new);
        prop_assert_eq!(table.pack_len(), pack.len() as u64);
        prop_assert_eq!(&apply(&table, &pack, &old).expect("apply"), &wanted);
        let held = Held::scan(&old, &mut |_, _| {}).expect("scan");
        prop_assert_eq!(&apply(&table.using(&held), &pack, &old).expect("apply"), &wanted);
    }

    #[test]
    fn no_bytes_make_a_table_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Table::decode(&bytes);
        let body = zstd::bulk::compress(&bytes, 1).expect("compress");
        let header = [b"BRTHTAB3".as_slice(), &(bytes.len() as u32).to_le_bytes()].concat();
        let _ = Table::decode(&[header, body].concat());
    }

    #[test]
    fn no_operations_make_the_decoder_panic(
        operations in vec(any::<u8>(), 0..2000),
        literals in vec(any::<u8>(), 0..100),
        blocks in 1..200u64,
    ) {
        let len = (literals.len() as u32).to_le_bytes();
        let payload = [&len, &len, literals.as_slice(), &operations].concat();
        let old = program(300_000, 3);
        let piece = Piece {
            image: Image::Root,
            offset: 4096,
            len: blocks * BLOCK as u64,
            digest: Some(Digest([0; 16])),
            origin: Origin::Script(0..payload.len() as u64, Digest::of(&payload)),
        };
        let mut made = 0;
        let result = Decoder::new()?.decode(&piece, &payload, &images(&old, &old), &mut |_, bytes| {
            made += bytes.len() as u64;
            Ok(())
        });
        prop_assert!(result.is_err());
        prop_assert!(made <= piece.len);
    }

    #[test]
    fn requests_bring_all_that_is_wanted_and_are_few(
        lengths in vec((1..60_000u64, any::<bool>(), any::<bool>()), 0..200),
        most in 1..20usize,
        gap in 0..100_000u64,
    ) {
        let mut at = 0;
        let pieces: Vec<Piece> = lengths.iter().map(|&(len, has_payload, _)| {
            let origin = match has_payload {
                true => { at += len; Origin::Frame(at - len..at) }
                false => Origin::Zero,
            };
            Piece { image: Image::Root, offset: 0, len, digest: None, origin }
        }).collect();
        let wanted = |number: usize| lengths[number].2;
        let requests = requests(&pieces, wanted, most, gap);
        prop_assert!(requests.len() <= most);
        prop_assert!(requests.windows(2).all(|pair| pair[0].range.end < pair[1].range.start
            && pair[0].pieces.end <= pair[1].pieces.start));
        for (number, range) in pieces.iter().map(Piece::payload).enumerate() {
            let Some(range) = range.filter(|_| wanted(number)) else { continue };
            let request = requests.iter().find(|request| request.pieces.contains(&number));
            let request = request.expect("a request that brings it");
            prop_assert!(request.range.start <= range.start && range.end <= request.range.end);
        }
    }
}

/// A pair whose patch has every kind of operation.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let old = program(1 << 20, 7);
    let new = edit(
        old.clone(),
        &[
            Edit::Insert(100_000, program(77, 8)),
            Edit::Clear(200_000, 30_000),
            Edit::InsertBlocks(300_000, 9),
            Edit::Insert(500_000, (0..5000u32).flat_map(|n| (n * n * 77).to_le_bytes()).collect()),
        ],
    );
    (old, new)
}

#[test]
fn a_small_change_makes_a_small_patch() {
    let (old, mut new) = (program(2 << 20, 5), program(2 << 20, 5));
    // 100 bytes more in the middle of what is one program: everything behind moves.
    drop(new.splice(300_000..300_000, program(100, 6)));
    let (table, pack) = patched(&images(&old, &old), &images(&old, &new));
    assert!(pack.len() < 3000, "{} bytes", pack.len());
    assert!(table.encode().expect("encode").len() < 500);
}

#[test]
fn another_command_line_costs_one_block() {
    let (old, root) = (program(1 << 20, 11), Vec::new());
    let mut new = old.clone();
    new[90 << 10..(90 << 10) + 64].fill(b'7');
    let (table, _) = cut(&images(&new, &root));
    let held = Held::scan(&images(&old, &root), &mut |_, _| {}).expect("scan");
    let table = table.using(&held);
    let fetched = table.pieces().iter().filter(|p| matches!(p.origin, Origin::Frame(_)));
    assert_eq!(fetched.map(|piece| piece.len).collect::<Vec<_>>(), [BLOCK as u64]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    // More than one part of everything that is done in parts, with something to do in each.
    let old = program(4 << 20, 21);
    let places = (1..=3).map(|n| Edit::Insert(n << 20, program(4321, n as u64)));
    let new = edit(old.clone(), &places.collect::<Vec<_>>());
    let (old, new) = (images(&old, &old), images(&new, &new));
    let made = [1, 2, 5].map(|threads| {
        let threads = NonZeroUsize::new(threads).expect("not zero");
        let (mut chunked, mut patched) = (Vec::new(), Vec::new());
        let mut last = 0;
        let mut rises = |done: u64, total: u64| {
            assert!(last <= done && done <= total, "{last}, then {done} of {total}");
            last = done;
        };
        let chunks = chunks(&new, 3, threads, &mut chunked, &mut rises).expect("chunks");
        assert_eq!(last, new.uki.len + new.root.len);
        let mut last = 0;
        let mut rises = |done: u64, total: u64| {
            assert!(last <= done && done <= total, "{last}, then {done} of {total}");
            last = done;
        };
        let patch = patch(&old, &new, threads, &mut patched, &mut rises).expect("patch");
        (chunks.encode().expect("table"), chunked, patch.encode().expect("table"), patched)
    });
    assert!(made.iter().all(|one| one == &made[0]));
}

#[test]
fn moved_blocks_are_not_fetched_again() {
    let (old, empty) = (program(4 << 20, 9), Vec::new());
    let new =
        edit(old.clone(), &[Edit::InsertBlocks(1 << 20, 3), Edit::Insert(3 << 20, vec![7; 9])]);
    let (table, _) = cut(&images(&empty, &new));
    let held = Held::scan(&images(&empty, &old), &mut |_, _| {}).expect("scan");
    let table = table.using(&held);
    let fetched: u64 = table
        .pieces()
        .iter()
        .filter(|piece| matches!(piece.origin, Origin::Frame(_)) && piece.offset < 3 << 20)
        .map(|piece| piece.len)
        .sum();
    assert!(fetched <= 2 * MAX_CHUNK, "{fetched} bytes");
    assert!(fetched > 0, "the new blocks at least");
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    let (old, new) = pair();
    let wanted = BTreeMap::from([(Image::Uki, old.clone()), (Image::Root, new.clone())]);
    let (old, new) = (images(&old, &old), images(&old, &new));
    for (table, pack) in [patched(&old, &new), cut(&new)] {
        for at in (0..pack.len()).step_by(pack.len() / 97 + 1) {
            let mut damaged = pack.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(apply(&table, &damaged, &old).is_err(), "byte {at}");
        }
        let bytes = table.encode().expect("encode");
        for len in 0..bytes.len() {
            assert!(Table::decode(&bytes[..len]).is_err(), "cut off at {len}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            // The signed digest of the table would tell. Without it: an error, or the right image.
            let made = Table::decode(&damaged).and_then(|table| apply(&table, &pack, &old));
            assert!(made.is_err() || made.is_ok_and(|made| made == wanted), "byte {at}");
        }
    }
}

#[test]
fn a_patch_on_another_release_is_an_error() {
    let (old, new) = pair();
    let other = edit(old.clone(), &[Edit::Replace(600_000, vec![9; 5000])]);
    let (table, pack) = patched(&images(&old, &old), &images(&old, &new));
    assert!(apply(&table, &pack, &images(&old, &other)).is_err());
    let short = old[..old.len() / 2].to_vec();
    assert!(apply(&table, &pack, &images(&old, &short)).is_err());
}

#[test]
fn a_piece_is_checked_by_its_content() {
    let (old, new) = pair();
    let (table, pack) = patched(&images(&old, &old), &images(&old, &new));
    let made = apply(&table, &pack, &images(&old, &old)).expect("apply");
    for piece in table.pieces() {
        let start = piece.offset as usize;
        let bytes = &made[&piece.image][start..start + piece.len as usize];
        let is = |parts: &[&[u8]]| {
            let mut check = piece.check();
            parts.iter().for_each(|part| check.update(part));
            check.matches()
        };
        let (head, tail) = bytes.split_at(bytes.len() / 3);
        assert!(is(&[bytes]) && is(&[head, tail]));
        assert!(!is(&[head]) && !is(&[bytes, &[0]]) && !is(&[tail, head]) && !is(&[]));
    }
}
