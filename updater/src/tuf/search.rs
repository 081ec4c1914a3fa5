//! Finding a target among those who may speak about it (TUF specification 1.0, section 5.6.7).

use super::metadata::{Delegation, Delegations, Envelope, Role, Root, Snapshot, Target, Targets};
use super::store::file_name;
use super::{Error, Fetch, MAX_DELEGATIONS, Refusal, Store, Trusted, same_version, versioned};
use contract::hex;
use contract::release::limits;
use ring::digest;
use std::collections::BTreeSet;

/// How the search below one role ended.
enum Outcome {
    Found(Target),
    /// Not here; others may know it.
    Unknown,
    /// Not here, and nobody else may say anything about it.
    End,
}

struct Search<'a> {
    trusted: &'a Trusted,
    store: &'a Store,
    metadata: &'a mut dyn Fetch,
    name: &'a str,
    visited: BTreeSet<String>,
}

impl Trusted {
    /// The target called `name`. `None` when nobody who may has signed one.
    pub fn find(
        &self,
        name: &str,
        store: &Store,
        metadata: &mut dyn Fetch,
    ) -> Result<Option<Target>, Error> {
        let mut search = Search { trusted: self, store, metadata, name, visited: BTreeSet::new() };
        Ok(match search.below(&self.targets)? {
            Outcome::Found(target) => Some(target),
            Outcome::Unknown | Outcome::End => None,
        })
    }

    /// Where a target lies in the targets folder of the repository.
    pub fn path(&self, name: &str, target: &Target) -> Option<String> {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let mut parts: Vec<String> = folder.split('/').map(quote).collect();
        parts.retain(|part| !part.is_empty());
        let file = quote(file);
        parts.push(if self.root.consistent_snapshot {
            format!("{}.{file}", target.prefix()?)
        } else {
            file
        });
        Some(parts.join("/"))
    }
}

impl Search<'_> {
    fn below(&mut self, targets: &Targets) -> Result<Outcome, Error> {
        if let Some(target) = targets.targets.get(self.name) {
            return Ok(Outcome::Found(target.clone()));
        }
        let Some(delegations) = &targets.delegations else { return Ok(Outcome::Unknown) };
        for delegation in &delegations.roles {
            if !delegation.covers(self.name) || !self.visited.insert(delegation.name.clone()) {
                continue;
            }
            if self.visited.len() > MAX_DELEGATIONS {
                return Ok(Outcome::End);
            }
            let role = self.load(delegations, delegation)?;
            match self.below(&role)? {
                Outcome::Unknown if delegation.terminating => return Ok(Outcome::End),
                Outcome::Unknown => {}
                other => return Ok(other),
            }
        }
        Ok(Outcome::Unknown)
    }

    /// What the role that is delegated to says. What is stored counts only if it is signed as
    /// *this* delegation demands: another one may have let other keys speak.
    fn load(&mut self, from: &Delegations, to: &Delegation) -> Result<Targets, Error> {
        let quoted = quote(&to.name);
        let own = [Root::TYPE, "timestamp", Snapshot::TYPE, Targets::TYPE];
        if own.contains(&quoted.as_str()) || quoted.len() > 200 {
            return Err(Refusal::RoleName.of(to.name.as_str()));
        }
        let name = file_name(&quoted);
        let meta = self.trusted.snapshot.meta.get(&file_name(&to.name));
        let meta = meta.ok_or_else(|| Refusal::Missing.of(name.as_str()))?;
        let verify = |bytes: &[u8]| {
            meta.check(bytes)?;
            let role = from.verify(to, &Envelope::parse(bytes)?)?;
            same_version(role.version(), meta.version)?;
            role.check_expiry(self.trusted.now)?;
            Ok(role)
        };
        if let Some(role) = self.store.read(&name).and_then(|bytes| verify(&bytes).ok()) {
            return Ok(role);
        }
        let remote = versioned(&self.trusted.root, meta.version, &name);
        let bytes = super::fetch(self.metadata, &remote, meta, limits::TARGETS)?;
        let role = verify(&bytes).map_err(|why: Refusal| why.of(remote))?;
        self.store.write(&name, &bytes)?;
        Ok(role)
    }
}

impl Delegation {
    fn covers(&self, name: &str) -> bool {
        if let Some(paths) = &self.paths {
            return paths.iter().any(|pattern| path_matches(pattern, name));
        }
        let digest = || hex::encode(digest::digest(&digest::SHA256, name.as_bytes()).as_ref());
        let prefixes = self.path_hash_prefixes.as_ref();
        prefixes.is_some_and(|prefixes| {
            let digest = digest();
            prefixes.iter().any(|prefix| digest.starts_with(prefix.as_str()))
        })
    }
}

/// Part by part: no wildcard stands for a slash.
fn path_matches(pattern: &str, name: &str) -> bool {
    let (patterns, names) = (pattern.split('/'), name.split('/'));
    patterns.clone().count() == names.clone().count()
        && patterns.zip(names).all(|(p, n)| part_matches(p.as_bytes(), n.as_bytes()))
}

/// `*` stands for any bytes, `?` for one. In time that is at most the product of the lengths.
fn part_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The last star, and the byte that it would take next.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, next)) => {
                    star = Some((at, next + 1));
                    p = at + 1;
                    n = next + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A name as one part of a URL and as a file name (RFC 3986, section 2.3).
pub(super) fn quote(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_within_a_part() {
        let cases = [
            ("*", "name", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("*.zip", "x.zip", true),
            ("*.zip", "x.zipp", false),
            ("a*b*c", "aXbbYc", true),
            ("a*b*c", "aXbbY", false),
            ("foo-?.tgz", "foo-1.tgz", true),
            ("foo-?.tgz", "foo-10.tgz", false),
            ("", "", true),
            ("**", "", true),
            ("Name", "name", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(path_matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_quoted_name_is_one_part() {
        assert_eq!(quote("../delegated role?#ü"), "..%2Fdelegated%20role%3F%23%C3%BC");
    }
}
