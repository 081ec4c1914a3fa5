//! Clear-signed texts: RFC 9580, section 7.
//!
//! Strict, because what stands around a signed text is under nobody's seal: one text, one block of
//! signatures, nothing before, between or behind.

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// A clear-signed text in its two parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleartext<'a> {
    /// The text in exactly the form that is hashed: without escapes and trailing blanks, lines
    /// ended by CR LF, the last without an end.
    pub text: String,
    /// The armored signatures.
    pub signatures: &'a str,
}

/// Takes a clear-signed text apart. The error says what is wrong with it.
pub fn split(signed: &str) -> Result<Cleartext<'_>, &'static str> {
    let mut at = 0;
    let mut lines = signed.split_inclusive('\n').map(|line| {
        let start = at;
        at += line.len();
        let line = line.strip_suffix('\n').unwrap_or(line);
        (start, line.strip_suffix('\r').unwrap_or(line))
    });
    if lines.next().is_none_or(|(_, line)| line != BEGIN) {
        return Err("it does not begin as one");
    }
    loop {
        match lines.next() {
            Some((_, "")) => break,
            Some((_, header)) if header.starts_with("Hash: ") => {}
            _ => return Err("its header is not valid"),
        }
    }
    let mut text = String::with_capacity(signed.len());
    let mut is_first = true;
    for (start, line) in lines {
        if line == SIGNATURE {
            let signatures = &signed[start..];
            let inner = signatures.trim_end().strip_suffix(END).ok_or("it does not end as one")?;
            return match inner[SIGNATURE.len()..].contains("-----") {
                true => Err("it holds more than one"),
                false => Ok(Cleartext { text, signatures }),
            };
        }
        let line = match line.strip_prefix("- ") {
            Some(escaped) => escaped,
            None if line.starts_with('-') => return Err("a line is not escaped"),
            None => line,
        };
        if line.contains('\r') {
            return Err("a line holds a carriage return");
        }
        if !is_first {
            text.push_str("\r\n");
        }
        is_first = false;
        text.push_str(line.trim_end_matches([' ', '\t']));
    }
    Err("it holds no signature")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(body: &str) -> String {
        format!("{BEGIN}\nHash: SHA256\n\n{body}{SIGNATURE}\n\nabc\n{END}\n")
    }

    #[test]
    fn the_text_takes_the_form_that_is_hashed() {
        for (body, text) in [
            ("a\n", "a"),
            ("a \t\r\n b\n", "a\r\n b"),
            ("\na\n\n", "\r\na\r\n"),
            ("- -----BEGIN X\n- - a\n", "-----BEGIN X\r\n- a"),
            ("", ""),
        ] {
            let signed = signed(body);
            let split = split(&signed).unwrap();
            assert_eq!(split.text, text, "{body:?}");
            assert!(split.signatures.starts_with(SIGNATURE));
        }
    }

    #[test]
    fn nothing_may_stand_around_it() {
        let good = signed("a\n");
        for bad in [
            format!("Origin: x\n{good}"),
            format!("\n{good}"),
            format!("{good}Origin: x\n"),
            format!("{good}{good}"),
            good.replace("Hash:", "Origin:"),
            good.replace("a\n", "-a\n"),
            good.replace("a\n", "a\rb\n"),
            good.replace("a\n", &format!("a\n{BEGIN}\n")),
            good.replace(SIGNATURE, "x"),
            good.replace(END, "x"),
            good.replace("abc", &format!("abc\n{END}\nx\n{SIGNATURE}\nabc")),
            BEGIN.to_owned(),
            String::new(),
        ] {
            assert!(split(&bad).is_err(), "{bad}");
        }
    }
}
