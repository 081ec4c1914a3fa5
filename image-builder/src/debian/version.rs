//! The order of Debian versions: deb-version(7).

use std::cmp::Ordering;

/// Compares two versions. Every text has a place in the order, also what no package would carry.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    compare_numbers(a.epoch, b.epoch)
        .then_with(|| compare_part(a.upstream, b.upstream))
        .then_with(|| compare_part(a.revision, b.revision))
}

struct Parts<'a> {
    epoch: &'a str,
    upstream: &'a str,
    revision: &'a str,
}

impl Parts<'_> {
    fn of(version: &str) -> Parts<'_> {
        let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Parts { epoch, upstream, revision }
    }
}

/// Compares runs of non-digits and of digits in turn.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (run(&mut a, false), run(&mut b, false));
        let (number_a, number_b) = (run(&mut a, true), run(&mut b, true));
        let order = compare_text(text_a, text_b).then_with(|| compare_numbers(number_a, number_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Splits the leading run of digits, or of anything else, off `rest`.
fn run<'a>(rest: &mut &'a str, digits: bool) -> &'a str {
    let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}

/// Numbers of any length; no digits count as zero.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// `~` sorts before the end, the end before letters, letters before all other signs.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => 0,
        None => 1,
        Some(c) if c.is_ascii_alphabetic() => 2 + u32::from(*c),
        Some(c) => 1024 + u32::from(*c),
    };
    (0..a.len().max(b.len()))
        .map(|i| weight(a.as_bytes().get(i)).cmp(&weight(b.as_bytes().get(i))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_of_the_manual() {
        // Each line rises. The second is the example of deb-version(7).
        for line in [
            "0 1 1.0 1.1 1.10 1:0 1:0.1 2:0 10:0",
            "~~ ~~a ~ 0 a",
            "1.0~~ 1.0~~a 1.0~ 1.0~rc1 1.0~rc2 1.0 1.0a 1.0+b1 1.0.1",
            "1.0-1~bpo1 1.0-1 1.0-1+b1 1.0-1+deb13u1 1.0-1.1 1.0-2 1.0-10",
            "26.1.5+dfsg1-9+b8 26.1.5+dfsg1-9+b9 26.1.5+dfsg1-9+deb13u1 26.1.5+dfsg2-1",
            "1-1-1 1-1-2 1-2-1",
            "7.6-0 7.6p2-4",
            "99999999999999999998 99999999999999999999 100000000000000000000",
        ] {
            let versions: Vec<&str> = line.split(' ').collect();
            for (i, a) in versions.iter().enumerate() {
                for (j, b) in versions.iter().enumerate() {
                    assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn equal_in_other_words() {
        for (a, b) in [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("1", "1-"), ("0", "")]
        {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(
            a in "[0-9a-c:~+.-]{0,8}", b in "[0-9a-c:~+.-]{0,8}", c in "[0-9a-c:~+.-]{0,8}",
        ) {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn a_tilde_comes_before_and_a_plus_after(a in "[1-9][0-9a-c.]{0,6}") {
            prop_assert_eq!(compare(&format!("{a}~x"), &a), Ordering::Less);
            prop_assert_eq!(compare(&format!("{a}+x"), &a), Ordering::Greater);
        }
    }
}
