//! Container definitions. `configs/containers/nginx.toml` explains every key by example.

use crate::Result;
use crate::accounts::Account;
use crate::definition::{ExtraFile, RawFile};
use crate::written::Written;
use contract::toml_input::InputError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: String,
    tag: String,
    suite: String,
    packages: Vec<String>,
    #[serde(default = "default_base")]
    base: Vec<String>,
    user: Option<String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    volumes: Vec<String>,
    workdir: Option<String>,
    stop_signal: Option<String>,
    #[serde(default)]
    keep: Vec<String>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    account: Vec<RawAccount>,
    #[serde(default)]
    file: Vec<RawFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    name: String,
    id: u32,
    home: String,
}

/// What nearly every program needs; images that keep this default share its layer.
fn default_base() -> Vec<String> {
    ["base-files", "netbase", "libc6"].map(str::to_owned).to_vec()
}

/// A validated container definition.
#[derive(Clone, Debug)]
pub struct ContainerDefinition {
    /// Image name, without a tag.
    pub name: String,
    /// Tag.
    pub tag: String,
    /// Debian suite.
    pub suite: String,
    /// Packages of the first layer, with what they need.
    pub base: Vec<String>,
    /// The other packages.
    pub packages: Vec<String>,
    /// `UID:GID` that the container runs as.
    pub user: String,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace.
    pub command: Vec<String>,
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// TCP ports that the container listens on.
    pub ports: Vec<u16>,
    /// Paths that are meant to be volumes.
    pub volumes: Vec<String>,
    /// Working directory.
    pub workdir: String,
    /// Signal that stops the container.
    pub stop_signal: Option<String>,
    /// Paths that are kept although the builder would leave them out.
    pub keep: Vec<String>,
    /// Paths that are left out.
    pub drop: Vec<String>,
    /// Accounts beyond root and nobody.
    pub accounts: Vec<Account>,
    /// Files of the last layer.
    pub files: Vec<ExtraFile>,
}

impl ContainerDefinition {
    /// Reads the definition in `path`; `sets` as in [`crate::definition::Definition::read`].
    pub fn read(path: &Path, sets: &[String]) -> Result<ContainerDefinition> {
        let written = Written::read(path, sets)?;
        let raw: Raw = written.parse()?;
        let base = path.parent().unwrap_or(Path::new("."));
        let wrong = |(key, why): (String, String)| {
            written.place(InputError::of_key(&written.file, key, why))
        };
        Ok(raw.validate(base).map_err(wrong)?)
    }

    /// Base packages and the others.
    pub fn all_packages(&self) -> Vec<String> {
        self.base.iter().chain(&self.packages).cloned().collect()
    }

    /// `NAME:TAG`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }
}

impl Raw {
    /// An error is the key that is wrong, and why.
    fn validate(self, base: &Path) -> Result<ContainerDefinition, (String, String)> {
        let wrong = |key: &str, why: String| Err((key.to_owned(), why));
        let part = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
        };
        if !part(&self.name, "./_-") {
            return wrong("name", format!("`{}` is not an image name", self.name));
        }
        if !part(&self.tag.to_ascii_lowercase(), "._-") {
            return wrong("tag", format!("`{}` is not a tag", self.tag));
        }
        let accounts: Vec<Account> =
            self.account.iter().map(|a| Account::new(&a.name, a.id, &a.home)).collect();
        let user = match self.user.as_deref() {
            None => "65534:65534".to_owned(),
            Some("root") => "0:0".to_owned(),
            Some(name) => match accounts.iter().find(|a| a.name == name) {
                Some(account) => format!("{0}:{0}", account.id),
                None => return wrong("user", format!("`{name}` has no [[account]]")),
            },
        };
        Ok(ContainerDefinition {
            files: RawFile::validate_all(self.file, base)?,
            name: self.name,
            tag: self.tag,
            suite: self.suite,
            base: self.base,
            packages: self.packages,
            user,
            entrypoint: self.entrypoint,
            command: self.command,
            environment: self.environment,
            ports: self.ports,
            volumes: self.volumes,
            workdir: self.workdir.unwrap_or_else(|| "/".to_owned()),
            stop_signal: self.stop_signal,
            keep: self.keep,
            drop: self.drop,
            accounts,
        })
    }
}
