//! Matching of module aliases, as modprobe does it: shell patterns in which `-` and `_` are the
//! same.

/// Whether `name` is matched by `pattern` (`pci:v00001AF4d*`, `crypto-crc32c`), with `*`, `?` and
/// `[...]` as in fnmatch(3) without flags.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when a guess of what the last `*` takes turns out wrong. Only the last one
    // has to be remembered, so the work is bounded by the product of both lengths.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if n == name.len() && p == pattern.len() {
            return true;
        }
        let step = match (pattern.get(p), name.get(n)) {
            (Some(_), Some(&c)) => one(&pattern[p..], c),
            _ => None,
        };
        match (step, retry) {
            (Some(len), _) => (p, n) = (p + len, n + 1),
            (None, Some((star, taken))) if taken < name.len() => {
                retry = Some((star, taken + 1));
                (p, n) = (star, taken + 1);
            }
            _ => return false,
        }
    }
}

/// Length of the pattern element at the start of `pattern` when it matches `c`.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => bracket(pattern, c),
        p => (fold(p) == fold(c)).then_some(1),
    }
}

fn bracket(pattern: &[u8], c: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = 1 + usize::from(negated);
    let (mut at, mut found) = (first, false);
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return (found != negated).then_some(at + 1);
        }
        match pattern.get(at + 1..at + 3) {
            Some(&[b'-', high]) if high != b']' => {
                found |= (low..=high).contains(&c);
                at += 3;
            }
            _ => {
                found |= low == c;
                at += 1;
            }
        }
    }
}

const fn fold(c: u8) -> u8 {
    if c == b'-' { b'_' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let cases = [
            ("crc32c", "crc32c", true),
            ("crypto-crc32c", "crypto_crc32c", true),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000001v00001AF4", false),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001b36d00000010sv1sd1bc01sc08i02", true),
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001b36d00000010sv1sd1bc01sc06i01", false),
            ("usb:v1d[0-4]*", "usb:v1d3x", true),
            ("usb:v1d[0-4]*", "usb:v1d5x", false),
            ("usb:v1d[!0-4]*", "usb:v1d5x", true),
            ("x[]a]y", "x]y", true),
            ("x[", "x[", false),
            ("a?c", "abc", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a_b_b_c_b_c", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn ends_and_a_name_between_stars_is_found(s in "[a-c*?\\[\\]!-]{0,12}", n in "[a-c]{1,6}") {
            matches(&s, &n);
            let embedded = format!("{s}{n}{s}");
            let pattern = format!("*{n}*");
            prop_assert!(matches(&pattern, &embedded));
        }
    }
}
