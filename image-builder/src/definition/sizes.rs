//! `[partitions]`: how large they are, and in which sectors the table counts.

use contract::gpt::SECTOR_SIZES;
use contract::layout::{Partition, Slot};
use serde::Deserialize;

/// Partition sizes in bytes, multiples of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The ESP.
    pub esp: u64,
    /// Each boot partition.
    pub boot: u64,
    /// Each root partition.
    pub root: u64,
    /// Each verity partition.
    pub verity: u64,
    /// The data partition of the image file, before it grows at first boot.
    pub data: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            esp: Partition::Esp.default_size(),
            boot: Partition::Boot(Slot::A).default_size(),
            root: Partition::Root(Slot::A).default_size(),
            verity: Partition::Verity(Slot::A).default_size(),
            data: Partition::Data.default_size(),
        }
    }
}

impl Sizes {
    /// Size in bytes of `partition`.
    pub fn of(&self, partition: Partition) -> u64 {
        match partition {
            Partition::Esp => self.esp,
            Partition::State => Partition::State.default_size(),
            Partition::Boot(_) => self.boot,
            Partition::Root(_) => self.root,
            Partition::Verity(_) => self.verity,
            Partition::Data => self.data,
        }
    }
}

/// `[partitions]` as it was written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct RawPartitions {
    sector_size: Option<u64>,
    esp: Option<String>,
    boot: Option<String>,
    root: Option<String>,
    verity: Option<String>,
    data: Option<String>,
}

impl RawPartitions {
    /// Sizes, and bytes of a sector. An error is the key that is wrong, and why.
    pub(super) fn validate(&self) -> Result<(Sizes, u64), (String, String)> {
        let mut sizes = Sizes::default();
        for (key, text, size) in [
            ("esp", &self.esp, &mut sizes.esp),
            ("boot", &self.boot, &mut sizes.boot),
            ("root", &self.root, &mut sizes.root),
            ("verity", &self.verity, &mut sizes.verity),
            ("data", &self.data, &mut sizes.data),
        ] {
            if let Some(text) = text {
                *size = parse_size(text)
                    .map_err(|why| (format!("partitions.{key}"), format!("`{text}` is {why}")))?;
            }
        }
        let sector_size = self.sector_size.unwrap_or(SECTOR_SIZES[0]);
        if !SECTOR_SIZES.contains(&sector_size) {
            let why = format!("{sector_size} is neither 512 nor 4096");
            return Err(("partitions.sector-size".to_owned(), why));
        }
        Ok((sizes, sector_size))
    }
}

/// `300MiB` or `2GiB`.
fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = match text.split_once(|c: char| !c.is_ascii_digit()) {
        Some((number, _)) => (number, text[number.len()..].trim()),
        None => (text, ""),
    };
    let unit = match unit {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("no size like 300MiB or 2GiB"),
    };
    let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match size {
        Some(size) if (1 << 20..=1 << 50).contains(&size) => Ok(size),
        _ => Err("not between 1MiB and 1048576GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("300MiB"), Ok(300 << 20));
        assert_eq!(parse_size("2 GiB"), Ok(2 << 30));
        assert!(parse_size("2GB").is_err());
        assert!(parse_size("99999999999GiB").is_err());
    }
}
