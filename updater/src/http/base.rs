//! Where a copy of a repository lies.

use super::SetupError;
use contract::text::without_credentials;
use std::fmt;
use std::path::{Path, PathBuf};

/// Longest address that is taken.
const MAX_LEN: usize = 2048;

/// A folder of a repository: on a web server, or on this machine (a medium that was carried here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// `http://` or `https://`, without a slash at the end.
    Web(String),
    /// A local folder.
    Folder(PathBuf),
}

impl Base {
    /// Takes `http://HOST/PATH`, `https://HOST/PATH`, `file:///PATH` or `/PATH`.
    pub fn parse(text: &str) -> Result<Base, SetupError> {
        let refuse =
            |why: &'static str| SetupError::Address { address: without_credentials(text), why };
        if text.len() > MAX_LEN {
            return Err(refuse("it is longer than 2048 bytes"));
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Base::Folder(Path::new(path).to_owned()));
        }
        let uri: ureq::http::Uri = text.parse().map_err(|_| refuse("it is not a URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) => return Err(refuse("only http, https and file can be fetched from")),
            None => return Err(refuse("it is not a URL: https://HOST/PATH is expected")),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(refuse("it names no host"));
        }
        if text.contains(['?', '#']) {
            return Err(refuse("a repository has no query and no fragment"));
        }
        Ok(Base::Web(text.trim_end_matches('/').to_owned()))
    }

    /// A file or a folder below. The parts of `path` are already encoded.
    pub fn join(&self, path: &str) -> Base {
        match self {
            Base::Web(url) => Base::Web(format!("{url}/{path}")),
            Base::Folder(folder) => Base::Folder(folder.join(path)),
        }
    }
}

impl fmt::Display for Base {
    /// For people: without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Base::Web(url) => f.write_str(&without_credentials(url)),
            Base::Folder(folder) => folder.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_and_what_is_not() {
        let web = |text: &str| Some(Base::Web(text.to_owned()));
        let folder = |text: &str| Some(Base::Folder(text.into()));
        let cases = [
            ("https://updates.example/berth/", web("https://updates.example/berth")),
            ("http://[fd00::1]:8080", web("http://[fd00::1]:8080")),
            ("file:///media/stick", folder("/media/stick")),
            ("/media/stick", folder("/media/stick")),
            ("", None),
            ("updates.example/berth", None),
            ("media/stick", None),
            ("ftp://updates.example", None),
            ("https://", None),
            ("https://updates.example/?a=b", None),
            ("https://updates.example/a b", None),
            ("file://host/path", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Base::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn nobody_sees_a_password() {
        let base = Base::parse("https://me:secret@updates.example/a@b").expect("an address");
        assert_eq!(base.join("x").to_string(), "https://updates.example/a@b/x");
    }
}
