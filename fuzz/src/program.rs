//! Programs and kernel modules, out of packages and off disks.

use crate::Target;
use image_builder::elf;
use image_builder::image::uki;
use image_builder::kernel::modinfo;
use image_builder::tree::Content;

pub const TARGETS: &[Target] = &[
    Target { name: "elf", run: needs, samples: elf_samples },
    Target { name: "modinfo", run: module, samples: module_samples },
    Target { name: "pe", run: sections, samples: pe_samples },
];

fn elf_samples() -> Vec<Vec<u8>> {
    vec![small_elf()]
}

/// An interpreter and a dynamic section with one library.
fn small_elf() -> Vec<u8> {
    let mut out = vec![0; 0x200];
    out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (out[16], out[18], out[20]) = (3, 62, 1);
    (out[32], out[52], out[54], out[56]) = (64, 64, 56, 3);
    let mut header = |i: usize, kind: u8, offset: u64, len: u64| {
        let at = 64 + i * 56;
        out[at] = kind;
        out[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        out[at + 16..at + 24].copy_from_slice(&offset.to_le_bytes());
        out[at + 32..at + 40].copy_from_slice(&len.to_le_bytes());
    };
    header(0, 1, 0, 0x200);
    header(1, 3, 0x1c0, 8);
    header(2, 2, 0x180, 0x30);
    // DT_STRTAB, DT_NEEDED, DT_NULL.
    (out[0x180], out[0x188]) = (5, 0xd0);
    (out[0x189], out[0x190], out[0x198]) = (1, 1, 1);
    out[0x1c0..0x1c7].copy_from_slice(b"/lib/ld");
    out[0x1d1..0x1d7].copy_from_slice(b"libc.6");
    out
}

/// Names of libraries are names, not more than the file holds.
fn needs(data: &[u8]) -> bool {
    let Ok(Some(needs)) = elf::needs(&Content::from_bytes(data)) else { return false };
    assert!(needs.libraries.iter().all(|name| name.len() < data.len() && !name.contains('\0')));
    !needs.libraries.is_empty()
}

fn module_samples() -> Vec<Vec<u8>> {
    let (info, names) = (b"name=a\0depends=b\0alias=pci:v*\0", b"\0.modinfo\0.shstrtab\0");
    let mut out = vec![0; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let info_at = out.len();
    out.extend_from_slice(info);
    let names_at = out.len();
    out.extend_from_slice(names);
    let table_at = out.len() as u64;
    for (name, at, len) in [(0, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
        let mut header = [0; 64];
        header[0] = name;
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
        out.extend_from_slice(&header);
    }
    out[40..48].copy_from_slice(&table_at.to_le_bytes());
    (out[58], out[60], out[62]) = (64, 3, 2);
    vec![out]
}

/// No module panics, and what it says of itself is not more than it holds.
fn module(data: &[u8]) -> bool {
    let _ = modinfo::read("x.ko.xz", &Content::from_bytes(data));
    let Ok(info) = modinfo::read("x.ko", &Content::from_bytes(data)) else { return false };
    let said: usize = info.pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(said <= data.len());
    info.pairs.len() == 3
}

fn pe_samples() -> Vec<Vec<u8>> {
    let mut out = vec![0; 0x400];
    out[..2].copy_from_slice(b"MZ");
    out[0x3c] = 0x40;
    out[0x40..0x44].copy_from_slice(b"PE\0\0");
    out[0x44..0x46].copy_from_slice(&0x8664_u16.to_le_bytes());
    (out[0x46], out[0x54]) = (2, 0xf0);
    out[0x58..0x5a].copy_from_slice(&0x20b_u16.to_le_bytes());
    for (i, name) in [&b".linux"[..], b".initrd"].iter().enumerate() {
        let at = 0x148 + i * 40;
        out[at..at + name.len()].copy_from_slice(name);
        (out[at + 8], out[at + 17], out[at + 21]) = (0x20, 2, 2);
    }
    vec![out]
}

/// Every section that is told lies in the file.
fn sections(data: &[u8]) -> bool {
    let sections = uki::read_sections(data, data.len() as u64).unwrap_or_default();
    for section in &sections {
        assert!(section.offset + section.len <= data.len() as u64);
    }
    sections.len() == 2
}
