//! What the slot picker says of this boot: variables of the Boot Loader Interface.

use contract::Slot;
use contract::gpt::Guid;
use std::fs;

const FOLDER: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What the slot picker said. Both are `None` when the kernel was started without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// The GPT identity of the ESP that the picker was loaded from: it names the disk.
    pub esp: Option<Guid>,
    /// The slot that it started.
    pub slot: Option<Slot>,
}

impl Picked {
    /// Reads the variables.
    pub fn read() -> Picked {
        Picked {
            esp: variable("LoaderDevicePartUUID").as_deref().and_then(parse_guid),
            slot: variable("LoaderEntrySelected").as_deref().and_then(parse_slot),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    parse_variable(&fs::read(format!("{FOLDER}/{name}-{VENDOR}")).ok()?)
}

/// Four bytes of attributes, then UTF-16 that may end with NUL.
fn parse_variable(bytes: &[u8]) -> Option<String> {
    let (pairs, rest) = bytes.get(4..)?.as_chunks::<2>();
    let units = pairs.iter().map(|pair| u16::from_le_bytes(*pair));
    let text: Option<String> =
        char::decode_utf16(units.take_while(|&unit| unit != 0)).map(Result::ok).collect();
    text.filter(|_| rest.is_empty())
}

fn parse_guid(text: &str) -> Option<Guid> {
    let parts: Vec<&str> = text.split('-').collect();
    let shape = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    let digits = parts.concat();
    if !shape || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(Guid::from_u128)
}

fn parse_slot(text: &str) -> Option<Slot> {
    Slot::from_name(text.strip_prefix("slot-")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_attributes_and_utf16() {
        let bytes = |text: &str| {
            let units = text.encode_utf16().flat_map(u16::to_le_bytes);
            [6, 0, 0, 0].into_iter().chain(units).collect::<Vec<u8>>()
        };
        assert_eq!(parse_variable(&bytes("slot-b\0")).as_deref(), Some("slot-b"));
        assert_eq!(parse_variable(&bytes("slot-b")).as_deref(), Some("slot-b"));
        assert_eq!(parse_variable(&[6, 0, 0, 0, 1]), None);
        assert_eq!(parse_variable(&[6, 0, 0, 0, 0x00, 0xd8]), None);
        assert_eq!(parse_variable(&[6, 0]), None);
    }

    #[test]
    fn a_guid_is_read_in_either_case_and_nothing_else_is() {
        let guid = Guid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);
        assert_eq!(parse_guid("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"), Some(guid));
        assert_eq!(parse_guid(&guid.to_string()), Some(guid));
        for bad in ["", "C12A7328F81F11D2BA4B00A0C93EC93B", "+12A7328-F81F-11D2-BA4B-00A0C93EC93B"]
        {
            assert_eq!(parse_guid(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_have_entry_names() {
        assert_eq!(parse_slot("slot-a"), Some(Slot::A));
        assert_eq!(parse_slot("slot-c"), None);
        assert_eq!(parse_slot("a"), None);
    }
}
