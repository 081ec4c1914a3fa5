//! What to do: pure functions from what the repository says and what is known of this host.

use crate::store::{Attempt, FailedRelease, Saved};
use contract::Slot;
use contract::hex;
use contract::record::{Record, State};
use contract::release::{Channel, Release};
use contract::update_status::State as Stand;
use contract::version::compare;

/// The architecture of this build, as Debian calls it.
pub const ARCHITECTURE: &str = "amd64";

/// This host, as far as a decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name of the image definition that it was built from.
    pub name: String,
    /// The release that runs.
    pub version: String,
    /// Its root hash, hexadecimal.
    pub root_hash: String,
    /// Hardware class, if it has one.
    pub hardware: Option<String>,
}

/// What a person asked for, beyond what happens by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// A person asked: it does not happen by itself.
    pub asked: bool,
    /// This release and no other.
    pub version: Option<String>,
    /// Although it failed before, or is older.
    pub force: bool,
    /// Without a restart at the end.
    pub no_reboot: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Nothing, because.
    Nothing(String),
    /// This release is to be installed.
    Install(String),
    /// It may not be.
    Refuse(String),
}

/// Which release this host should run.
pub fn goal(host: &Host, channel: &Channel, saved: &Saved, wish: &Wish) -> Goal {
    let (wanted, by) = match (&wish.version, &saved.pinned, &channel.version) {
        (Some(version), _, _) => (version, "asked for"),
        (None, Some(pinned), _) => (pinned, "pinned"),
        (None, None, Some(version)) => (version, "the channel's"),
        (None, None, None) => {
            return Goal::Nothing(format!("channel {} names no release", channel.name));
        }
    };
    if *wanted == host.version {
        return Goal::Nothing(format!("{wanted} runs and is {by}"));
    }
    if let Some(why) = too_old(wanted, saved) {
        return Goal::Refuse(why);
    }
    if channel.withdrawn.contains(wanted) {
        return Goal::Refuse(format!("{wanted} was withdrawn"));
    }
    // A release that is found bad is left even for an older one.
    let leaves_bad = channel.withdrawn.contains(&host.version);
    let older = compare(wanted, &host.version).is_lt();
    if older && by == "the channel's" && !leaves_bad && !wish.force {
        return Goal::Nothing(format!("{} runs, which is newer than {wanted}", host.version));
    }
    Goal::Install(wanted.clone())
}

/// What keeps `release` from being installed here, if anything does.
pub fn objection(
    host: &Host,
    release: &Release,
    wanted: &str,
    saved: &Saved,
    wish: &Wish,
) -> Option<String> {
    let version = &release.version;
    if version != wanted {
        return Some(format!("the description of {wanted} is one of {version}"));
    }
    if release.name != host.name {
        return Some(format!(
            "{version} is a release of `{}`; this host is `{}`",
            release.name, host.name
        ));
    }
    if release.architecture != ARCHITECTURE {
        return Some(format!("{version} is for {}, not for {ARCHITECTURE}", release.architecture));
    }
    if !release.hardware.is_empty() {
        let classes = release.hardware.join(", ");
        match &host.hardware {
            None => {
                return Some(format!(
                    "{version} is for hardware {classes}; update.hardware of this host names none"
                ));
            }
            Some(own) if !release.hardware.contains(own) => {
                return Some(format!("{version} is for hardware {classes}, not for {own}"));
            }
            Some(_) => {}
        }
    }
    if let Some(min) = &release.min_from
        && compare(&host.version, min).is_lt()
    {
        return Some(format!("{version} needs {min} or newer to run first"));
    }
    if !wish.force
        && let Some(failed) = failed(saved, version, &release.root.root_hash)
    {
        return Some(format!("{version} failed here before: {}", failed.why));
    }
    None
}

fn failed<'a>(saved: &'a Saved, version: &str, root_hash: &str) -> Option<&'a FailedRelease> {
    saved.failed.iter().find(|f| f.version == version && f.root_hash == root_hash)
}

/// How an attempt stands, by the record: what happened while the updater was not there to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// It was not finished; the next look at the repository goes on with it.
    Unfinished,
    /// It waits for a restart.
    Staged(String),
    /// It runs and has yet to prove itself.
    Trial(String),
    /// It runs and has.
    Healthy(String),
    /// It failed.
    Failed(String, String),
}

