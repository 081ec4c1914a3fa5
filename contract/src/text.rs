//! Short texts of fixed capacity, as they lie in on-disk structures.

/// UTF-8 of at most `N` bytes, padded with NUL on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// The empty text.
    pub const EMPTY: Self = Text { bytes: [0; N], len: 0 };

    /// `text` cut to `N` bytes at a character boundary. Control characters become spaces: the
    /// text is shown on consoles.
    pub fn new(text: &str) -> Self {
        let mut out = Self::EMPTY;
        out.append(text);
        out
    }

    fn append(&mut self, text: &str) {
        for c in text.chars() {
            let c = if c.is_control() { ' ' } else { c };
            if self.len + c.len_utf8() > N {
                break;
            }
            c.encode_utf8(&mut self.bytes[self.len..]);
            self.len += c.len_utf8();
        }
    }

    /// Reads the padded form. Bytes that are not UTF-8 end the text.
    pub fn from_padded(bytes: &[u8; N]) -> Self {
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(N);
        let valid = match core::str::from_utf8(&bytes[..end]) {
            Ok(text) => text,
            Err(e) => core::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or(""),
        };
        Self::new(valid)
    }

    /// The padded form.
    pub const fn to_padded(&self) -> &[u8; N] {
        &self.bytes
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }

    /// Whether there is no text.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> core::fmt::Write for Text<N> {
    /// Appends what fits and drops the rest: a journal line cut short is better than none.
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.append(s);
        Ok(())
    }
}

impl<const N: usize> core::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> core::fmt::Display for Text<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address as people may see it: without a user name and a password.
#[cfg(feature = "std")]
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_a_character() {
        assert_eq!(Text::<3>::new("aéé").as_str(), "aé");
        assert_eq!(Text::<3>::new("abc").as_str(), "abc");
    }

    #[test]
    fn padded_form_round_trips_and_stops_at_what_is_not_text() {
        let text = Text::<8>::new("1.2.3");
        assert_eq!(Text::from_padded(text.to_padded()), text);
        assert_eq!(Text::from_padded(b"ab\xff\xfe\0\0\0\0").as_str(), "ab");
    }

    #[cfg(feature = "std")]
    #[test]
    fn nobody_sees_a_password() {
        for (url, seen) in [
            ("http://u:p@host/a@b", "http://host/a@b"),
            ("https://u:p@q@host", "https://host"),
            ("http://host/a", "http://host/a"),
            ("/a@b", "/a@b"),
        ] {
            assert_eq!(without_credentials(url), seen);
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_console() {
        assert_eq!(Text::<8>::new("a\x1b[2J\n").as_str(), "a [2J ");
    }
}
