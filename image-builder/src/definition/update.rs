//! `[update]`: where hosts of an image get updates from, and whom they trust for them.

use crate::release::RootFile;
use contract::host_config;
use contract::toml_input::InputError;
use contract::update::OneOrMore;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// As it was written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUpdate {
    root: Option<PathBuf>,
    repository: Option<OneOrMore>,
    channel: Option<String>,
}

impl RawUpdate {
    /// The root metadata that goes into images. `base` is the folder that its path starts from.
    pub fn root(&self, file: &str, base: &Path) -> Result<Option<Vec<u8>>, InputError> {
        let wrong = |message: String| InputError::new(file, message);
        let Some(root) = &self.root else {
            return match self.repository {
                None => Ok(None),
                Some(_) => Err(wrong("update.repository without update.root".to_owned())
                    .with_hint("hosts trust nobody without the root.json of `berth keys init`")),
            };
        };
        let path = base.join(root);
        match RootFile::read(&path) {
            Ok(root) => Ok(Some(root.bytes)),
            Err(e) => {
                let cause = std::error::Error::source(&e).map(|e| format!(": {e}"));
                let message = format!("update.root: {e}{}", cause.unwrap_or_default());
                Err(wrong(message).with_hint("`berth keys init` makes a root.json"))
            }
        }
    }

    /// The image's layer of the host configuration with what is said here in it.
    pub fn in_host_config(
        &self,
        file: &str,
        host_config: Option<String>,
    ) -> Result<Option<String>, InputError> {
        let repository = self.repository.clone().map(|repository| match repository {
            OneOrMore::One(one) => toml::Value::from(one),
            OneOrMore::More(more) => more.into(),
        });
        let channel = self.channel.clone().map(toml::Value::from);
        let said = [("repository", repository), ("channel", channel)];
        let said: Vec<_> = said.into_iter().filter_map(|(key, v)| Some((key, v?))).collect();
        if said.is_empty() {
            return Ok(host_config);
        }
        let wrong = |message: String| InputError::new(file, message);
        // It was parsed before.
        let mut table: toml::Table = host_config
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|e: toml::de::Error| wrong(e.to_string()))?;
        let update = table.entry("update").or_insert_with(|| toml::Table::new().into());
        for (key, value) in said {
            match update.as_table_mut() {
                Some(update) if !update.contains_key(key) => {
                    update.insert(key.to_owned(), value);
                }
                _ => {
                    let both = format!("update.{key} is in the host-config file too");
                    return Err(wrong(both).with_hint("leave it in one of the two"));
                }
            }
        }
        let text = toml::to_string(&table).map_err(|e| wrong(e.to_string()))?;
        host_config::Raw::parse(file, &text)?.validate(file)?;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawUpdate {
        toml::from_str(text).expect("a table")
    }

    #[test]
    fn defaults_go_into_the_host_configuration() {
        let update = raw("repository = \"https://updates.example/edge\"\nchannel = \"beta\"");
        let below = Some("hostname = \"x\"\n[update]\nscrub = 3\n".to_owned());
        let text = update.in_host_config("x.toml", below).expect("valid").expect("a text");
        let config = host_config::Raw::parse("x", &text).and_then(|raw| raw.validate("x"));
        let config = config.expect("valid");
        assert_eq!(config.hostname.as_deref(), Some("x"));
        assert_eq!(config.update.repository, ["https://updates.example/edge"]);
        assert_eq!(config.update.channel, "beta");

        let none = RawUpdate::default().in_host_config("x.toml", None);
        assert_eq!(none, Ok(None));
        for (text, below) in
            [("channel = \"beta\"", "[update]\nchannel = \"stable\"\n"), ("channel = \"Beta\"", "")]
        {
            let refused = raw(text).in_host_config("x.toml", Some(below.to_owned()));
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
    }

    #[test]
    fn a_root_that_is_none_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("root.json"), "{}").expect("written");
        for text in
            ["root = \"root.json\"", "root = \"absent.json\"", "repository = \"https://x.example\""]
        {
            assert!(raw(text).root("x.toml", folder.path()).is_err(), "{text}");
        }
        assert_eq!(raw("").root("x.toml", folder.path()), Ok(None));
    }
}
