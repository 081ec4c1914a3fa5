//! Domain names as they lie in messages: labels with their lengths (RFC 1035, section 3.1). Lists
//! of them are told by DHCP (RFC 3397, RFC 3646) and by routers (RFC 8106).

/// Most domains that are kept of a list: each short name is looked up in each of them.
const MAX_DOMAINS: usize = 8;
/// Longest name as text (RFC 1035, section 3.1).
const LONGEST: usize = 253;

/// A name that may go into a configuration file: letters, digits, hyphens and dots.
pub fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    (text.len() <= LONGEST && text.split('.').all(label)).then(|| text.to_owned())
}

/// The names in a list. What is malformed ends it, what is no name is left out; zeros pad it.
pub fn list(bytes: &[u8]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut at = 0;
    while at < bytes.len() && names.len() < MAX_DOMAINS {
        let Some((text, next)) = read(bytes, at) else { break };
        names.extend(name(&text).filter(|name| !names.contains(name)));
        at = next;
    }
    names
}

/// The name at `at`, and where the next one is. A pointer leads to what stands before it, so that
/// names end.
fn read(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut here, mut lowest, mut next) = (at, at, None);
    let mut text = String::new();
    loop {
        match *bytes.get(here)? {
            0 => return Some((text, next.unwrap_or(here + 1))),
            len @ 1..=63 => {
                let label = bytes.get(here + 1..here + 1 + usize::from(len))?;
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(std::str::from_utf8(label).ok()?);
                here += 1 + label.len();
            }
            high @ 192.. => {
                let low = *bytes.get(here + 1)?;
                next.get_or_insert(here + 2);
                here = usize::from(high & 0x3f) << 8 | usize::from(low);
                if here >= lowest {
                    return None;
                }
                lowest = here;
            }
            _ => return None,
        }
        if text.len() > LONGEST {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_read_with_and_without_pointers() {
        let cases: [(&[u8], &[&str]); 9] = [
            (
                b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04",
                &["eng.apple.com", "marketing.apple.com"],
            ),
            (b"\x01a\0\x01b\0\0\0", &["a", "b"]),
            // Twice, and not a name.
            (b"\x01a\0\x01a\0\x01_\0\x01b\0", &["a", "b"]),
            // Cut short, a pointer to itself, and one ahead.
            (b"\x01a\0\x05b", &["a"]),
            (b"\x01a\0\xc0\x03", &["a"]),
            (b"\xc0\x02\x01a\0", &[]),
            (b"\x01a\xc0\x00", &[]),
            (b"\x40a\0", &[]),
            (b"", &[]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(list(bytes), expected, "{bytes:?}");
        }
        assert_eq!(
            list(&b"\x01a\0\x01b\0\x01c\0\x01d\0\x01e\0\x01f\0\x01g\0\x01h\0\x01i\0"[..]).len(),
            8
        );
    }

    #[test]
    fn a_name_cannot_grow_without_end() {
        let mut bytes = Vec::new();
        for _ in 0..5 {
            bytes.push(63);
            bytes.extend([b'x'; 63]);
        }
        bytes.push(0);
        assert_eq!(list(&bytes), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn whatever_is_read_may_stand_in_a_file(
            bytes in proptest::collection::vec(prop_oneof![0..5u8, Just(0xc0), any::<u8>()], 0..80),
        ) {
            let names = list(&bytes);
            prop_assert!(names.len() <= MAX_DOMAINS);
            for found in names {
                prop_assert_eq!(name(&found), Some(found));
            }
        }
    }
}
