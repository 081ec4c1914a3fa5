//! Patterns of `modules.alias`: `*`, `?` and `[...]`, as fnmatch(3) knows them. The builder plans
//! with them which modules belong together, `init` finds by them what the hardware needs.
//!
//! `-` and `_` are the same outside of brackets, as for kmod.

/// Whether `text` as a whole matches `pattern`. Takes at most `pattern * text` steps.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last star does not match: one byte further.
    let mut retry = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        match element(&pattern[p..], text[t]) {
            Some(len) => (p, t) = (p + len, t + 1),
            None => match retry {
                Some((after_star, from)) => {
                    (p, t) = (after_star, from + 1);
                    retry = Some((after_star, from + 1));
                }
                None => return false,
            },
        }
    }
}

/// Length of the first element of `pattern` when it matches `byte`.
fn element(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => set(pattern, byte),
        &first => (normal(first) == normal(byte)).then_some(1),
    }
}

/// A set such as `[0-9A-F]`; without its end it matches nothing.
fn set(pattern: &[u8], byte: u8) -> Option<usize> {
    let len = pattern.iter().skip(2).position(|&b| b == b']')? + 3;
    let inner = &pattern[1..len - 1];
    let (negated, inner) = match inner {
        [b'!' | b'^', rest @ ..] if !rest.is_empty() => (true, rest),
        _ => (false, inner),
    };
    let mut found = false;
    let mut rest = inner;
    while let Some(&low) = rest.first() {
        if let [_, b'-', high, ..] = rest {
            found |= (low..=*high).contains(&byte);
            rest = &rest[3..];
        } else {
            found |= low == byte;
            rest = &rest[1..];
        }
    }
    (found != negated).then_some(len)
}

/// `-` and `_` are one character in module names and aliases.
fn normal(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let virtio = "virtio:d00000002v00001AF4";
        let pci = "pci:v00008086d00001234sv00000000sd00000000bc01sc08i02";
        let cases = [
            ("virtio:d00000002v*", virtio, true),
            ("virtio:d00000003v*", virtio, false),
            ("pci:v*d*sv*sd*bc01sc08i02*", pci, true),
            ("pci:v*d*sv*sd*bc01sc06i01*", pci, false),
            ("*", "", true),
            ("*", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a", "", false),
            ("a*", "a", true),
            ("a*b", "ab", true),
            ("a*b*c", "a--b--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("usb:v*dc[0-9]*", "usb:v12dc7", true),
            ("x[0-9A-F]y", "xCy", true),
            ("x[0-9A-F]y", "xGy", false),
            ("x[!0-9]y", "xGy", true),
            ("x[!0-9]y", "x5y", false),
            ("x[]y", "x]y", false),
            ("x[]a]y", "x]y", true),
            ("x[", "x[", false),
            ("crypto-crc32c", "crypto_crc32c", true),
            ("net-pf-16-proto-9", "net_pf_16_proto_9", true),
            ("fs-ext4", "fs-ext4", true),
            ("char-major-10-*", "char_major_10_200", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_matches_itself_and_a_star_in_place_of_any_part(
            text in "[a-z0-9:]{0,24}", from in 0..25_usize, to in 0..25_usize,
        ) {
            let (from, to) = (from.min(to).min(text.len()), from.max(to).min(text.len()));
            proptest::prop_assert!(matches(&text, &text));
            let starred = format!("{}*{}", &text[..from], &text[to..]);
            proptest::prop_assert!(matches(&starred, &text));
        }

        #[test]
        fn no_pattern_panics(pattern in "[a\\[\\]*?!-]{0,12}", text in "[ab-]{0,12}") {
            let _ = matches(&pattern, &text);
        }
    }
}
