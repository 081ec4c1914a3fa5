//! Attacks on the way from a repository to a host, by name.

use crate::host::{Host, expect};
use crate::publisher::{self, Keys, PAST, Publisher, Signer};
use crate::server::Fault;
use serde_json::json;

type Case = (&'static str, fn(&mut Publisher), Result<&'static str, &'static str>);

/// Each happens to a host that has seen version 1.0.0: root 1, version 2 of everything else.
const CASES: &[Case] = &[
    ("nothing new", |_| {}, Ok("1.0.0")),
    ("a new release", |p| p.publish("1.1.0"), Ok("1.1.0")),
    ("many new releases", |p| (0..9).for_each(|i| p.publish(&format!("1.{i}.0"))), Ok("1.8.0")),
    // Rollback.
    (
        "the files of yesterday",
        |p| p.files = p.before.clone(),
        Err("version 1 of timestamp, after version 2"),
    ),
    (
        "a new timestamp for an older snapshot",
        |p| {
            p.snapshot = 1;
            p.publish_timestamp();
        },
        Err("version 1 of snapshot, after version 2"),
    ),
    (
        "a new snapshot of older targets",
        |p| {
            p.targets = 1;
            p.publish_snapshot();
            p.publish_timestamp();
        },
        Err("version 1 of targets.json, after version 2"),
    ),
    (
        "a new snapshot without the targets",
        |p| {
            p.publish_snapshot();
            let name = format!("{}.snapshot.json", p.snapshot);
            p.alter(&name, Some("snapshot"), |s| s["meta"] = json!({}));
            p.publish_timestamp();
        },
        Err("no longer lists targets.json"),
    ),
    // Mix and match.
    (
        "an older snapshot under a new name",
        |p| {
            let old = p.files["metadata/2.snapshot.json"].clone();
            p.publish("1.1.0");
            p.files.insert("metadata/3.snapshot.json".to_owned(), old);
        },
        Err("3.snapshot.json: its size or digest"),
    ),
    (
        "older targets under a new name",
        |p| {
            let old = p.files["metadata/2.targets.json"].clone();
            p.publish("1.1.0");
            p.files.insert("metadata/3.targets.json".to_owned(), old);
        },
        Err("3.targets.json: it is version 2 instead of 3"),
    ),
    (
        "a snapshot in the place of a timestamp",
        |p| {
            let other = p.files["metadata/2.snapshot.json"].clone();
            p.files.insert("metadata/timestamp.json".to_owned(), other);
        },
        Err("0 of the 1 signatures"),
    ),
    (
        "a channel that says it is another one",
        |p| {
            p.channel = "beta".to_owned();
            p.publish("1.1.0");
        },
        Err("it describes channel `beta`"),
    ),
    // Freeze.
    ("an expired timestamp", |p| expire(p, "timestamp"), Err("timestamp.json: it expired at 2020")),
    ("an expired snapshot", |p| expire(p, "snapshot"), Err("3.snapshot.json: it expired at 2020")),
    ("expired targets", |p| expire(p, "targets"), Err("3.targets.json: it expired at 2020")),
    (
        "an expired root",
        |p| {
            expire(p, "root");
            p.rotate();
        },
        Err("root.json: it expired at 2020"),
    ),
    // Somebody else's keys.
    ("a timestamp signed by another key", |p| usurp(p, "timestamp"), Err("0 of the 1 signatures")),
    ("a snapshot signed by another key", |p| usurp(p, "snapshot"), Err("0 of the 1 signatures")),
    ("targets signed by another key", |p| usurp(p, "targets"), Err("0 of the 1 signatures")),
    ("another repository", |p| *p = later(Publisher::new()), Err("0 of the 1 signatures")),
    (
        "no signature",
        |p| {
            p.publish("1.1.0");
            p.alter("timestamp.json", None, |t| t["signatures"] = json!([]));
        },
        Err("0 of the 1 signatures"),
    ),
    (
        "the same signature twice",
        |p| {
            p.publish("1.1.0");
            p.alter("timestamp.json", None, |t| {
                let signature = t["signatures"][0].clone();
                t["signatures"].as_array_mut().expect("a list").push(signature);
            });
        },
        Err("listed twice"),
    ),
    (
        "one key under two names where two keys have to sign",
        |p| {
            p.root += 1;
            let mut root = p.root_body();
            let id = p.keys.0["timestamp"].id.clone();
            root["keys"]["second"] = root["keys"][&id].clone();
            root["roles"]["timestamp"] = json!({"keyids": [id, "second"], "threshold": 2});
            let root = publisher::sign(root, &[&p.keys.0["root"]]);
            p.files.insert("metadata/2.root.json".to_owned(), root);
            p.publish("1.1.0");
            p.alter("timestamp.json", None, |t| {
                let mut signature = t["signatures"][0].clone();
                signature["keyid"] = "second".into();
                t["signatures"].as_array_mut().expect("a list").push(signature);
            });
        },
        Err("1 of the 2 signatures"),
    ),
    (
        "a root that needs no signature",
        |p| {
            p.root += 1;
            let mut root = p.root_body();
            root["roles"]["timestamp"]["threshold"] = 0.into();
            let root = publisher::sign(root, &[&p.keys.0["root"]]);
            p.files.insert("metadata/2.root.json".to_owned(), root);
            p.publish("1.1.0");
        },
        Err("0 signatures"),
    ),
    (
        "tampered targets",
        |p| {
            p.publish("1.1.0");
            p.alter("3.targets.json", None, |t| t["signed"]["version"] = 4.into());
        },
        Err("0 of the 1 signatures"),
    ),
    // New keys.
    (
        "all keys rotated",
        |p| {
            p.rotate();
            p.publish("1.1.0");
        },
        Ok("1.1.0"),
    ),
    (
        "all keys rotated twenty times",
        |p| {
            (0..20).for_each(|_| p.rotate());
            p.publish("1.1.0");
        },
        Ok("1.1.0"),
    ),
    (
        "a chain of roots with a gap",
        |p| {
            (0..3).for_each(|_| p.rotate());
            p.publish("1.1.0");
            p.files.remove("metadata/3.root.json");
        },
        Err("timestamp.json: 0 of the 1 signatures"),
    ),
    (
        "a root that skips a version",
        |p| {
            p.root += 1;
            p.publish_root(&[]);
            let root = p.root_bytes(3);
            p.files.insert("metadata/2.root.json".to_owned(), root);
        },
        Err("2.root.json: it is version 3 instead of 2"),
    ),
    (
        "the first root again",
        |p| {
            let root = p.root_bytes(1);
            p.files.insert("metadata/2.root.json".to_owned(), root);
        },
        Err("2.root.json: it is version 1 instead of 2"),
    ),
    (
        "a root signed only by its own keys",
        |p| {
            p.keys = Keys::new();
            p.publish_root(&[]);
            p.publish("1.1.0");
        },
        Err("2.root.json: 0 of the 1 signatures"),
    ),
    (
        "a root signed only by the keys before",
        |p| {
            p.root += 1;
            let before = std::mem::replace(&mut p.keys, Keys::new());
            let root = publisher::sign(p.root_body(), &[&before.0["root"]]);
            p.files.insert("metadata/2.root.json".to_owned(), root);
            p.publish("1.1.0");
        },
        Err("2.root.json: 0 of the 1 signatures"),
    ),
    // A repository that is broken.
    (
        "no timestamp",
        |p| drop(p.files.remove("metadata/timestamp.json")),
        Err("timestamp.json: the repository does not have it"),
    ),
    (
        "no snapshot",
        |p| {
            p.publish("1.1.0");
            p.files.remove("metadata/3.snapshot.json");
        },
        Err("3.snapshot.json: the repository does not have it"),
    ),
    (
        "a channel file that is not there",
        |p| {
            p.publish("1.1.0");
            p.files.retain(|name, _| !name.ends_with("channel-stable.json"));
        },
        Err("listed, but not there"),
    ),
    (
        "a release file of other content",
        |p| {
            p.publish("1.1.0");
            let file = p.files.iter_mut().find(|(name, _)| name.ends_with("release-1.1.0.json"));
            file.expect("the release").1[20] ^= 1;
        },
        Err("size or digest"),
    ),
    (
        "a release file that is larger",
        |p| {
            p.publish("1.1.0");
            let file = p.files.iter_mut().find(|(name, _)| name.ends_with("release-1.1.0.json"));
            file.expect("the release").1.push(b' ');
        },
        Err("more than"),
    ),
    (
        "no JSON",
        |p| drop(p.files.insert("metadata/timestamp.json".to_owned(), b"{\"signed\":".to_vec())),
        Err("not what metadata of this kind looks like"),
    ),
    (
        "JSON without an end",
        |p| drop(p.files.insert("metadata/timestamp.json".to_owned(), vec![b'['; 10_000])),
        Err("not what metadata of this kind looks like"),
    ),
    (
        "a timestamp of a gigabyte",
        |p| drop(p.files.insert("metadata/timestamp.json".to_owned(), vec![b' '; 1 << 20])),
        Err("more than the 16384"),
    ),
];

fn expire(publisher: &mut Publisher, role: &'static str) {
    publisher.expires.insert(role, PAST);
    publisher.publish("1.1.0");
}

fn usurp(publisher: &mut Publisher, role: &'static str) {
    publisher.keys.0.insert(role, Signer::new());
    publisher.publish("1.1.0");
}

fn later(mut publisher: Publisher) -> Publisher {
    publisher.publish("9.9.9");
    publisher
}

#[test]
fn a_host_takes_what_was_published_last_and_nothing_else() {
    let mut recovered = 0;
    for (name, attack, expected) in CASES {
        let mut host = Host::refreshed();
        let mut honest = host.publisher.clone();
        attack(&mut host.publisher);
        expect(name, host.refresh(), *expected);
        // Whatever was refused, the host is not locked out of what its owner publishes next.
        if expected.is_err() && root_of(&host) == 1 {
            (honest.timestamp, honest.snapshot, honest.targets) = (10, 10, 10);
            honest.publish("2.0.0");
            host.publisher = honest;
            expect(name, host.refresh(), Ok("2.0.0"));
            recovered += 1;
        }
    }
    assert!(recovered > CASES.len() / 2);
}

/// The root that a host has got to.
fn root_of(host: &Host) -> u64 {
    let root = std::fs::read(host.folder.path().join("state/root.json")).expect("a root");
    let root: serde_json::Value = serde_json::from_slice(&root).expect("JSON");
    root["signed"]["version"].as_u64().expect("a version")
}

#[test]
fn endless_files_are_refused() {
    for name in ["2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json", "channel-"] {
        let mut host = Host::refreshed();
        host.publisher.publish("1.1.0");
        host.server.fail(name, Fault::Endless);
        expect(name, host.refresh(), Err("more than the"));
    }
}

/// Who replaces one of the online keys takes back what all of them said.
#[test]
fn a_new_timestamp_or_snapshot_key_makes_old_numbers_good_again() {
    for role in ["timestamp", "snapshot"] {
        let mut host = Host::refreshed();
        (host.publisher.snapshot, host.publisher.targets) = (1 << 40, 1 << 30);
        host.publisher.publish("6.6.6");
        assert_eq!(host.refresh().expect("the thief has the keys"), "6.6.6");
        host.publisher.rotate_only(role);
        (host.publisher.snapshot, host.publisher.targets) = (2, 2);
        host.publisher.publish("1.2.0");
        assert_eq!(host.refresh().expect("a new key"), "1.2.0", "{role}");
    }
    let mut host = Host::refreshed();
    host.publisher.targets = 1 << 30;
    host.publisher.publish("6.6.6");
    assert_eq!(host.refresh().expect("the thief has the keys"), "6.6.6");
    host.publisher.rotate_only("root");
    host.publisher.targets = 2;
    host.publisher.publish("1.2.0");
    expect("a new root key alone", host.refresh(), Err("version 3 of targets.json, after"));
}

#[test]
fn a_repository_recovers_from_a_thief_who_drove_versions_up() {
    let mut host = Host::refreshed();
    host.publisher.timestamp = u64::MAX / 2;
    host.publisher.snapshot = 1 << 40;
    host.publisher.targets = 1 << 30;
    host.publisher.publish("6.6.6");
    assert_eq!(host.refresh().expect("the thief has the keys"), "6.6.6");

    host.publisher.rotate();
    (host.publisher.timestamp, host.publisher.snapshot, host.publisher.targets) = (2, 2, 2);
    host.publisher.publish("1.2.0");
    assert_eq!(host.refresh().expect("new keys, old numbers"), "1.2.0");
    // The thief's files count no more.
    host.publisher.keys = Keys::new();
    host.publisher.publish("6.6.7");
    expect("old keys", host.refresh(), Err("0 of the 1 signatures"));
}
