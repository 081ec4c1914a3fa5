//! Unified kernel images: the systemd stub with kernel, initramfs and texts as further sections
//! (UAPI.5, Unified Kernel Image; PE/COFF specification, section 3).

use crate::{Error, Result};

/// What a kernel image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `linuxx64.efi.stub` of systemd.
    pub stub: &'a [u8],
    /// Content of os-release.
    pub os_release: &'a str,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Kernel release.
    pub uname: &'a str,
    /// The kernel, an EFI program itself.
    pub linux: &'a [u8],
    /// The initramfs.
    pub initrd: &'a [u8],
}

const INITIALIZED: u32 = 0x4000_0040;
/// The stub starts the kernel in place when it can.
const CODE: u32 = 0x4000_0020;
/// Bytes that are enough to read every header of a PE file.
pub const HEADER_LEN: usize = 4096;
const SECTION_HEADER_LEN: usize = 40;
/// The optional header up to and including the fields that are used here.
const OPTIONAL_LEN: usize = 152;
/// More than any EFI program has, and few enough for [`HEADER_LEN`].
const MAX_SECTIONS: usize = 64;

/// A section of a PE file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name with the dot.
    pub name: String,
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes in the file that mean something.
    pub len: u64,
    virtual_address: u32,
    virtual_size: u32,
    raw_size: u32,
}

/// The headers of a PE32+ file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pe {
    /// Offset of the COFF header, after the signature.
    coff: usize,
    section_alignment: u32,
    file_alignment: u32,
    image_size: u32,
    headers_size: u32,
    sections: Vec<Section>,
}

impl Pe {
    /// Reads the headers out of the first bytes of a file. `None` when it is not PE32+, or
    /// larger than anything Berth makes.
    fn parse(head: &[u8]) -> Option<Pe> {
        let coff = (u32_at(head, 0x3c)? as usize).checked_add(4)?;
        let optional = coff.checked_add(20)?;
        let known = head.get(..2)? == b"MZ"
            && head.get(coff - 4..coff)? == b"PE\0\0"
            && u16_at(head, optional)? == 0x20b;
        let count = usize::from(u16_at(head, coff + 2)?);
        let known = known && usize::from(u16_at(head, coff + 16)?) >= OPTIONAL_LEN;
        if !known || count > MAX_SECTIONS {
            return None;
        }
        let table = optional + usize::from(u16_at(head, coff + 16)?);
        let section = |i: usize| {
            let header = head.get(table + i * SECTION_HEADER_LEN..)?;
            let name = header.get(..8)?.split(|&b| b == 0).next()?;
            let (virtual_size, raw_size) = (u32_at(header, 8)?, u32_at(header, 16)?);
            Some(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                offset: u64::from(u32_at(header, 20)?),
                len: u64::from(virtual_size.min(raw_size)),
                virtual_address: u32_at(header, 12)?,
                virtual_size,
                raw_size,
            })
        };
        Some(Pe {
            coff,
            section_alignment: u32_at(head, optional + 32)?,
            file_alignment: u32_at(head, optional + 36)?,
            image_size: u32_at(head, optional + 56)?,
            headers_size: u32_at(head, optional + 60)?,
            sections: (0..count).map(section).collect::<Option<_>>()?,
        })
    }

    const fn optional(&self) -> usize {
        self.coff + 20
    }

    fn find(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    fn bytes<'a>(&self, file: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let section = self.find(name)?;
        let start = usize::try_from(section.offset).ok()?;
        file.get(start..start.checked_add(usize::try_from(section.len).ok()?)?)
    }
}