/// Compares an attempt with the record and the slot that runs.
pub fn find(record: &Record, running: Slot, attempt: Option<&Attempt>) -> Found {
    let other = running.other();
    let Some(attempt) = attempt else {
        // Installed by somebody who could not write it down, or /var is new.
        return match record[other].state {
            State::Trial { tries }
                if tries > 0 && record[other].priority > record[running].priority =>
            {
                Found::Staged(record[other].version.as_str().to_owned())
            }
            _ => match record[running].state {
                State::Trial { .. } => Found::Trial(record[running].version.as_str().to_owned()),
                _ => Found::Nothing,
            },
        };
    };
    let version = attempt.version.clone();
    let Some(slot) = Slot::from_name(&attempt.slot) else { return Found::Nothing };
    let entry = &record[slot];
    if hex::encode(&entry.root_hash) != attempt.root_hash {
        // The slot was forgotten before it was written, or belongs to somebody else.
        return match slot == running {
            true => Found::Nothing,
            false => Found::Unfinished,
        };
    }
    match (entry.state, slot == running) {
        (State::Trial { .. }, true) => Found::Trial(version),
        (State::Healthy, true) => Found::Healthy(version),
        (State::Trial { tries: 1.. }, false) => Found::Staged(version),
        (State::Trial { .. }, false) => Found::Failed(version, "no tries left".to_owned()),
        (State::GivenUp, _) => Found::Failed(version, entry.reason.as_str().to_owned()),
        (State::Healthy, false) => Found::Nothing,
        (State::Empty, _) => Found::Unfinished,
    }
}

impl Found {
    /// As people are told.
    pub fn stand(&self) -> Stand {
        match self.clone() {
            Found::Nothing | Found::Unfinished => Stand::Idle,
            Found::Staged(version) => Stand::Staged { version },
            Found::Trial(version) => Stand::Trial { version },
            Found::Healthy(version) => Stand::Healthy { version },
            Found::Failed(version, why) => Stand::RolledBack { version, why },
        }
    }
}

