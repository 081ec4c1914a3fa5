//! The `.modinfo` section of a kernel module: `key=value` strings, NUL between them.
//!
//! Only the ELF headers and this section are read. Modules are a hundred megabytes together and
//! their modinfo is one.

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::tree::Content;
use crate::{Error, Result};
use std::io::Read;

/// The largest module, section table or section that is believed.
const MODULE_LIMIT: u64 = 64 << 20;
const TABLE_LIMIT: u64 = 1 << 20;
const SECTION_LIMIT: u64 = 4 << 20;

/// What a module says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// The pairs in the order of the file.
    pub pairs: Vec<(String, String)>,
}

impl ModInfo {
    /// All values of `key`.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn parse(section: &[u8]) -> ModInfo {
        let pairs = section
            .split(|&b| b == 0)
            .filter_map(|bytes| {
                let (key, value) = std::str::from_utf8(bytes).ok()?.split_once('=')?;
                Some((key.to_owned(), value.to_owned()))
            })
            .collect();
        ModInfo { pairs }
    }
}

/// Reads the modinfo of the module at `path`, which is compressed when the name says `.xz`.
pub fn read(path: &str, content: &Content) -> Result<ModInfo> {
    if path.ends_with(".xz") {
        let mut bytes = Vec::new();
        liblzma::read::XzDecoder::new(content.reader())
            .take(MODULE_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(Error::io("decompress", path))?;
        return read(path.trim_end_matches(".xz"), &Content::from_bytes(bytes));
    }
    let section = section(content, ".modinfo")?
        .ok_or_else(|| Error::corrupt(format!("{path} is not a kernel module")))?;
    Ok(ModInfo::parse(&section))
}

/// The bytes of the section called `name` of a little-endian 64-bit ELF file; `None` when it is
/// not such a file or has no such section.
fn section(content: &Content, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(header) = range(content, 0, 64, 64)? else { return Ok(None) };
    let (table_at, entry_len) = (u64_at(&header, 40), u16_at(&header, 58));
    let (count, names_index) = (u16_at(&header, 60), u16_at(&header, 62));
    if header[..6] != *b"\x7fELF\x02\x01" || entry_len != 64 || names_index >= count {
        return Ok(None);
    }
    let Some(table) = range(content, table_at, u64::from(count) * 64, TABLE_LIMIT)? else {
        return Ok(None);
    };
    let place = |header: &[u8]| (u64_at(header, 24), u64_at(header, 32));
    let (at, len) = place(&table[usize::from(names_index) * 64..]);
    let Some(names) = range(content, at, len, TABLE_LIMIT)? else { return Ok(None) };
    for header in table.chunks_exact(64) {
        let start = u32_at(header, 0) as usize;
        let found = names.get(start..).and_then(|rest| rest.split(|&b| b == 0).next());
        if found == Some(name.as_bytes()) {
            let (at, len) = place(header);
            return range(content, at, len, SECTION_LIMIT);
        }
    }
    Ok(None)
}

/// `None` when the range does not lie in the file or is longer than `limit`.
fn range(content: &Content, at: u64, len: u64, limit: u64) -> Result<Option<Vec<u8>>> {
    if len > limit || at.checked_add(len).is_none_or(|end| end > content.len()) {
        return Ok(None);
    }
    let mut bytes = vec![0; len as usize];
    content.read_exact_at(&mut bytes, at)?;
    Ok(Some(bytes))
}

/// A module with nothing but modinfo, for tests.
#[cfg(test)]
pub(crate) fn sample_module(modinfo: &[&str]) -> Vec<u8> {
    let info: Vec<u8> = modinfo.iter().flat_map(|s| s.bytes().chain([0])).collect();
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64, 64 + info.len());
    let table_at = names_at + names.len();
    let mut out = vec![0; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    out[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
    out[58..60].copy_from_slice(&64_u16.to_le_bytes());
    out[60..62].copy_from_slice(&3_u16.to_le_bytes());
    out[62..64].copy_from_slice(&2_u16.to_le_bytes());
    out.extend_from_slice(&info);
    out.extend_from_slice(names);
    for (name, at, len) in [(0, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(name as u32).to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
        out.extend_from_slice(&header);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_read_in_order() {
        let bytes = sample_module(&["name=ext4", "alias=fs-ext4", "alias=ext3", "odd"]);
        let info = read("ext4.ko", &Content::from_bytes(bytes)).expect("a module");
        assert_eq!(info.values("alias").collect::<Vec<_>>(), ["fs-ext4", "ext3"]);
        assert_eq!(info.pairs.len(), 3);
    }

    #[test]
    fn what_is_no_module_is_named() {
        let error = read("a/b.ko", &Content::from_bytes(*b"no ELF file")).unwrap_err();
        assert_eq!(error.to_string(), "a/b.ko is not a kernel module");
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0..200_usize, value: u8, cut in 0..300_usize) {
            let mut bytes = sample_module(&["name=x", "depends=y"]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(cut);
            let _ = read("x.ko", &Content::from_bytes(bytes));
        }
    }
}