/// Puts a kernel image together.
pub fn assemble(parts: &Parts<'_>) -> Result<Vec<u8>> {
    let bad_stub = |why: &str| Error::corrupt(format!("the EFI stub cannot be used: {why}"));
    let stub = Pe::parse(parts.stub).ok_or_else(|| bad_stub("it is not a PE32+ file"))?;
    let kernel =
        Pe::parse(parts.linux).ok_or_else(|| Error::corrupt("the kernel is not an EFI program"))?;
    let aligned = |alignment: u32| alignment.is_power_of_two() && alignment <= 1 << 16;
    let aligned = aligned(stub.section_alignment) && aligned(stub.file_alignment);
    if !aligned || stub.sections.is_empty() {
        return Err(bad_stub("its sections are not aligned"));
    }
    let end = stub.sections.iter().map(|s| s.offset + u64::from(s.raw_size)).max().unwrap_or(0);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    let mut out = parts.stub.get(..end).ok_or_else(|| bad_stub("it is cut short"))?.to_vec();

    let sbat = merge_sbat(&stub, parts.stub, &kernel, parts.linux);
    let mut new: Vec<(&str, &[u8], u32, u32)> = vec![
        (".osrel", parts.os_release.as_bytes(), 0, INITIALIZED),
        (".cmdline", parts.cmdline.as_bytes(), 0, INITIALIZED),
        (".uname", parts.uname.as_bytes(), 0, INITIALIZED),
    ];
    match stub.find(".sbat") {
        Some(section) if sbat.len() <= section.raw_size as usize => {
            replace(&mut out, &stub, section, &sbat);
        }
        Some(_) => return Err(bad_stub("its .sbat section has no room for that of the kernel")),
        None if sbat.is_empty() => {}
        None => new.push((".sbat", &sbat, 0, INITIALIZED)),
    }
    // The kernel unpacks itself behind its own end when it runs in place: it needs all that it
    // says it does.
    new.push((".linux", parts.linux, kernel.image_size, CODE));
    new.push((".initrd", parts.initrd, 0, INITIALIZED));

    let table = stub.optional() + usize::from(u16_at(&out, stub.coff + 16).unwrap_or(0));
    let mut header_at = table + stub.sections.len() * SECTION_HEADER_LEN;
    let header_end = header_at + new.len() * SECTION_HEADER_LEN;
    let first = stub.sections.iter().map(|s| s.offset).filter(|o| *o > 0).min().unwrap_or(0);
    let room = u64::from(stub.headers_size).min(first);
    if header_end as u64 > room || out[header_at..header_end].iter().any(|&byte| byte != 0) {
        return Err(bad_stub("it has no room for more section headers"));
    }

    let too_large = || Error::refused("the kernel image is larger than PE files can be");
    let last =
        stub.sections.iter().map(|s| u64::from(s.virtual_address) + u64::from(s.virtual_size));
    let mut address = last.max().unwrap_or(0);
    let mut added = 0_u64;
    for (name, content, min_size, flags) in &new {
        address = address.next_multiple_of(u64::from(stub.section_alignment));
        out.resize(out.len().next_multiple_of(stub.file_alignment as usize), 0);
        let (at, virtual_size) = (out.len() as u64, (content.len() as u64).max((*min_size).into()));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(stub.file_alignment as usize), 0);
        let raw_size = out.len() as u64 - at;
        let header = &mut out[header_at..header_at + SECTION_HEADER_LEN];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in [(8, virtual_size), (12, address), (16, raw_size), (20, at)] {
            let value = u32::try_from(value).map_err(|_| too_large())?;
            header[field..field + 4].copy_from_slice(&value.to_le_bytes());
        }
        header[36..40].copy_from_slice(&flags.to_le_bytes());
        header_at += SECTION_HEADER_LEN;
        address += virtual_size;
        added += raw_size;
    }
    let image_size = address.next_multiple_of(u64::from(stub.section_alignment));
    let optional = stub.optional();
    let data_size = u64::from(u32_at(&out, optional + 8).unwrap_or(0)) + added;
    for (field, value) in [(8, data_size), (56, image_size)] {
        let value = u32::try_from(value).map_err(|_| too_large())?;
        out[optional + field..optional + field + 4].copy_from_slice(&value.to_le_bytes());
    }
    let count = (stub.sections.len() + new.len()) as u16;
    out[stub.coff + 2..stub.coff + 4].copy_from_slice(&count.to_le_bytes());
    // Signatures of the stub, if any, were at its end and are gone.
    out[optional + 144..optional + 152].fill(0);
    let checksum_at = optional + 64;
    out[checksum_at..checksum_at + 4].fill(0);
    let checksum = checksum(&out);
    out[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
    Ok(out)
}