/// Why a version must not run here any more, if so. It holds for what lies in the other slot too.
pub fn too_old(version: &str, saved: &Saved) -> Option<String> {
    let min = saved.min_version.as_ref().filter(|min| compare(version, min).is_lt())?;
    Some(format!("{version} is below {min}, the oldest that may still run here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::manifest::File;
    use contract::record::SlotEntry;
    use contract::release::{FORMAT, Parts, Root};
    use contract::text::Text;

    fn host(version: &str) -> Host {
        let (name, root_hash) = ("docker".to_owned(), "00".repeat(32));
        Host { name, version: version.to_owned(), root_hash, hardware: None }
    }

    fn channel(version: Option<&str>, withdrawn: &[&str]) -> Channel {
        Channel {
            format: FORMAT,
            name: "stable".to_owned(),
            version: version.map(str::to_owned),
            withdrawn: withdrawn.iter().map(|v| (*v).to_owned()).collect(),
        }
    }

    #[test]
    fn there_is_no_way_back_below_the_floor() {
        let floor = Saved { min_version: Some("1.10".into()), ..Saved::default() };
        assert!(too_old("1.9", &floor).is_some_and(|why| why.contains("1.10")));
        assert_eq!(too_old("1.10", &floor), None);
        assert_eq!(too_old("0.1", &Saved::default()), None);
    }

    #[test]
    fn goals() {
        let none = Saved::default();
        let pinned = Saved { pinned: Some("1.5".into()), ..Saved::default() };
        let floor = Saved { min_version: Some("1.0".into()), ..Saved::default() };
        let auto = Wish::default();
        let asks = Wish { version: Some("0.9".into()), ..Wish::default() };
        let install = |v: &str| Some(v.to_owned());
        let cases = [
            // running, channel, withdrawn, saved, wish, installed
            ("1.0", Some("1.1"), &[][..], &none, &auto, install("1.1")),
            ("1.9", Some("1.10"), &[], &none, &auto, install("1.10")),
            ("1.1", Some("1.1"), &[], &none, &auto, None),
            ("1.1", None, &[], &none, &auto, None),
            ("1.1", Some("1.0"), &[], &none, &auto, None),
            ("1.1", Some("1.0"), &["1.1"], &none, &auto, install("1.0")),
            ("1.1", Some("0.9"), &["1.1"], &floor, &auto, None),
            ("1.0", Some("1.1"), &["1.1"], &none, &auto, None),
            ("1.0", Some("2.0"), &[], &pinned, &auto, install("1.5")),
            ("1.5", Some("2.0"), &[], &pinned, &auto, None),
            ("1.0", Some("2.0"), &[], &pinned, &asks, install("0.9")),
            ("1.0", Some("2.0"), &[], &floor, &asks, None),
        ];
        for (running, version, withdrawn, saved, wish, expected) in cases {
            let goal = goal(&host(running), &channel(version, withdrawn), saved, wish);
            let installed = match &goal {
                Goal::Install(version) => Some(version.clone()),
                _ => None,
            };
            assert_eq!(installed, expected, "{running} {version:?} {withdrawn:?}: {goal:?}");
        }
    }

    fn release() -> Release {
        let file = File { size: 1, sha256: "ab".repeat(32) };
        Release {
            format: FORMAT,
            name: "docker".into(),
            version: "2.0".into(),
            architecture: "amd64".into(),
            created: 0,
            min_from: Some("1.0".into()),
            min_version: None,
            hardware: Vec::new(),
            uki: file.clone(),
            root: Root {
                size: 4096,
                root_hash: "cd".repeat(32),
                salt: String::new(),
                uuid: "00".repeat(16),
            },
            content: Parts { table: file.clone(), pack: file },
            patches: Vec::new(),
        }
    }

    #[test]
    fn objections() {
        type Change = fn(&mut Release, &mut Host, &mut Saved, &mut Wish);
        let failed = || FailedRelease {
            version: "2.0".into(),
            root_hash: "cd".repeat(32),
            why: "a workload is unhealthy".into(),
        };
        let cases: [(Change, Option<&str>); 10] = [
            (|_, _, _, _| {}, None),
            (|r, _, _, _| r.version = "2.1".into(), Some("description of 2.0 is one of 2.1")),
            (|r, _, _, _| r.name = "k8s".into(), Some("this host is `docker`")),
            (|r, _, _, _| r.architecture = "arm64".into(), Some("for arm64")),
            (|_, h, _, _| h.version = "0.9".into(), Some("needs 1.0 or newer")),
            (|r, _, _, _| r.hardware = vec!["rack".into()], Some("names none")),
            (
                |r, h, _, _| {
                    r.hardware = vec!["rack".into()];
                    h.hardware = Some("edge".into());
                },
                Some("not for edge"),
            ),
            (
                |r, h, _, _| {
                    r.hardware = vec!["rack".into()];
                    h.hardware = Some("rack".into());
                },
                None,
            ),
            (|_, _, s, _| s.failed.clear(), Some("failed here before: a workload")),
            (|_, _, _, w| w.force = true, None),
        ];
        for (i, (change, expected)) in cases.into_iter().enumerate() {
            let (mut release, mut host) = (release(), host("1.0"));
            let (mut saved, mut wish) = (Saved::default(), Wish::default());
            change(&mut release, &mut host, &mut saved, &mut wish);
            if i >= 8 {
                saved.failed.push(failed());
            }
            let said = objection(&host, &release, "2.0", &saved, &wish);
            match expected {
                None => assert_eq!(said, None, "{i}"),
                Some(part) => {
                    assert!(said.as_ref().is_some_and(|s| s.contains(part)), "{i}: {said:?}");
                }
            }
        }
        // Published anew under the same version: another release.
        let saved = Saved { failed: vec![failed()], ..Saved::default() };
        let mut other = release();
        other.root.root_hash = "ef".repeat(32);
        assert_eq!(objection(&host("1.0"), &other, "2.0", &saved, &Wish::default()), None);
    }

    #[test]
    fn what_became_of_an_attempt() {
        use State::*;
        let trial = |tries| Trial { tries };
        let attempt = Attempt {
            version: "2".into(),
            root_hash: "07".repeat(32),
            slot: "b".into(),
            from: "1".into(),
            min_version: None,
            asked: false,
            no_reboot: false,
        };
        let record = |state: State, hash: u8| {
            let a = SlotEntry { state: Healthy, priority: 1, ..SlotEntry::EMPTY };
            let b = SlotEntry {
                state,
                priority: 2,
                root_hash: [hash; 32],
                version: Text::new("2"),
                reason: Text::new("why"),
                ..SlotEntry::EMPTY
            };
            Record { sequence: 1, slots: [a, b] }
        };
        let v = || "2".to_owned();
        let cases = [
            // state of B, its root, what runs, attempt known, found
            (Empty, 0, Slot::A, true, Found::Unfinished),
            (trial(3), 7, Slot::A, true, Found::Staged(v())),
            (trial(2), 7, Slot::B, true, Found::Trial(v())),
            (trial(0), 7, Slot::B, true, Found::Trial(v())),
            (trial(0), 7, Slot::A, true, Found::Failed(v(), "no tries left".into())),
            (Healthy, 7, Slot::B, true, Found::Healthy(v())),
            (GivenUp, 7, Slot::A, true, Found::Failed(v(), "why".into())),
            (GivenUp, 7, Slot::B, true, Found::Failed(v(), "why".into())),
            (Healthy, 7, Slot::A, true, Found::Nothing),
            (GivenUp, 8, Slot::A, true, Found::Unfinished),
            (trial(3), 7, Slot::A, false, Found::Staged(v())),
            (trial(3), 7, Slot::B, false, Found::Trial(v())),
            (Healthy, 7, Slot::A, false, Found::Nothing),
        ];
        for (state, hash, running, known, expected) in cases {
            let found = find(&record(state, hash), running, known.then_some(&attempt));
            assert_eq!(found, expected, "{state:?} {hash} {running} {known}");
        }
    }
}
