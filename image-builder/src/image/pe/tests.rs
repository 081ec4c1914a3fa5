use super::*;
use proptest::prelude::*;

/// Code at 0x1000, data at 0x2010 (not at a page), headers and relocations at 0.
const CODE: u64 = 0x1000;
const DATA: u64 = 0x2010;
const TARGET: u64 = CODE + 3;
/// Where in the file things are that a test breaks.
const HEADERS: usize = 64;
const DYNAMIC: usize = 0x200;
const RELA: usize = 0x300;

/// A linked program in small: one function, one pointer to it, one relocation.
fn elf() -> Vec<u8> {
    let mut elf = vec![0; 0x1020];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[3, 0, 62, 0]);
    put(24, &(CODE + 1).to_le_bytes());
    put(32, &(HEADERS as u64).to_le_bytes());
    put(54, &[56, 0, 4, 0]);
    let segments: [(u32, u32, u64, u64, u64, u64); 4] = [
        (1, 4, 0, 0, 0x400, 0x400),
        (1, 5, 0x800, CODE, 0x10, 0x10),
        (1, 6, 0x1010, DATA, 0x10, 0x2000),
        (2, 6, DYNAMIC as u64, DYNAMIC as u64, 0x40, 0x40),
    ];
    for (i, (kind, flags, offset, address, in_file, in_memory)) in segments.into_iter().enumerate()
    {
        let at = HEADERS + i * 56;
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 16, &address.to_le_bytes());
        put(at + 32, &in_file.to_le_bytes());
        put(at + 40, &in_memory.to_le_bytes());
    }
    for (i, word) in [7, RELA as u64, 8, 24, 9, 24, 0, 0].into_iter().enumerate() {
        put(DYNAMIC + i * 8, &u64::to_le_bytes(word));
    }
    for (i, word) in [DATA + 8, 8, TARGET].into_iter().enumerate() {
        put(RELA + i * 8, &u64::to_le_bytes(word));
    }
    put(0x800, b"0123456789abcdef");
    put(0x1010, b"DATADATA");
    elf
}

/// Loads a PE file as firmware does: sections to their addresses, then base relocations.
/// Returns memory and entry point.
fn load(pe: &[u8], base: u64) -> (Vec<u8>, usize) {
    assert_eq!(pe[..2], *b"MZ");
    let coff = u32_at(pe, 60) as usize;
    assert_eq!(pe[coff..coff + 4], *b"PE\0\0");
    let sections = usize::from(u16_at(pe, coff + 6));
    let optional = coff + 24;
    assert_eq!(u16_at(pe, optional), 0x20b);
    assert_eq!(u64_at(pe, optional + 24), 0, "image base");
    assert_eq!(u16_at(pe, optional + 68), 10, "subsystem");
    let mut memory = vec![0; u32_at(pe, optional + 56) as usize];
    let header_size = u32_at(pe, optional + 60) as usize;
    let table = optional + usize::from(u16_at(pe, coff + 20));
    assert!(table + sections * 40 <= header_size);
    let mut free = header_size;
    for header in pe[table..table + sections * 40].chunks_exact(40) {
        let (size, address) = (u32_at(header, 8) as usize, u32_at(header, 12) as usize);
        let (in_file, offset) = (u32_at(header, 16) as usize, u32_at(header, 20) as usize);
        assert!(address >= free && address % 4096 == 0, "sections are in order and on pages");
        free = address + size;
        let len = in_file.min(size);
        memory[address..address + len].copy_from_slice(&pe[offset..offset + len]);
        let (write, execute) = (u32_at(header, 36) >> 31, u32_at(header, 36) >> 29 & 1);
        assert_eq!(write & execute, 0, "nothing is writable and executable");
    }
    assert!(free <= memory.len());
    let directory = optional + 112 + 5 * 8;
    let (mut at, len) = (u32_at(pe, directory) as usize, u32_at(pe, directory + 4) as usize);
    let end = at + len;
    while at < end {
        let (page, size) = (u32_at(&memory, at) as usize, u32_at(&memory, at + 4) as usize);
        assert!(size % 4 == 0 && at + size <= end);
        for i in (at + 8..at + size).step_by(2) {
            let relocation = usize::from(u16_at(&memory, i));
            match relocation >> 12 {
                0 => {}
                10 => {
                    let place = page + (relocation & 0xfff);
                    let moved = u64_at(&memory, place) + base;
                    memory[place..place + 8].copy_from_slice(&moved.to_le_bytes());
                }
                other => panic!("relocation of type {other}"),
            }
        }
        at += size;
    }
    (memory, u32_at(pe, optional + 16) as usize)
}

