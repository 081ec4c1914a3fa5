//! The kernel command line.

use crate::error::{Error, On};
use contract::layout;

/// What it says to `init`. Unknown words belong to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    words: Vec<String>,
}

impl Cmdline {
    /// Reads the command line of the running kernel.
    pub fn read() -> Result<Cmdline, Error> {
        let path = "/proc/cmdline";
        Ok(Cmdline::parse(&std::fs::read_to_string(path).on("read", path)?))
    }

    /// From its text.
    pub fn parse(text: &str) -> Cmdline {
        Cmdline { words: text.split_whitespace().map(str::to_owned).collect() }
    }

    /// The value of the last `key=value`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether `key` stands there, alone or with a value.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some() || self.words.iter().any(|word| word == key)
    }

    /// The root hash that names the root filesystem.
    pub fn root_hash(&self) -> Result<[u8; 32], Error> {
        let key = layout::CMDLINE_ROOT_HASH;
        let invalid = |problem: &str| Error::Invalid {
            object: "kernel command line".to_owned(),
            problem: format!("{key}{problem}"),
        };
        let text = self.value(key).ok_or_else(|| invalid("= is missing"))?;
        parse_hex(text).ok_or_else(|| invalid(" is not 64 hexadecimal digits"))
    }
}

/// `N` bytes from twice as many hexadecimal digits.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

pub use contract::hex::encode as hex;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_values() {
        let cmdline = Cmdline::parse("quiet berth.x=1 berth.x=2 flag\n");
        assert_eq!(cmdline.value("berth.x"), Some("2"));
        assert!(cmdline.has("flag") && cmdline.has("berth.x"));
        assert!(!cmdline.has("fla") && !cmdline.has("berth"));
    }

    #[test]
    fn the_root_hash_is_checked() {
        let hash = |value: &str| Cmdline::parse(&format!("berth.roothash={value}")).root_hash();
        assert_eq!(hash(&"0f".repeat(32)).ok(), Some([15; 32]));
        for bad in ["", "0f", &"0g".repeat(32), &"+f".repeat(32), &"0f".repeat(33)] {
            assert!(hash(bad).is_err(), "{bad}");
        }
        assert!(Cmdline::parse("quiet").root_hash().is_err());
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
