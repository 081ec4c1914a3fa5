//! `[[service]]`: programs of the image that a host keeps running beside the runtime.

use super::{Wrong, bounded};
use serde::Deserialize;
use std::collections::BTreeMap;

/// `[[service]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawService {
    /// Its name.
    pub name: String,
    /// Its path in the read-only root.
    pub program: String,
    /// What it is started with.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: BTreeMap<String, String>,
    /// Whether it says `READY=1` when it serves.
    pub notify: bool,
}

/// A program that is started once the runtime is ready, and again when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name: of its log, its control group, and on the console.
    pub name: String,
    /// Its path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: BTreeMap<String, String>,
    /// Whether it says `READY=1` (sd_notify(3)) when it serves; then a release on trial waits for it.
    pub notify: bool,
}

/// Services of our own, and what has a log beside theirs.
const TAKEN: [&str; 7] =
    ["containerd", "dockerd", "updater", "modules", "shutdown", "tasks", "debug-shell"];

impl RawService {
    pub(super) fn validate(self) -> Result<Service, Wrong> {
        let RawService { name, program, arguments, environment, notify } = self;
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || name.starts_with('-') || !name.bytes().all(known) {
            let why = "must be lower-case letters, digits and -, at most 32";
            return Err(Wrong::new("name", format!("`{name}` {why}")));
        }
        if TAKEN.contains(&name.as_str())
            || ["workload-", "image-"].iter().any(|p| name.starts_with(p))
        {
            return Err(Wrong::new("name", format!("`{name}` is a name of Berth's own")));
        }
        let mut parts = program.split('/').skip(1).peekable();
        let below = parts.peek().is_some_and(|first| ["usr", "opt"].contains(first));
        if !program.starts_with('/') || !below || parts.any(|part| ["", ".", ".."].contains(&part))
        {
            let why = "is no program of the read-only root: its path starts with /usr/ or /opt/";
            return Err(Wrong::new("program", format!("`{program}` {why}")));
        }
        bounded("arguments", arguments.len())?;
        if let Some(i) = arguments.iter().position(|argument| argument.contains('\0')) {
            return Err(Wrong(format!("arguments.{i}"), "holds a NUL".to_owned()));
        }
        bounded("environment", environment.len())?;
        let is_variable = |key: &str| !key.is_empty() && !key.contains(['=', '\0']);
        let bad = environment.iter().find(|(key, value)| !is_variable(key) || value.contains('\0'));
        if let Some((key, _)) = bad {
            return Err(Wrong::new("environment", format!("`{key}` is no variable")));
        }
        Ok(Service { name, program, arguments, environment, notify })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_the_read_only_root_are_kept_running() {
        let cases = [
            ("kubelet", "/usr/bin/kubelet", None),
            ("agent-2", "/opt/agent/bin/agent", None),
            ("agent", "/var/lib/agent", Some("program")),
            ("agent", "/usr/../var/agent", Some("program")),
            ("agent", "usr/bin/agent", Some("program")),
            ("agent", "/usr//bin", Some("program")),
            ("agent", "", Some("program")),
            ("Agent", "/usr/bin/agent", Some("name")),
            ("", "/usr/bin/agent", Some("name")),
            ("containerd", "/usr/bin/agent", Some("name")),
            ("workload-x", "/usr/bin/agent", Some("name")),
        ];
        for (name, program, wrong) in cases {
            let (name, program) = (name.to_owned(), program.to_owned());
            let raw = RawService { name, program, ..RawService::default() };
            let found = raw.clone().validate().err().map(|Wrong(key, _)| key);
            assert_eq!(found.as_deref(), wrong, "{raw:?}");
        }
    }
}
