//! Users and groups: what the maintainer scripts of Debian packages would have added.

use std::fmt::Write;

/// An account with a group of the same name and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User and group name.
    pub name: String,
    /// User and group number.
    pub id: u32,
    /// Home directory.
    pub home: String,
}

impl Account {
    /// An account.
    pub fn new(name: &str, id: u32, home: &str) -> Account {
        Account { name: name.to_owned(), id, home: home.to_owned() }
    }
}

/// Groups that exist without a user. Numbers as in Debian's base-passwd.
const GROUPS: [(&str, u32); 3] = [("tty", 5), ("disk", 6), ("kmem", 15)];

/// Nobody can log in: there is no shell and no password.
const NO_LOGIN: &str = "/usr/sbin/nologin";

/// `/etc/passwd` with root, nobody and `accounts`.
pub fn passwd(accounts: &[Account]) -> String {
    let mut out = String::new();
    for (name, id, home) in all(accounts) {
        let _ = writeln!(out, "{name}:x:{id}:{id}:{name}:{home}:{NO_LOGIN}");
    }
    out
}

/// `/etc/group` to the same accounts.
pub fn group(accounts: &[Account]) -> String {
    let users = all(accounts).map(|(name, id, _)| (if id == 65534 { "nogroup" } else { name }, id));
    let mut groups: Vec<(&str, u32)> = users.chain(GROUPS).collect();
    groups.sort_by_key(|(_, id)| *id);
    let mut out = String::new();
    for (name, id) in groups {
        let _ = writeln!(out, "{name}:x:{id}:");
    }
    out
}

fn all(accounts: &[Account]) -> impl Iterator<Item = (&str, u32, &str)> {
    let ours = accounts.iter().map(|a| (a.name.as_str(), a.id, a.home.as_str()));
    [("root", 0, "/root")].into_iter().chain(ours).chain([("nobody", 65534, "/nonexistent")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_groups_of_the_same_number() {
        let accounts = [Account::new("postgres", 999, "/var/lib/postgresql")];
        assert!(
            passwd(&accounts)
                .contains("postgres:x:999:999:postgres:/var/lib/postgresql:/usr/sbin/nologin\n")
        );
        let group = group(&accounts);
        assert!(group.contains("\npostgres:x:999:\n") && group.ends_with("nogroup:x:65534:\n"));
    }
}
