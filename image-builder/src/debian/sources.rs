//! Where packages come from: `--mirror`, or the machine's own apt sources.

use super::{Archive, deb822};
use crate::{Error, Result};
use std::fs;
use std::path::Path;

/// Addresses of the two Debian archives, in the order to try them. No name of a host is known
/// here: it comes from the person or from the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// Bases of the main archive: `BASE/dists/trixie`, `BASE/dists/trixie-updates`.
    pub main: Vec<String>,
    /// Bases of the security archive: `BASE/dists/trixie-security`.
    pub security: Vec<String>,
}

/// Suites and code names of Debian whose sources can serve any other of them.
const SUITES: [&str; 14] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
    "rc-buggy",
];

impl Mirrors {
    /// `--mirror` where it is given, else what the machine's apt uses.
    pub fn find(mirror: Option<&str>) -> Result<Mirrors> {
        match mirror {
            Some(mirror) => Mirrors::from_url(mirror),
            None => Mirrors::of_machine(Path::new("/etc/apt")),
        }
    }

    /// Reads the value of `--mirror`: `MAIN,SECURITY` names both archives. A single address whose
    /// path has a part `debian` is the main archive, and the security archive is beside it with
    /// `debian-security` in that part's place; to any other address, both are appended.
    pub fn from_url(value: &str) -> Result<Mirrors> {
        let (main, security) = match value.split_once(',') {
            Some((main, security)) => (main.trim().to_owned(), security.trim().to_owned()),
            None => pair(value.trim()),
        };
        for url in [&main, &security] {
            if !is_supported(url) {
                return Err(Error::refused(format!(
                    "mirror `{url}` is no http, https or file URL"
                ))
                .with_hint("write it like http://mirror.example/debian"));
            }
        }
        Ok(Mirrors { main: vec![base(&main)], security: vec![base(&security)] })
    }

    /// Reads `sources.list`, `sources.list.d/*.list` and `sources.list.d/*.sources` under `apt`.
    pub fn of_machine(apt: &Path) -> Result<Mirrors> {
        let mut files = vec![apt.join("sources.list")];
        let mut more: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .collect();
        more.sort();
        files.extend(more);
        let mut entries = Vec::new();
        for file in files {
            let parse: fn(&str) -> Vec<Entry> = match file.extension().and_then(|e| e.to_str()) {
                Some("list") => one_line_entries,
                Some("sources") => deb822_entries,
                _ => continue,
            };
            match fs::read_to_string(&file) {
                Ok(text) => entries.extend(parse(&text)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read", &file)(e)),
            }
        }
        Mirrors::from_entries(&entries).ok_or_else(|| {
            Error::refused(format!("no Debian archive is named in {}", apt.display()))
                .with_hint("name one with --mirror, like --mirror http://mirror.example/debian")
        })
    }

    fn from_entries(entries: &[Entry]) -> Option<Mirrors> {
        let mut mirrors = Mirrors::default();
        for entry in entries.iter().filter(|e| e.is_debian()) {
            for suite in &entry.suites {
                let list = match suite_archive(suite) {
                    Some(Archive::Main) => &mut mirrors.main,
                    Some(Archive::Security) => &mut mirrors.security,
                    None => continue,
                };
                for uri in entry.uris.iter().filter(|uri| is_supported(uri)) {
                    if !list.contains(&base(uri)) {
                        list.push(base(uri));
                    }
                }
            }
        }
        // Others use Debian's code names too; an archive called `debian` goes first.
        mirrors.main.sort_by_key(|url| !url.ends_with("/debian"));
        mirrors.security.sort_by_key(|url| !url.ends_with("/debian-security"));
        if mirrors.security.is_empty() {
            mirrors.security.extend(mirrors.main.iter().map(|main| pair(main).1));
        }
        (!mirrors.main.is_empty()).then_some(mirrors)
    }

    /// The addresses of one archive.
    pub fn of(&self, archive: Archive) -> &[String] {
        match archive {
            Archive::Main => &self.main,
            Archive::Security => &self.security,
        }
    }
}

/// One source of apt.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Names a keyring that is not Debian's.
    foreign_key: bool,
}

impl Entry {
    fn is_debian(&self) -> bool {
        !self.foreign_key && self.components.iter().any(|c| c == "main")
    }
}

fn suite_archive(suite: &str) -> Option<Archive> {
    let known = |name: &str| SUITES.contains(&name);
    if suite.strip_suffix("-security").or(suite.strip_suffix("/updates")).is_some_and(known) {
        return Some(Archive::Security);
    }
    known(suite.strip_suffix("-updates").unwrap_or(suite)).then_some(Archive::Main)
}

