//! `InRelease`: what a suite holds, signed.

use super::keyring::{CLOCK_SKEW, Keyring};
use super::{Archive, deb822};
use crate::cache::{Digest, parse_hex};
use crate::{Error, Result};
use sha2::{Digest as _, Sha256};

/// A suite as one archive publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Name below `dists`: `trixie`, `trixie-updates`, `trixie-security`.
    pub name: String,
    /// The archive that has it.
    pub archive: Archive,
}

impl Suite {
    /// The suites that make up `suite`. The unstable one has neither updates nor security fixes of
    /// its own.
    pub fn all_of(suite: &str) -> Vec<Suite> {
        let named = |name: String, archive| Suite { name, archive };
        let main = named(suite.to_owned(), Archive::Main);
        if ["sid", "unstable"].contains(&suite) {
            return vec![main];
        }
        let updates = named(format!("{suite}-updates"), Archive::Main);
        let security = named(format!("{suite}-security"), Archive::Security);
        vec![main, updates, security]
    }
}

/// A file that a release lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path below `dists/SUITE`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Digest,
}

/// A verified `InRelease`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which suite.
    pub suite: Suite,
    /// When it was made, in seconds since 1970 UTC.
    pub date: u64,
    /// Whether its files can be fetched by their digest, out of reach of a mirror's update.
    pub by_hash: bool,
    /// The package indexes of component `main` for the architecture asked for.
    pub indexes: Vec<Listed>,
    /// SHA-256 of the whole `InRelease`.
    pub sha256: Digest,
    /// Since when it is out of date, if it is and that was allowed.
    pub expired: Option<String>,
}

/// Whether a release that says that it is out of date is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Yes: it comes from the network, which has a newer one.
    Required,
    /// Yes: it comes from the cache, and the network is not to be asked.
    RequiredOffline,
    /// No: a person said so.
    NotRequired,
}

/// Reads `signed`, the `InRelease` of `suite`. `now` in seconds since 1970 UTC.
pub fn read(
    signed: &[u8],
    suite: &Suite,
    architecture: &str,
    keyring: &Keyring,
    freshness: Freshness,
    now: u64,
) -> Result<Release> {
    let text = keyring.open(&name_of(suite), signed, suite.archive, now)?;
    parse(&text, Sha256::digest(signed).into(), suite, architecture, freshness, now)
}

fn name_of(suite: &Suite) -> String {
    format!("InRelease of {}", suite.name)
}

/// Reads `text`, of which the signature was checked, out of the `InRelease` with this digest.
pub fn parse(
    text: &str,
    sha256: Digest,
    suite: &Suite,
    architecture: &str,
    freshness: Freshness,
    now: u64,
) -> Result<Release> {
    let name = name_of(suite);
    let all = deb822::paragraphs(text);
    let [fields] = all.as_slice() else {
        return Err(Error::corrupt(format!("{name}: {} paragraphs instead of one", all.len())));
    };
    let value = |field: &str| deb822::field(fields, field).unwrap_or_default();
    let has = |field: &str, word: &str| value(field).split_whitespace().any(|w| w == word);
    let time = |field: &str| -> Result<Option<u64>> {
        let text = value(field);
        match (text, parse_date(text)) {
            ("", _) => Ok(None),
            (_, Some(time)) => Ok(Some(time)),
            (_, None) => Err(Error::corrupt(format!("{name}: {field} is no date: {text}"))),
        }
    };

    if ![value("Codename"), value("Suite")].contains(&suite.name.as_str()) {
        let other = value("Codename");
        return Err(Error::corrupt(format!("{name}: it is the one of {other}"))
            .with_hint("the mirror serves the wrong suite: try another --mirror"));
    }
    let Some(date) = time("Date")? else {
        return Err(Error::corrupt(format!("{name}: it has no Date")));
    };
    if date > now + CLOCK_SKEW {
        return Err(Error::corrupt(format!("{name}: made in the future, {}", value("Date")))
            .with_hint("check this machine's clock"));
    }
    let until = time("Valid-Until")?;
    let expired = until.is_some_and(|until| until <= now).then(|| value("Valid-Until").to_owned());
    if let Some(since) = &expired
        && freshness != Freshness::NotRequired
    {
        let hint = match freshness {
            Freshness::RequiredOffline => {
                "run once without --offline, or take packages that may have known holes with \
                 --allow-expired"
            }
            _ => {
                "the mirror is out of date, or this machine's clock is wrong: try another --mirror"
            }
        };
        return Err(Error::corrupt(format!("{name}: expired {since}")).with_hint(hint));
    }
    if !has("Architectures", architecture) {
        return Err(Error::refused(format!("{} has no architecture {architecture}", suite.name))
            .with_hint(format!("it has {}", value("Architectures"))));
    }

    // Where `all` is an architecture of its own, its packages may be listed apart.
    let apart = has("Architectures", "all") && !has("No-Support-for-Architecture-all", "Packages");
    let mut wanted = vec![format!("main/binary-{architecture}/Packages.xz")];
    wanted.extend(apart.then(|| "main/binary-all/Packages.xz".to_owned()));
    let mut indexes = Vec::new();
    for path in wanted {
        let listed = value("SHA256").lines().find_map(|line| listed(line, &path));
        let Some((size, sha256)) = listed else {
            return Err(Error::corrupt(format!("{name}: it does not list {path}")));
        };
        indexes.push(Listed { path, size, sha256 });
    }
    Ok(Release {
        suite: suite.clone(),
        date,
        by_hash: value("Acquire-By-Hash") == "yes",
        indexes,
        sha256,
        expired,
    })
}

/// Size and digest, if `line` is the one of `path`.
fn listed(line: &str, path: &str) -> Option<(u64, Digest)> {
    let mut words = line.split_whitespace();
    let (digest, size, name) = (words.next()?, words.next()?, words.next()?);
    (name == path).then_some(())?;
    Some((size.parse().ok()?, parse_hex(digest)?))
}

/// Reads a date as archives write it: RFC 2822 with the zone `UTC`.
fn parse_date(text: &str) -> Option<u64> {
    let text = text.strip_suffix("UTC").map(|time| format!("{time}+0000"))?;
    let time = jiff::fmt::rfc2822::parse(&text).ok()?;
    u64::try_from(time.timestamp().as_second()).ok()
}
