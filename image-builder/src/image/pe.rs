//! The slot picker as firmware wants it: a PE file, made of the ELF file that the ordinary
//! toolchain links (see `boot/build.rs`).
//!
//! Each loadable segment becomes a section and each relative relocation a base relocation, so that
//! the firmware's own loader moves the program. Formats: System V ABI, chapters 4 and 5, with the
//! x86-64 supplement; "PE Format" of Microsoft; UEFI 2.10, section 2.1.1.

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::{Error, Result};

const PAGE: u64 = 4096;
/// Alignment of sections in the file.
const FILE_ALIGNMENT: usize = 512;
/// Firmware loads the picker into memory that it counts in pages; a larger file is not a picker.
const MAX_MEMORY: u64 = 16 << 20;

/// Sections begin behind the headers, so the program moves up by a page. Nothing in it knows an
/// absolute address but through relocations, which move with it.
const BIAS: u64 = PAGE;

/// One loadable segment, on whole pages.
struct Segment {
    /// Address in the PE image.
    address: u64,
    /// Content; the rest up to `memory` is zero.
    bytes: Vec<u8>,
    memory: u64,
    flags: u32,
}

const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// Makes a PE file (`BOOTX64.EFI`) out of a position-independent ELF program that needs no
/// library and no symbol. Anything else is refused.
pub fn elf_to_pe(elf: &[u8]) -> Result<Vec<u8>> {
    let elf = Elf::parse(elf)?;
    let mut segments = elf.segments()?;
    let relocations = elf.relocations()?;
    let mut places = Vec::with_capacity(relocations.len());
    for (place, target) in relocations {
        let target = target.checked_add(BIAS).ok_or_else(|| bad("a relocation overflows"))?;
        let place = place.checked_add(BIAS).ok_or_else(|| bad("a relocation overflows"))?;
        write_u64(&mut segments, place, target)?;
        places.push(place);
    }
    places.sort_unstable();
    let entry = elf.entry.saturating_add(BIAS);
    let code = |s: &&Segment| s.flags & PF_X != 0 && entry >= s.address;
    if !segments.iter().filter(code).any(|s| entry < s.address + s.memory) {
        return Err(bad("the entry point is not in executable code"));
    }
    Ok(write(&segments, &base_relocations(&places), entry))
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("slot picker (ELF): {what}"))
}

/// The parts of an ELF file that matter here.
struct Elf<'a> {
    bytes: &'a [u8],
    entry: u64,
    headers: Vec<ProgramHeader>,
}

struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Elf<'a>> {
        // 64-bit, little-endian, shared object (which a position-independent program is), x86-64.
        let head = bytes.get(..64).ok_or_else(|| bad("shorter than its header"))?;
        if head[..6] != *b"\x7fELF\x02\x01" || u16_at(head, 16) != 3 || u16_at(head, 18) != 62 {
            return Err(bad("not a position-independent program for x86-64"));
        }
        let (at, size, count) = (u64_at(head, 32), u16_at(head, 54), u16_at(head, 56));
        if size != 56 {
            return Err(bad("program headers have an unknown size"));
        }
        let table = slice(bytes, at, u64::from(count) * 56)?;
        let headers = table.chunks_exact(56).map(|h| ProgramHeader {
            kind: u32_at(h, 0),
            flags: u32_at(h, 4),
            offset: u64_at(h, 8),
            address: u64_at(h, 16),
            in_file: u64_at(h, 32),
            in_memory: u64_at(h, 40),
        });
        Ok(Elf { bytes, entry: u64_at(head, 24), headers: headers.collect() })
    }

    /// The segments in order of their addresses, each begun at a page.
    fn segments(&self) -> Result<Vec<Segment>> {
        const PT_LOAD: u32 = 1;
        const PT_INTERP: u32 = 3;
        const PT_TLS: u32 = 7;
        if self.headers.iter().any(|h| h.kind == PT_INTERP) {
            return Err(bad("it asks for a program interpreter"));
        }
        if self.headers.iter().any(|h| h.kind == PT_TLS) {
            return Err(bad("it has thread-local variables"));
        }
        let mut segments: Vec<Segment> = Vec::new();
        for header in self.headers.iter().filter(|h| h.kind == PT_LOAD && h.in_memory > 0) {
            let content = slice(self.bytes, header.offset, header.in_file)?;
            let end = header.address.checked_add(header.in_memory);
            if header.in_file > header.in_memory || end.is_none_or(|end| end > MAX_MEMORY) {
                return Err(bad("a segment is larger than it can be"));
            }
            if header.flags & (PF_W | PF_X) == PF_W | PF_X {
                return Err(bad("a segment is both writable and executable"));
            }
            let lead = header.address % PAGE;
            let address = header.address - lead + BIAS;
            let mut bytes = vec![0; lead as usize];
            bytes.extend_from_slice(content);
            if segments
                .last()
                .is_some_and(|s| (s.address + s.memory).next_multiple_of(PAGE) > address)
            {
                return Err(bad("segments share a page or are out of order"));
            }
            segments.push(Segment {
                address,
                bytes,
                memory: header.in_memory + lead,
                flags: header.flags,
            });
        }
        if segments.is_empty() { Err(bad("it has no segments")) } else { Ok(segments) }
    }

    /// The relative relocations: (address of the word, address that it holds).
    fn relocations(&self) -> Result<Vec<(u64, u64)>> {
        const PT_DYNAMIC: u32 = 2;
        const DT_NEEDED: u64 = 1;
        const DT_PLTRELSZ: u64 = 2;
        const DT_RELA: u64 = 7;
        const DT_RELASZ: u64 = 8;
        const DT_RELSZ: u64 = 18;
        const DT_RELRSZ: u64 = 35;
        const R_X86_64_RELATIVE: u64 = 8;
        let Some(dynamic) = self.headers.iter().find(|h| h.kind == PT_DYNAMIC) else {
            return Ok(Vec::new());
        };
        let (mut at, mut len) = (0, 0);
        for entry in slice(self.bytes, dynamic.offset, dynamic.in_file)?.chunks_exact(16) {
            match (u64_at(entry, 0), u64_at(entry, 8)) {
                (0, _) => break,
                (DT_NEEDED, _) => return Err(bad("it needs a library")),
                (DT_RELA, value) => at = value,
                (DT_RELASZ, value) => len = value,
                (DT_PLTRELSZ | DT_RELSZ | DT_RELRSZ, 1..) => {
                    return Err(bad("it has relocations of a kind that is not known here"));
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        for rela in self.at_address(at, len)?.chunks_exact(24) {
            if u64_at(rela, 8) != R_X86_64_RELATIVE {
                return Err(bad("it has relocations other than relative ones"));
            }
            found.push((u64_at(rela, 0), u64_at(rela, 16)));
        }
        Ok(found)
    }

    /// The bytes of the file that are loaded at `address`.
    fn at_address(&self, address: u64, len: u64) -> Result<&'a [u8]> {
        if len == 0 {
            return Ok(&[]);
        }
        let inside = |h: &&ProgramHeader| {
            let end = address.checked_add(len);
            h.kind == 1 && h.address <= address && end <= h.address.checked_add(h.in_file)
        };
        let header = self.headers.iter().find(inside);
        let header = header.ok_or_else(|| bad("its relocations are not loaded"))?;
        slice(self.bytes, header.offset + (address - header.address), len)
    }
}

/// Puts `value` at `address`.
fn write_u64(segments: &mut [Segment], address: u64, value: u64) -> Result<()> {
    for segment in segments.iter_mut().filter(|s| s.flags & PF_W != 0) {
        let at = address.checked_sub(segment.address).and_then(|at| usize::try_from(at).ok());
        let word = at.and_then(|at| segment.bytes.get_mut(at..)?.first_chunk_mut::<8>());
        if let Some(word) = word {
            *word = value.to_le_bytes();
            return Ok(());
        }
    }
    Err(bad("a relocation is not in writable data"))
}

/// The `.reloc` section for 64-bit words at `places`, which are sorted. Never empty: firmware takes
/// an image without this section for one that cannot be moved.
fn base_relocations(places: &[u64]) -> Vec<u8> {
    const DIR64: u16 = 10;
    let mut out = Vec::new();
    for block in places.chunk_by(|a, b| a / PAGE == b / PAGE) {
        let padded = block.len().next_multiple_of(2);
        out.extend_from_slice(&((block[0] / PAGE * PAGE) as u32).to_le_bytes());
        out.extend_from_slice(&((8 + 2 * padded) as u32).to_le_bytes());
        for place in block {
            out.extend_from_slice(&(DIR64 << 12 | (place % PAGE) as u16).to_le_bytes());
        }
        // Type 0 does nothing.
        out.resize(out.len() + 2 * (padded - block.len()), 0);
    }
    if out.is_empty() {
        out.extend_from_slice(&(BIAS as u32).to_le_bytes());
        out.extend_from_slice(&12_u32.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    out
}

const DOS_HEADER: usize = 64;
const COFF_HEADER: usize = 24;
const OPTIONAL_HEADER: usize = 240;
const SECTION_HEADER: usize = 40;

struct Section<'a> {
    name: &'static [u8],
    address: u64,
    memory: u64,
    bytes: &'a [u8],
    flags: u32,
}

fn write(segments: &[Segment], relocations: &[u8], entry: u64) -> Vec<u8> {
    const CODE: u32 = 0x20;
    const DATA: u32 = 0x40;
    const DISCARDABLE: u32 = 0x0200_0000;
    const EXECUTE: u32 = 0x2000_0000;
    const READ: u32 = 0x4000_0000;
    const WRITE: u32 = 0x8000_0000;
    let mut sections: Vec<Section> = segments
        .iter()
        .map(|s| {
            let (name, flags): (&[u8], u32) = match (s.flags & PF_X, s.flags & PF_W) {
                (PF_X, _) => (b".text", CODE | EXECUTE | READ),
                (_, PF_W) => (b".data", DATA | READ | WRITE),
                _ => (b".rodata", DATA | READ),
            };
            Section { name, address: s.address, memory: s.memory, bytes: &s.bytes, flags }
        })
        .collect();
    let end = |s: &Section| (s.address + s.memory).next_multiple_of(PAGE);
    sections.push(Section {
        name: b".reloc",
        address: sections.last().map_or(BIAS, end),
        memory: relocations.len() as u64,
        bytes: relocations,
        flags: DATA | DISCARDABLE | READ,
    });
    let size_of_image = sections.last().map_or(0, end);
    let reloc = &sections[sections.len() - 1];
    let of_code = |is_code: bool| -> u32 {
        let chosen = sections.iter().filter(|s| (s.flags & CODE != 0) == is_code);
        chosen.map(|s| s.bytes.len().next_multiple_of(FILE_ALIGNMENT) as u32).sum()
    };
    let code_at = sections.iter().find(|s| s.flags & CODE != 0).map_or(0, |s| s.address);
    let headers = DOS_HEADER + COFF_HEADER + OPTIONAL_HEADER + SECTION_HEADER * sections.len();
    let headers = headers.next_multiple_of(FILE_ALIGNMENT);

    let mut out = vec![0; DOS_HEADER];
    out[..2].copy_from_slice(b"MZ");
    out[60..].copy_from_slice(&(DOS_HEADER as u32).to_le_bytes());
    out.extend_from_slice(b"PE\0\0");
    let mut put = |value: u64, len: usize| out.extend_from_slice(&value.to_le_bytes()[..len]);
    put(0x8664, 2);
    put(sections.len() as u64, 2);
    put(0, 4); // no time: same input, same bytes
    put(0, 8); // no symbols
    put(OPTIONAL_HEADER as u64, 2);
    // Executable; without line numbers, local symbols and debug information; any address.
    put(0x022e, 2);

    put(0x20b, 2); // PE32+
    put(0, 2); // linker version
    put(of_code(true).into(), 4);
    put(of_code(false).into(), 4);
    put(0, 4); // no uninitialised data of its own
    put(entry, 4);
    put(code_at, 4);
    put(0, 8); // image base: base relocations count from here
    put(PAGE, 4);
    put(FILE_ALIGNMENT as u64, 4);
    put(0, 8); // operating system and image version
    put(0, 4); // subsystem version
    put(0, 4);
    put(size_of_image, 4);
    put(headers as u64, 4);
    put(0, 4); // checksum: firmware does not look at it
    put(10, 2); // subsystem: EFI application
    // High-entropy addresses, may be moved, does not execute data: firmware that keeps W^X needs
    // the last.
    put(0x0160, 2);
    // Stack and heap sizes: not for EFI.
    (0..4).for_each(|_| put(0, 8));
    put(0, 4);
    put(16, 4); // data directories
    for directory in 0..16 {
        let (address, len) = if directory == 5 { (reloc.address, reloc.memory) } else { (0, 0) };
        put(address, 4);
        put(len, 4);
    }

    let mut at = headers;
    for section in &sections {
        let len = section.bytes.len().next_multiple_of(FILE_ALIGNMENT);
        let mut name = [0; 8];
        name[..section.name.len()].copy_from_slice(section.name);
        out.extend_from_slice(&name);
        let mut put = |value: u64, len: usize| out.extend_from_slice(&value.to_le_bytes()[..len]);
        put(section.memory, 4);
        put(section.address, 4);
        put(len as u64, 4);
        put(if len == 0 { 0 } else { at as u64 }, 4);
        put(0, 8);
        put(0, 4);
        put(section.flags.into(), 4);
        at += len;
    }
    out.resize(headers, 0);
    for section in &sections {
        out.extend_from_slice(section.bytes);
        out.resize(out.len().next_multiple_of(FILE_ALIGNMENT), 0);
    }
    out
}

fn slice(bytes: &[u8], at: u64, len: u64) -> Result<&[u8]> {
    let range = usize::try_from(at).ok().zip(at.checked_add(len).and_then(|e| e.try_into().ok()));
    range.and_then(|(at, end)| bytes.get(at..end)).ok_or_else(|| bad("cut off"))
}

#[cfg(test)]
mod tests;