fn is_supported(uri: &str) -> bool {
    ["http://", "https://", "file:/"].iter().any(|scheme| {
        uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

fn base(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

/// Main and security archive for one address.
fn pair(url: &str) -> (String, String) {
    let url = base(url);
    let parts: Vec<&str> = url.split('/').collect();
    match parts.iter().rposition(|part| *part == "debian") {
        Some(at) => {
            let mut security = parts.clone();
            security[at] = "debian-security";
            (parts.join("/"), security.join("/"))
        }
        None => (format!("{url}/debian"), format!("{url}/debian-security")),
    }
}

fn is_foreign_key(signed_by: &str) -> bool {
    !signed_by.is_empty() && !signed_by.contains("debian-archive")
}

/// The one-line format: `deb [option=value ...] uri suite component...`.
fn one_line_entries(text: &str) -> Vec<Entry> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let entry = |line: &str| {
        let line = line.split('#').next()?.trim();
        let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
        let mut entry = Entry::default();
        if let Some(options) = rest.strip_prefix('[') {
            let (options, after) = options.split_once(']')?;
            let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
            entry.foreign_key = is_foreign_key(signed_by.unwrap_or_default());
            rest = after;
        }
        let mut words = words(rest).into_iter();
        entry.uris.push(words.next()?);
        entry.suites.push(words.next()?);
        entry.components.extend(words);
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// The deb822 format.
fn deb822_entries(text: &str) -> Vec<Entry> {
    let entry = |fields: Vec<(&str, String)>| {
        let value = |name| deb822::field(&fields, name).unwrap_or_default();
        let words = |name| value(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let disabled = ["no", "false", "0", "off", "disable", "without"];
        if disabled.contains(&value("Enabled").to_ascii_lowercase().as_str())
            || !words("Types").iter().any(|t| t == "deb")
        {
            return None;
        }
        // A key may also stand there itself; whose it is shows at the signature.
        let signed_by = value("Signed-By");
        let foreign_key = !signed_by.contains("BEGIN PGP") && is_foreign_key(signed_by);
        let (uris, suites, components) = (words("URIs"), words("Suites"), words("Components"));
        Some(Entry { uris, suites, components, foreign_key })
    };
    deb822::paragraphs(text).into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(main: &[&str], security: &[&str]) -> Mirrors {
        let own = |urls: &[&str]| urls.iter().map(|u| (*u).to_owned()).collect();
        Mirrors { main: own(main), security: own(security) }
    }

    #[test]
    fn one_address_stands_for_both_archives() {
        for (value, main, security) in [
            ("http://m/debian", "http://m/debian", "http://m/debian-security"),
            ("http://m/debian/", "http://m/debian", "http://m/debian-security"),
            ("http://m", "http://m/debian", "http://m/debian-security"),
            ("http://debian.m/x", "http://debian.m/x/debian", "http://debian.m/x/debian-security"),
            ("https://m/debian/2025Z", "https://m/debian/2025Z", "https://m/debian-security/2025Z"),
            ("file:///srv/a, http://b/", "file:///srv/a", "http://b"),
        ] {
            assert_eq!(Mirrors::from_url(value).unwrap(), mirrors(&[main], &[security]), "{value}");
        }
        for bad in ["", "m/debian", "ftp://m/debian", "http://m/debian,"] {
            assert!(Mirrors::from_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_formats_of_apt_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "sources.list",
            "# deb http://commented/debian trixie main\n\
             deb [arch=amd64 signed-by=/debian-archive-x.gpg] http://one/debian/ trixie main\n\
             deb-src http://source/debian trixie main\n\
             deb http://one/debian-security trixie-security main contrib # why\n\
             deb cdrom:[Debian]/ trixie main\n\
             deb http://flat/ ./\n",
        );
        write(
            "sources.list.d/debian.sources",
            "Types: deb deb-src\nURIs: https://two/debian\nSuites: bookworm bookworm-updates\n\
             Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nEnabled: no\nURIs: http://off/debian\nSuites: trixie\nComponents: main\n\n\
             Types: deb\nURIs: http://foreign/debian\nSuites: bookworm\nComponents: main\n\
             Signed-By: /etc/apt/keyrings/foreign.gpg\n",
        );
        write("sources.list.d/docker.list", "deb http://three/linux/debian bookworm stable\n");
        write("sources.list.d/vendor.list", "deb http://vendor/apt stable main\n");
        write("sources.list.d/old.list.save", "deb http://saved/debian trixie main\n");
        assert_eq!(
            Mirrors::of_machine(folder.path()).unwrap(),
            mirrors(
                &["http://one/debian", "https://two/debian", "http://vendor/apt"],
                &["http://one/debian-security"]
            )
        );
    }

    #[test]
    fn without_a_security_source_its_place_is_derived() {
        let entries = one_line_entries("deb http://m/debian sid main");
        let found = Mirrors::from_entries(&entries).unwrap();
        assert_eq!(found, mirrors(&["http://m/debian"], &["http://m/debian-security"]));
    }

    #[test]
    fn a_machine_without_sources_is_told_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Mirrors::of_machine(folder.path()).unwrap_err();
        assert!(error.hint().unwrap().contains("--mirror"));
    }

    #[test]
    fn suites_tell_their_archive() {
        for (suite, archive) in [
            ("trixie", Some(Archive::Main)),
            ("stable-updates", Some(Archive::Main)),
            ("trixie-security", Some(Archive::Security)),
            ("buster/updates", Some(Archive::Security)),
            ("bookworm-backports", None),
            ("bookworm-pgdg", None),
            ("noble", None),
            ("noble-security", None),
        ] {
            assert_eq!(suite_archive(suite), archive, "{suite}");
        }
    }
}
