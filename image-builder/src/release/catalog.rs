//! What a repository offers: its releases, its channels, and how either may change. Decides only;
//! reads and writes nothing.

use crate::{Error, Result};
use contract::release::{Channel, FORMAT, Release};
use contract::version;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A channel, and what it pointed to before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As hosts read it.
    pub channel: Channel,
    /// All versions that it pointed to, in order. The last is the current one, as long as nothing
    /// was withdrawn.
    pub history: Vec<String>,
}

/// All releases and channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Releases in the order of their versions.
    pub releases: Vec<Release>,
    /// Channels by name.
    pub channels: BTreeMap<String, Line>,
}

/// What became of a channel when a release was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The channel.
    pub channel: String,
    /// What it points to now.
    pub version: Option<String>,
    /// Hosts that ran the withdrawn release do not take it: the `min_version` that they have seen.
    pub below: Option<String>,
}

impl Catalog {
    /// The release `version`.
    pub fn find(&self, version: &str) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == version)
    }

    /// The release `version`, which has to be there.
    pub fn release(&self, version: &str) -> Result<&Release> {
        self.find(version).ok_or_else(|| {
            let missing = Error::refused(format!("there is no release {version}"));
            match self.releases.iter().map(|r| r.version.as_str()).collect::<Vec<_>>() {
                all if all.is_empty() => missing,
                all => missing.with_hint(format!("there are {}", all.join(", "))),
            }
        })
    }

    /// Versions that channels point to.
    pub fn current(&self) -> BTreeSet<&str> {
        self.channels.values().filter_map(|line| line.channel.version.as_deref()).collect()
    }

    /// Whether a release `new` of images `name`, for an architecture, may come in.
    pub fn check_new(&self, name: &str, new: &str, architecture: &str) -> Result<()> {
        if !version::is_valid(new) {
            let what = format!("`{new}` is not a version that a release can have");
            return Err(Error::refused(what)
                .with_hint("letters, digits and .+~^_-, starting with a letter or a digit"));
        }
        if let Some(other) = self.releases.first().filter(|release| release.name != name) {
            let what = format!(
                "the repository holds releases of {}, and the image is of {name}",
                other.name
            );
            return Err(Error::refused(what).with_hint("use one repository for each definition"));
        }
        if let Some(other) = self.releases.first().filter(|r| r.architecture != architecture) {
            let what = format!(
                "the repository holds releases for {}, and the image is for {architecture}",
                other.architecture
            );
            return Err(Error::refused(what).with_hint("use one repository for each architecture"));
        }
        let same = |release: &&Release| version::compare(&release.version, new) == Ordering::Equal;
        match self.releases.iter().find(same) {
            None => Ok(()),
            Some(release) if release.version == new => {
                Err(Error::refused(format!("there is a release {new} already"))
                    .with_hint("a release never changes: raise the version"))
            }
            Some(release) => Err(Error::refused(format!(
                "hosts cannot tell version {new} from {}, which is there already",
                release.version
            ))
            .with_hint("raise the version")),
        }
    }

    /// Takes in a release that [`Catalog::check_new`] allows.
    pub fn add(&mut self, release: Release) {
        self.releases.push(release);
        self.releases.sort_by(|a, b| version::compare(&a.version, &b.version));
    }

    /// Lets `channel` point to `version`. `false`: it did so already.
    pub fn promote(&mut self, version: &str, channel: &str) -> Result<bool> {
        self.release(version)?;
        self.check_promotion(version, channel)?;
        let line = self.channels.entry(channel.to_owned()).or_insert_with(|| Line {
            channel: Channel {
                format: FORMAT,
                name: channel.to_owned(),
                version: None,
                withdrawn: Vec::new(),
            },
            history: Vec::new(),
        });
        if line.channel.version.as_deref() == Some(version) {
            return Ok(false);
        }
        line.channel.version = Some(version.to_owned());
        line.history.retain(|old| old != version);
        line.history.push(version.to_owned());
        Ok(true)
    }

    /// Whether `channel` may point to `new`, which may be still to come.
    pub fn check_promotion(&self, new: &str, channel: &str) -> Result<()> {
        if !contract::release::is_channel_name(channel) {
            return Err(Error::refused(format!("`{channel}` is not a channel name"))
                .with_hint("lower-case letters, digits and hyphens, at most 32"));
        }
        let Some(line) = self.channels.get(channel) else { return Ok(()) };
        if line.channel.withdrawn.iter().any(|withdrawn| withdrawn == new) {
            return Err(Error::refused(format!("{new} was withdrawn"))
                .with_hint("publish what is good again under a new version"));
        }
        match &line.channel.version {
            Some(now) if version::compare(new, now).is_lt() => {
                let what = format!("channel {channel} is at {now} already, which is newer");
                let hint = format!("hosts go back only when {now} is withdrawn");
                Err(Error::refused(what).with_hint(hint))
            }
            _ => Ok(()),
        }
    }

    /// Declares `version` bad. Channels that point to it go back to the last that they pointed to
    /// before. Empty: it was withdrawn already.
    pub fn withdraw(&mut self, version: &str) -> Result<Vec<Fallback>> {
        let is_bad = |line: &Line| line.channel.withdrawn.iter().any(|old| old == version);
        if self.find(version).is_none() && self.channels.values().any(is_bad) {
            return Ok(Vec::new());
        }
        let min_version = self.release(version)?.min_version.clone();
        if self.channels.is_empty() {
            return Err(Error::refused(format!("no channel ever pointed to {version}"))
                .with_hint("no host takes a release that no channel points to"));
        }
        let there: BTreeSet<&str> = self.releases.iter().map(|r| r.version.as_str()).collect();
        let mut changed = Vec::new();
        for (name, line) in &mut self.channels {
            if is_bad(line) {
                continue;
            }
            let Channel { version: now, withdrawn, .. } = &mut line.channel;
            withdrawn.push(version.to_owned());
            withdrawn.sort_by(|a, b| version::compare(a, b));
            let mut below = None;
            if now.as_deref() == Some(version) {
                let good = |old: &&String| there.contains(old.as_str()) && !withdrawn.contains(old);
                *now = line.history.iter().rev().find(good).cloned();
                below = min_version.clone().filter(|min| {
                    now.as_ref().is_some_and(|now| version::compare(now, min).is_lt())
                });
            }
            changed.push(Fallback { channel: name.clone(), version: now.clone(), below });
        }
        Ok(changed)
    }

    /// The versions that are left when only the newest `keep` are wanted: those, what channels
    /// point to, and what hosts need on their way there.
    pub fn keep(&self, keep: usize) -> BTreeSet<String> {
        let withdrawn: BTreeSet<&String> =
            self.channels.values().flat_map(|line| &line.channel.withdrawn).collect();
        let good = self.releases.iter().rev().filter(|r| !withdrawn.contains(&r.version));
        let mut kept: BTreeSet<String> = good.take(keep).map(|r| r.version.clone()).collect();
        kept.extend(self.current().into_iter().map(str::to_owned));
        loop {
            let stones = self.releases.iter().filter(|r| kept.contains(&r.version));
            let stones: Vec<String> = stones.filter_map(|r| self.stepping_stone(r)).collect();
            let before = kept.len();
            kept.extend(stones);
            if kept.len() == before {
                return kept;
            }
        }
    }

    /// The release that a host has to install before `release` when it is too old for it.
    fn stepping_stone(&self, release: &Release) -> Option<String> {
        let min = release.min_from.as_ref()?;
        let older = self.releases.iter().filter(|r| {
            version::compare(&r.version, min).is_ge()
                && version::compare(&r.version, &release.version).is_lt()
        });
        older.map(|r| r.version.clone()).next()
    }

    /// Takes away the releases that are not in `kept`.
    pub fn retain(&mut self, kept: &BTreeSet<String>) {
        self.releases.retain(|release| kept.contains(&release.version));
    }

    /// Digests of all content files that releases are made of, with their sizes.
    pub fn content(&self) -> BTreeMap<String, u64> {
        let files = self.releases.iter().flat_map(super::content::files);
        files.map(|file| (file.sha256.clone(), file.size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::manifest::File;
    use contract::release::{Parts, Root};
    use proptest::prelude::*;

    fn release(version: &str) -> Release {
        let file = File { size: 1, sha256: "ab".repeat(32) };
        Release {
            format: FORMAT,
            name: "host".to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            created: 0,
            min_from: None,
            min_version: None,
            hardware: Vec::new(),
            uki: file.clone(),
            root: Root {
                size: 4096,
                root_hash: "01".repeat(32),
                salt: String::new(),
                uuid: "03".repeat(16),
            },
            content: Parts { table: file.clone(), pack: file },
            patches: Vec::new(),
        }
    }

    fn catalog(versions: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        versions.iter().for_each(|version| catalog.add(release(version)));
        catalog
    }

    fn promoted(versions: &[&str]) -> Catalog {
        let mut catalog = catalog(versions);
        for version in versions {
            assert!(catalog.promote(version, "stable").expect("promoted"));
        }
        catalog
    }

    fn current(catalog: &Catalog) -> Option<&str> {
        catalog.channels["stable"].channel.version.as_deref()
    }

    #[test]
    fn what_may_not_come_in() {
        let catalog = catalog(&["1.0", "1.1"]);
        for (name, version, arch, why) in [
            ("host", "1/2", "amd64", "`1/2` is not a version that a release can have"),
            (
                "other",
                "2",
                "amd64",
                "the repository holds releases of host, and the image is of other",
            ),
            (
                "host",
                "2",
                "arm64",
                "the repository holds releases for amd64, and the image is for arm64",
            ),
            ("host", "1.1", "amd64", "there is a release 1.1 already"),
            (
                "host",
                "1.01",
                "amd64",
                "hosts cannot tell version 1.01 from 1.1, which is there already",
            ),
        ] {
            let error = catalog.check_new(name, version, arch).expect_err(version);
            assert_eq!(error.to_string(), why);
        }
        assert!(catalog.check_new("host", "1.0.1", "amd64").is_ok());
    }

    #[test]
    fn a_channel_moves_forward_only() {
        let mut catalog = promoted(&["1", "2"]);
        assert!(!catalog.promote("2", "stable").expect("no change"));
        assert!(catalog.promote("1", "stable").is_err());
        assert!(catalog.promote("3", "stable").is_err());
        assert!(catalog.promote("1", "Stable").is_err());
        assert!(catalog.promote("1", "beta").expect("another channel"));
    }

    #[test]
    fn a_withdrawn_release_gives_way_to_the_last_good_one() {
        let mut catalog = promoted(&["1", "2", "3", "4"]);
        catalog.add(release("3.5"));
        assert_eq!(catalog.withdraw("3").expect("withdrawn").len(), 1);
        assert_eq!(current(&catalog), Some("4"));
        catalog.withdraw("4").expect("withdrawn");
        assert_eq!(current(&catalog), Some("2"), "3.5 was never in the channel, 3 is bad");
        assert!(catalog.promote("4", "stable").is_err(), "it stays bad");
        assert_eq!(catalog.withdraw("4").expect("no change"), []);
        catalog.withdraw("2").expect("withdrawn");
        catalog.withdraw("1").expect("withdrawn");
        assert_eq!(current(&catalog), None);
        assert!(catalog.promote("3.5", "stable").expect("forward"));
    }

    #[test]
    fn hosts_that_cannot_go_back_are_told_of() {
        let mut catalog = promoted(&["1"]);
        catalog.add(Release { min_version: Some("1.5".to_owned()), ..release("2") });
        catalog.promote("2", "stable").expect("promoted");
        let fallback = catalog.withdraw("2").expect("withdrawn").remove(0);
        assert_eq!(
            (fallback.version.as_deref(), fallback.below.as_deref()),
            (Some("1"), Some("1.5"))
        );
    }

    #[test]
    fn what_is_kept() {
        let mut catalog = promoted(&["1", "2", "3"]);
        catalog.add(Release { min_from: Some("1.2".to_owned()), ..release("4") });
        catalog.add(release("5"));
        let kept = |catalog: &Catalog, n| catalog.keep(n).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(kept(&catalog, 0), "3");
        assert_eq!(kept(&catalog, 1), "3 5");
        assert_eq!(kept(&catalog, 2), "2 3 4 5", "hosts older than 1.2 need 2 on their way to 4");
        catalog.withdraw("3").expect("withdrawn");
        assert_eq!(kept(&catalog, 1), "2 5");
        assert_eq!(kept(&catalog, 9), "1 2 4 5", "nobody needs what was withdrawn");
    }

    proptest! {
        #[test]
        fn no_channel_ever_points_to_nothing(
            steps in prop::collection::vec((0_u8..4, 0_u8..6, 0_usize..2), 0..40),
        ) {
            let mut catalog = Catalog::default();
            for (what, version, channel) in steps {
                let version = version.to_string();
                let channel = ["stable", "beta"][channel];
                match what {
                    0 if catalog.check_new("host", &version, "amd64").is_ok() => catalog.add(release(&version)),
                    1 => drop(catalog.promote(&version, channel)),
                    2 => drop(catalog.withdraw(&version)),
                    3 => {
                        let kept = catalog.keep(1);
                        catalog.retain(&kept);
                    }
                    _ => {}
                }
                for line in catalog.channels.values() {
                    if let Some(now) = &line.channel.version {
                        prop_assert!(catalog.find(now).is_some(), "{}", now);
                        prop_assert!(!line.channel.withdrawn.contains(now), "{}", now);
                    }
                }
            }
        }
    }
}