#[test]
fn what_firmware_loads_is_what_was_linked() {
    let pe = elf_to_pe(&elf()).expect("a program");
    let base = 0x7654_3000;
    let (memory, entry) = load(&pe, base);
    assert_eq!(memory[entry..entry + 3], *b"123");
    let data = (DATA + BIAS) as usize;
    assert_eq!(memory[data..data + 8], *b"DATADATA");
    let target = (u64_at(&memory, data + 8) - base) as usize;
    assert_eq!(memory[target..target + 3], *b"345");
    assert_eq!(memory.len(), 0x7000, "headers, segments of 1, 1 and 3 pages, .reloc");
}

#[test]
fn a_program_without_relocations_can_be_moved_too() {
    let mut elf = elf();
    elf[HEADERS + 3 * 56] = 0;
    let pe = elf_to_pe(&elf).expect("a program");
    let (memory, entry) = load(&pe, 0x1000_0000);
    assert_eq!(memory[entry..entry + 3], *b"123");
    let reloc = u32_at(&pe, DOS_HEADER + COFF_HEADER + 112 + 5 * 8 + 4);
    assert_eq!(reloc, 12);
}

#[test]
fn blocks_of_relocations_are_whole_words() {
    let bytes = base_relocations(&[0x1008, 0x1010, 0x1018, 0x3000]);
    let expected: [u16; 14] = [
        0x1000, 0, 16, 0, 0xa008, 0xa010, 0xa018, 0, // page, size, three and padding
        0x3000, 0, 12, 0, 0xa000, 0,
    ];
    assert_eq!(bytes, expected.map(u16::to_le_bytes).concat());
}

type Case = (&'static str, fn(&mut Vec<u8>));

#[test]
fn what_firmware_could_not_run_is_refused() {
    let cases: [Case; 14] = [
        ("shorter than its header", |e| e.truncate(63)),
        ("not a position-independent program", |e| e[0] = 0),
        ("not a position-independent program", |e| e[16] = 2),
        ("not a position-independent program", |e| e[18] = 183),
        ("program headers have an unknown size", |e| e[54] = 32),
        ("cut off", |e| e.truncate(0x808)),
        ("program interpreter", |e| e[HEADERS + 3 * 56] = 3),
        ("thread-local", |e| e[HEADERS + 3 * 56] = 7),
        ("both writable and executable", |e| e[HEADERS + 56 + 4] = 7),
        ("a segment is larger", |e| e[HEADERS + 56 + 40 + 7] = 1),
        ("share a page", |e| e[HEADERS + 2 * 56 + 17] = 0x18),
        ("it needs a library", |e| e[DYNAMIC] = 1),
        ("other than relative", |e| e[RELA + 8] = 6),
        ("not in writable data", |e| e[RELA + 1] = 0x10),
    ];
    for (what, fault) in cases {
        let mut bytes = elf();
        fault(&mut bytes);
        let message = elf_to_pe(&bytes).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains(what), "{what:?}: {message:?}");
    }
    let mut bytes = elf();
    bytes[25] = 0x20;
    let message = elf_to_pe(&bytes).err().map(|e| e.to_string());
    let expected = "slot picker (ELF): the entry point is not in executable code";
    assert_eq!(message.as_deref(), Some(expected));
}

proptest! {
    #[test]
    fn broken_input_is_an_error_and_not_a_panic(
        changes in prop::collection::vec((0..0x400_usize, any::<u8>()), 0..8),
        len in 0..0x1020_usize,
    ) {
        let mut bytes = elf();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(pe) = elf_to_pe(&bytes) {
            prop_assert!(pe.starts_with(b"MZ"));
        }
        bytes.truncate(len);
        let _ = elf_to_pe(&bytes);
    }
}
