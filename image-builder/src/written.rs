//! A definition as a person wrote it: a TOML file, with `--set KEY=VALUE` over it. Every mistake
//! is told at its place: in the file, or at the setting that brought it in.

use crate::error::read_input;
use crate::{Error, Result};
use contract::toml_input::{self, InputError};
use serde::de::DeserializeOwned;
use std::path::Path;

/// A file and settings over it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The file's name for messages.
    pub file: String,
    /// What it holds.
    pub text: String,
    /// `KEY=VALUE`, the later ones over the earlier.
    pub sets: Vec<String>,
}

impl Written {
    /// Reads `path`. `sets` are `KEY=VALUE`: the value is TOML where the key does not hold text, or
    /// else text; keys may be dotted.
    pub fn read(path: &Path, sets: &[String]) -> Result<Written> {
        let text = read_input("definition", path)?;
        Ok(Written { file: path.display().to_string(), text, sets: sets.to_vec() })
    }

    /// What both say together.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        // The file alone first, so that its mistakes are shown at their place. Settings may supply
        // what it leaves out, and then only their combination counts.
        if self.sets.is_empty() {
            return Ok(toml_input::parse(&self.file, &self.text)?);
        }
        let mut table: toml::Table = toml_input::parse(&self.file, &self.text)?;
        for set in &self.sets {
            apply(&mut table, set)?;
        }
        let merged = toml::to_string(&table)
            .map_err(|e| Error::refused(format!("{} with --set: {e}", self.file)))?;
        // Line numbers of the merged text would mislead.
        let placed = |e| self.place(InputError { position: None, ..e });
        Ok(toml_input::parse(&self.file, &merged).map_err(placed)?)
    }

    /// Puts an error about a key at the setting that the key is from, else at its place in the
    /// file.
    pub fn place(&self, error: InputError) -> InputError {
        let Some(key) = &error.key else { return error };
        let sets = self.sets.iter().rev();
        let set = sets.into_iter().find(|set| {
            let below = key.strip_prefix(set.split('=').next().unwrap_or_default().trim());
            below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
        });
        match set {
            Some(set) => InputError { file: format!("--set {set}"), position: None, ..error },
            None => error.placed(&self.text),
        }
    }
}

fn apply(table: &mut toml::Table, set: &str) -> Result<()> {
    let (key, value) = set.split_once('=').ok_or_else(|| {
        Error::refused(format!("--set {set}: not KEY=VALUE")).with_hint("as in --set version=1.2.3")
    })?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut here = table;
    for part in parts {
        let below = here.entry(part).or_insert_with(|| toml::Table::new().into());
        here = below
            .as_table_mut()
            .ok_or_else(|| Error::refused(format!("--set {set}: `{part}` is not a table")))?;
    }
    // What is text now stays text: a version of 2.0 is not a number.
    let parsed = match here.get(last) {
        Some(toml::Value::String(_)) => None,
        _ => format!("value = {value}").parse::<toml::Table>().ok(),
    };
    let value = parsed
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.trim_matches('"').to_owned()));
    here.insert(last.to_owned(), value);
    Ok(())
}
