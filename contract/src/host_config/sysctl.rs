//! `[sysctl]`: settings of the kernel that a machine's workloads ask for.

use super::Wrong;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a number or a text")]
pub enum RawSetting {
    /// As in `262144`.
    Number(i64),
    /// As in `"1024 65535"`.
    Text(String),
}

/// The kernel's name of a setting, as in `vm.max_map_count`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct SettingName(String);

impl TryFrom<String> for SettingName {
    type Error = String;

    fn try_from(name: String) -> Result<SettingName, String> {
        match path(&name) {
            Some(_) => Ok(SettingName(name)),
            None => Err(format!("`{name}` is no setting as in vm.max_map_count")),
        }
    }
}

/// `[sysctl]` as it was written.
pub type RawSysctl = BTreeMap<SettingName, RawSetting>;

/// Most settings.
const MOST: usize = 256;

/// The trees below `/proc/sys`.
const TREES: [&str; 6] = ["dev", "fs", "kernel", "net", "user", "vm"];

pub(super) fn validate(raw: RawSysctl) -> Result<BTreeMap<String, String>, Wrong> {
    if raw.len() > MOST {
        return Err(Wrong("sysctl".to_owned(), format!("{} settings; at most {MOST}", raw.len())));
    }
    let mut settings = BTreeMap::new();
    for (SettingName(name), value) in raw {
        let value = match value {
            RawSetting::Number(number) => number.to_string(),
            RawSetting::Text(text) => text,
        };
        if value.len() > 4096 || value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Wrong("sysctl".to_owned(), format!("the value of `{name}` is no line")));
        }
        settings.insert(name, value);
    }
    Ok(settings)
}

/// The path below `/proc/sys` of a setting. As for sysctl(8), the first of `.` and `/` in a name says
/// which of them parts it; the other one is meant as itself (`net/ipv4/conf/bond0.10/rp_filter`).
pub fn path(name: &str) -> Option<String> {
    let by_slash = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let swap = |c: char| match c {
        '.' if !by_slash => '/',
        '/' if !by_slash => '.',
        c => c,
    };
    let path: String = name.chars().map(swap).collect();
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_-.:@".contains(&b);
    let mut parts = path.split('/');
    let tree = parts.next().is_some_and(|tree| TREES.contains(&tree));
    let rest: Vec<&str> = parts.collect();
    let plain = |part: &&str| !["", ".", ".."].contains(part) && part.bytes().all(known);
    (tree && !rest.is_empty() && rest.iter().all(plain)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_below_proc_sys_and_nowhere_else() {
        for (name, expected) in [
            ("vm.max_map_count", Some("vm/max_map_count")),
            ("net/ipv4/conf/bond0.10/rp_filter", Some("net/ipv4/conf/bond0.10/rp_filter")),
            ("net.ipv4.conf.bond0/10.rp_filter", Some("net/ipv4/conf/bond0.10/rp_filter")),
            ("vm", None),
            ("vm.", None),
            ("vm..x", None),
            ("net/../../etc", None),
            ("net.//.x", None),
            ("sunrpc.x", None),
            ("max_map_count", None),
            ("", None),
        ] {
            assert_eq!(path(name).as_deref(), expected, "{name}");
        }
    }
}
