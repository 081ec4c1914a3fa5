//! Reading TOML that a person wrote: errors name file, line, column and the nearest known key.

use serde::de::DeserializeOwned;
use std::fmt;

/// What is wrong with a file that a person wrote, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Name of the file as the person knows it.
    pub file: String,
    /// Line and column, both from 1, where they are known.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl InputError {
    /// An error about the whole of `file`.
    pub fn new(file: &str, message: impl Into<String>) -> InputError {
        InputError { file: file.to_owned(), position: None, message: message.into(), hint: None }
    }

    /// The same with a hint.
    pub fn with_hint(self, hint: impl Into<String>) -> InputError {
        InputError { hint: Some(hint.into()), ..self }
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
        InputError {
            file: file.to_owned(),
            position: e.span().map(|span| position(text, span.start)),
            hint: nearest(&message).map(|key| format!("did you mean `{key}`?")),
            message,
        }
    })
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
    fn a_wrong_type_names_its_place() {
        let error = parse::<Sample>("host.toml", "memory = \"much\"").unwrap_err();
        assert_eq!(error.position, Some((1, 10)));
        assert_eq!(error.hint, None);
    }
}
