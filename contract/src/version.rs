//! The order of release versions: UAPI.10 Version Format Specification, "Version Comparison".

use core::cmp::Ordering;

/// Most bytes of a version: it has to fit into the boot record.
pub const MAX_LEN: usize = 64;

/// Whether `version` can name a release: letters, digits and `.+~^_-`, beginning with a letter or
/// a digit, so that it is a file name everywhere.
pub fn is_valid(version: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".+~^_-".contains(&b);
    version.len() <= MAX_LEN
        && version.bytes().all(allowed)
        && version.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Compares two versions: `1.9` before `1.10`, `2.0~rc1` before `2.0`, `2.0` before `2.0^1`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        // 1. Characters that are in no class are skipped.
        a = skip(a, |c| !is_known(c));
        b = skip(b, |c| !is_known(c));
        // 2. to 5. A tilde sorts before everything, even the end; a hyphen, a caret and a dot come
        // after it in this order.
        let (first_a, first_b) = (a.first().copied(), b.first().copied());
        for separator in [Some(b'~'), None, Some(b'-'), Some(b'^'), Some(b'.')] {
            match (first_a == separator, first_b == separator) {
                (true, true) if separator.is_none() => return Ordering::Equal,
                (true, true) => break,
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        if first_a == first_b && first_a.is_some_and(|c| b"~-^.".contains(&c)) {
            (a, b) = (&a[1..], &b[1..]);
            continue;
        }
        // 6. Numbers, which sort after letters.
        let digit = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_digit());
        let class = if digit(first_a) || digit(first_b) {
            u8::is_ascii_digit
        } else {
            u8::is_ascii_alphabetic
        };
        let (run_a, rest_a) = run(a, class);
        let (run_b, rest_b) = run(b, class);
        let order = match core::ptr::fn_addr_eq(class, u8::is_ascii_digit as fn(&u8) -> bool) {
            true => number(run_a, run_b),
            false => run_a.cmp(run_b),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn is_known(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"~-^.".contains(&c)
}

fn skip(text: &[u8], unwanted: impl Fn(u8) -> bool) -> &[u8] {
    let len = text.iter().take_while(|c| unwanted(**c)).count();
    &text[len..]
}

fn run(text: &[u8], class: fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|c| class(c)).count())
}

/// Compares digits by value, however many there are. No digits at all come first.
fn number(a: &[u8], b: &[u8]) -> Ordering {
    let empty = b.is_empty().cmp(&a.is_empty());
    let (a, b) = (skip(a, |c| c == b'0'), skip(b, |c| c == b'0'));
    empty.then(a.len().cmp(&b.len())).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sorted_as_the_specification_does() {
        // Examples of the specification, each line in rising order.
        let rising: [&[&str]; 7] = [
            &["122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1"],
            &["123^post1", "123.a-1", "123.1-1", "123a-1", "124-1"],
            &["1.9", "1.10", "1.10.1", "2"],
            &["2.0~rc1", "2.0~rc2", "2.0", "2.0.1"],
            &["~", "", "a"],
            &["1_", "1.0"],
            &["99999999999999999999998", "99999999999999999999999"],
        ];
        for line in rising {
            for pair in line.windows(2) {
                assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
                assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
            }
        }
        assert_eq!(compare("1.0", "1.00"), Ordering::Equal);
        assert_eq!(compare("11_", "11"), Ordering::Equal);
    }

    #[test]
    fn names_of_files_are_versions() {
        for good in ["1.0.0", "2026.11.22-1", "1.0~rc1+b2"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".", "-1", "1/2", "1 2", "1\n", "é", &"1".repeat(65)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-2a.~^-]{0,6}", b in "[0-2a.~^-]{0,6}", c in "[0-2a.~^-]{0,6}") {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b) == compare(&b, &c) {
                prop_assert_eq!(compare(&a, &c), compare(&a, &b));
            }
        }
    }
}
