//! `[[file]]`: files, links and directories that go into a tree. Container definitions have it too.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `[[file]]`: a file, link or directory put into a tree.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Absolute path in the tree, without the leading slash.
    pub path: String,
    /// What it is.
    pub content: ExtraContent,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a `[[file]]` is.
#[derive(Clone, Debug)]
pub enum ExtraContent {
    /// A copy of this file.
    Source(PathBuf),
    /// This text.
    Text(String),
    /// A symbolic link.
    Link(String),
    /// A directory: neither source, content nor link, and a path that ends with a slash.
    Directory,
}

/// `[[file]]` as it was written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    path: String,
    source: Option<PathBuf>,
    content: Option<String>,
    link: Option<String>,
    mode: Option<String>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

impl RawFile {
    /// Checks all `[[file]]`. `base` is the folder that relative sources start from. An error is the
    /// key that is wrong, and why.
    pub(crate) fn validate_all(
        files: Vec<RawFile>,
        base: &Path,
    ) -> Result<Vec<ExtraFile>, (String, String)> {
        let mut valid = Vec::new();
        for (i, file) in files.into_iter().enumerate() {
            for path in with_names(&file.path) {
                let one = RawFile { path, ..file.clone() };
                valid.push(
                    one.validate(base).map_err(|(key, why)| (format!("file.{i}.{key}"), why))?,
                );
            }
        }
        Ok(valid)
    }

    fn validate(self, base: &Path) -> Result<ExtraFile, (&'static str, String)> {
        let wrong = |key: &'static str, why: String| Err((key, why));
        let shown = &self.path;
        let Some(path) = shown.strip_prefix('/') else {
            return wrong("path", format!("`{shown}` is not an absolute path"));
        };
        let (path, is_directory) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return wrong("path", format!("`{shown}` is not a plain path"));
        }
        let said = self.source.is_some() || self.content.is_some() || self.link.is_some();
        if is_directory && said {
            let why = "ends with a slash, which means a directory: it has no content";
            return wrong("path", format!("`{shown}` {why}"));
        }
        let content = match (self.source, self.content, self.link) {
            (Some(source), None, None) => match base.join(source) {
                source if source.is_file() => ExtraContent::Source(source),
                source => return wrong("source", format!("there is no file {}", source.display())),
            },
            (None, Some(text), None) => ExtraContent::Text(text),
            (None, None, Some(target)) => ExtraContent::Link(target),
            (None, None, None) if is_directory => ExtraContent::Directory,
            _ => {
                return wrong(
                    "path",
                    format!(
                        "`{shown}` needs one of `source`, `content` and `link`, \
                         or a slash at its end for a directory"
                    ),
                );
            }
        };
        let mode = match &self.mode {
            None if is_directory => 0o755,
            None => 0o644,
            Some(text) => match u16::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => mode,
                _ => return wrong("mode", format!("`{text}` is not octal")),
            },
        };
        Ok(ExtraFile { path: path.to_owned(), content, mode, uid: self.uid, gid: self.gid })
    }
}

/// The paths that one with a list of names stands for: `/bin/{cp,mv}` is `/bin/cp` and `/bin/mv`.
fn with_names(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| {
        let (names, after) = rest.split_once('}')?;
        Some((before, names, after))
    });
    match parts {
        Some((before, names, after)) => {
            names.split(',').map(|name| format!("{before}{}{after}", name.trim())).collect()
        }
        None => vec![path.to_owned()],
    }
}