/// Lines of both, each once, the stub's first. Its own `sbat` line heads it.
fn merge_sbat(stub: &Pe, stub_bytes: &[u8], kernel: &Pe, kernel_bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = Vec::new();
    for (pe, bytes) in [(stub, stub_bytes), (kernel, kernel_bytes)] {
        let section = pe.bytes(bytes, ".sbat").unwrap_or_default();
        for line in section.split(|&b| b == b'\n' || b == 0) {
            // Each component once; `sbat,1,` has the version of the format.
            let component = |line: &[u8]| line.split(|&b| b == b',').next().map(<[u8]>::to_vec);
            if !line.is_empty() && !lines.iter().any(|have| component(have) == component(line)) {
                lines.push(line);
            }
        }
    }
    lines.into_iter().flat_map(|line| [line, b"\n"]).flatten().copied().collect()
}

fn replace(out: &mut [u8], pe: &Pe, section: &Section, content: &[u8]) {
    let start = section.offset as usize;
    out[start..start + section.raw_size as usize].fill(0);
    out[start..start + content.len()].copy_from_slice(content);
    let index = pe.sections.iter().position(|s| s == section).unwrap_or(0);
    let table = pe.optional() + usize::from(u16_at(out, pe.coff + 16).unwrap_or(0));
    let size_at = table + index * SECTION_HEADER_LEN + 8;
    out[size_at..size_at + 4].copy_from_slice(&(content.len() as u32).to_le_bytes());
}

/// The checksum of PE files: a one's complement sum of 16-bit words, and the length.
fn checksum(file: &[u8]) -> u32 {
    // Carries are folded at the end; 2^48 words could not overflow the sum.
    let words =
        file.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 8);
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u32).wrapping_add(file.len() as u32)
}

