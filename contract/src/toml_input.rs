//! Reading TOML that a person wrote: errors name file, line, column and the nearest known key.

use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file that a person wrote, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Name of the file as the person knows it.
    pub file: String,
    /// Line and column, both from 1, where they are known.
    pub position: Option<(usize, usize)>,
    /// The key that it is about, with the numbers of list items: `network.interface.0.address.1`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl InputError {
    /// An error about the whole of `file`.
    pub fn new(file: &str, message: impl Into<String>) -> InputError {
        let message = message.into();
        InputError { file: file.to_owned(), position: None, key: None, message, hint: None }
    }

    /// An error about one key of `file`; the message need not repeat its name.
    pub fn of_key(file: &str, key: impl Into<String>, message: impl fmt::Display) -> InputError {
        let key = key.into();
        let message = format!("{}: {message}", without_numbers(&key));
        InputError { key: Some(key), ..InputError::new(file, message) }
    }

    /// The same with a hint.
    pub fn with_hint(self, hint: impl Into<String>) -> InputError {
        InputError { hint: Some(hint.into()), ..self }
    }

    /// The same with the place of its key in `text`, the content of the file.
    pub fn placed(self, text: &str) -> InputError {
        let found = self.key.as_ref().and_then(|key| place(text, key));
        InputError { position: self.position.or(found), ..self }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for InputError {}

/// Reads `text`, the content of `file`. Types refuse unknown keys with
/// `#[serde(deny_unknown_fields)]`.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, InputError> {
    toml::from_str(text).map_err(|e| {
        let message = e.message().lines().collect::<Vec<_>>().join(" ");
        let hint = nearest(&message).map(|key| format!("did you mean `{key}`?"));
        let key = e.span().and_then(|span| key_at(text, &span));
        let message = match &key {
            // It names the key already.
            Some(key) if !message.starts_with("unknown field") => {
                format!("{}: {message}", without_numbers(key))
            }
            _ => message,
        };
        let position = e.span().map(|span| position(text, span.start));
        InputError { file: file.to_owned(), position, key, message, hint }
    })
}

/// `network.interface.address`: a key as a person would write it.
fn without_numbers(key: &str) -> String {
    let named = |part: &&str| part.parse::<usize>().is_err();
    key.split('.').filter(named).collect::<Vec<_>>().join(".")
}

/// The key whose name or value lies exactly at `span`, or the table of one with a dot in its name.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    fn within(value: &Spanned<DeValue>, span: &Range<usize>) -> Option<String> {
        if value.span() == *span {
            return Some(String::new());
        }
        match value.get_ref() {
            DeValue::Table(table) => table.iter().find_map(|(key, value)| {
                let below = match key.span() == *span {
                    true => Some(String::new()),
                    false => within(value, span),
                };
                below.map(|below| match key.get_ref().contains('.') {
                    // It cannot be told from two keys: the table that it is in has to do.
                    true => String::new(),
                    false => format!(".{}{below}", key.get_ref()),
                })
            }),
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(i, item)| within(item, span).map(|below| format!(".{i}{below}"))),
            _ => None,
        }
    }
    let table = DeTable::parse(text).ok()?;
    let whole = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let found = within(&whole, span)?;
    found.strip_prefix('.').map(str::to_owned)
}

/// Line and column of `key`, or of the innermost part of it that is there.
pub fn place(text: &str, key: &str) -> Option<(usize, usize)> {
    let table = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut here = &DeValue::Table(table.into_inner());
    for part in key.split('.') {
        let (at, below) = match here {
            DeValue::Table(table) => match table.get_key_value(part) {
                Some((name, value)) => (name.span().start, value),
                None => break,
            },
            DeValue::Array(items) => match part.parse().ok().and_then(|i: usize| items.get(i)) {
                Some(item) => (item.span().start, item),
                None => break,
            },
            _ => break,
        };
        found = Some(position(text, at));
        here = below.get_ref();
    }
    found
}

/// Line and column, from 1, of byte `at`.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The known name nearest to `name`, when it is near enough to be a slip.
pub fn nearest_of<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|key| (strsim::damerau_levenshtein(name, key), key))
        .filter(|(distance, key)| *distance <= 1 + key.len() / 4)
        .min()
        .map(|(_, key)| key)
}

/// Serde's messages quote the unknown name first and the expected ones after it.
fn nearest(message: &str) -> Option<String> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest_of(unknown, quoted).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Sample {
        hostname: Option<String>,
        memory: Option<u64>,
    }

    #[test]
    fn an_unknown_key_names_place_and_nearest_key() {
        let error = parse::<Sample>("host.toml", "memory = 1\nhostnam = \"x\"\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "host.toml:2:1: unknown field `hostnam`, expected `hostname` or `memory`"
        );
        assert_eq!(error.hint.as_deref(), Some("did you mean `hostname`?"));
    }

    #[test]
    fn a_key_with_a_dot_in_its_name_has_a_place_all_the_same() {
        let error = parse::<Sample>("host.toml", "\"192.0.2.1\" = 1").unwrap_err();
        assert_eq!((error.position, error.key), (Some((1, 1)), None));
    }

    #[test]
    fn a_wrong_type_names_its_place() {
        let error = parse::<Sample>("host.toml", "memory = \"much\"").unwrap_err();
        assert_eq!(error.position, Some((1, 10)));
        assert_eq!(error.hint, None);
        assert!(error.to_string().starts_with("host.toml:1:10: memory: invalid type"), "{error}");
    }

    #[test]
    fn a_key_is_found_wherever_it_stands() {
        let text =
            "a = 1\n[b]\nc = [\n  \"x\",\n  \"y\",\n]\n[[d]]\nname = \"1\"\n[[d]]\n  e.f = 2\n";
        let cases = [
            ("a", Some((1, 1))),
            ("b.c", Some((3, 1))),
            ("b.c.1", Some((5, 3))),
            ("d.0.name", Some((8, 1))),
            ("d.1.e.f", Some((10, 5))),
            // The innermost that is there.
            ("b.c.9", Some((3, 1))),
            ("b.gone", Some((2, 2))),
            ("gone", None),
        ];
        for (key, expected) in cases {
            assert_eq!(place(text, key), expected, "{key}");
        }
        assert_eq!(without_numbers("d.1.e.f"), "d.e.f");
    }
}