/// The sections of the PE file that begins with `head`, at least [`HEADER_LEN`] bytes of it where
/// it is that long. `None` when it is no PE32+ file or a section reaches beyond `file_len`.
pub fn read_sections(head: &[u8], file_len: u64) -> Option<Vec<Section>> {
    let pe = Pe::parse(head)?;
    let inside = |s: &Section| s.offset.checked_add(s.len).is_some_and(|end| end <= file_len);
    pe.sections.iter().all(inside).then_some(pe.sections)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let low = u16_at(bytes, at)?;
    Some(u32::from(low) | u32::from(u16_at(bytes, at.checked_add(2)?)?) << 16)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A PE file with these sections, as small as can be.
    pub(crate) fn sample_pe(sections: &[(&str, &[u8])], image_size: u32) -> Vec<u8> {
        let mut out = vec![0; 0x400];
        out[..2].copy_from_slice(b"MZ");
        out[0x3c] = 0x40;
        out[0x40..0x44].copy_from_slice(b"PE\0\0");
        let (coff, optional) = (0x44, 0x58);
        out[coff + 2] = sections.len() as u8;
        out[coff + 16] = 240;
        out[optional..optional + 2].copy_from_slice(&0x20b_u16.to_le_bytes());
        let put = |out: &mut Vec<u8>, at: usize, value: u32| {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        for (field, value) in [(32, 0x1000), (36, 0x200), (56, image_size), (60, 0x400)] {
            put(&mut out, optional + field, value);
        }
        for (i, (name, content)) in sections.iter().enumerate() {
            let header = optional + 240 + i * 40;
            out[header..header + name.len()].copy_from_slice(name.as_bytes());
            let at = out.len() as u32;
            let raw = (content.len() as u32).next_multiple_of(0x200);
            let address = 0x1000 * (i as u32 + 1);
            for (field, value) in [(8, content.len() as u32), (12, address), (16, raw), (20, at)] {
                put(&mut out, header + field, value);
            }
            out.extend_from_slice(content);
            out.resize((at + raw) as usize, 0);
        }
        out
    }

    fn assembled() -> Vec<u8> {
        let stub = sample_pe(&[(".text", b"code"), (".sbat", b"sbat,1,x\nstub,1\n")], 0x3000);
        let linux = sample_pe(&[(".sbat", b"sbat,1,x\nlinux,2\n")], 0x12345);
        assemble(&Parts {
            stub: &stub,
            os_release: "ID=berth\n",
            cmdline: "quiet",
            uname: "6.1",
            linux: &linux,
            initrd: &[9; 1000],
        })
        .expect("a kernel image")
    }

    #[test]
    fn sections_come_back_in_order_without_overlap() {
        let uki = assembled();
        let sections = read_sections(&uki[..HEADER_LEN.min(uki.len())], uki.len() as u64);
        let sections = sections.expect("sections");
        let names: Vec<_> = sections.iter().map(|s| s.name.as_str()).collect();
        let expected = [".text", ".sbat", ".osrel", ".cmdline", ".uname", ".linux", ".initrd"];
        assert_eq!(names, expected);
        let content = |name: &str| {
            let s = sections.iter().find(|s| s.name == name).expect(name);
            &uki[s.offset as usize..][..s.len as usize]
        };
        assert_eq!(content(".cmdline"), b"quiet");
        assert_eq!(content(".initrd"), [9; 1000]);
        assert_eq!(content(".sbat"), b"sbat,1,x\nstub,1\nlinux,2\n");
        for pair in sections.windows(2) {
            assert!(pair[0].offset + u64::from(pair[0].raw_size) <= pair[1].offset);
            assert!(pair[0].virtual_address + pair[0].virtual_size <= pair[1].virtual_address);
        }
        // The kernel's own idea of its size, not the bytes of its file.
        assert_eq!(sections[5].virtual_size, 0x12345);
        let pe = Pe::parse(&uki).expect("a PE file");
        let last = &sections[6];
        let end = last.virtual_address + last.virtual_size;
        assert_eq!(pe.image_size, end.next_multiple_of(0x1000));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let stub = sample_pe(&[(".text", b"x")], 0x2000);
        let full: Vec<_> = (0..14).map(|_| (".text", &b"x"[..])).collect();
        let full = sample_pe(&full, 0x2000);
        let cases: [(&[u8], &[u8], &str); 4] = [
            (b"MZ", &stub, "the EFI stub cannot be used: it is not a PE32+ file"),
            (&stub[..stub.len() - 1], &stub, "the EFI stub cannot be used: it is cut short"),
            (&stub, b"\x1f\x8b", "the kernel is not an EFI program"),
            (&full, &stub, "the EFI stub cannot be used: it has no room for more section headers"),
        ];
        for (stub, linux, expected) in cases {
            let parts = Parts { stub, os_release: "", cmdline: "", uname: "", linux, initrd: b"" };
            assert_eq!(assemble(&parts).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0..1024_usize, value: u8, cut in 0..4096_usize) {
            let mut uki = assembled();
            uki[at] = value;
            let head = &uki[..cut.min(uki.len())];
            let _ = read_sections(head, 5000);
            let stub = sample_pe(&[(".text", b"x")], 0x2000);
            for (stub, linux) in [(head, &stub[..]), (&stub[..], head)] {
                let _ = assemble(&Parts {
                    stub, os_release: "", cmdline: "", uname: "", linux, initrd: b"",
                });
            }
        }
    }
}
