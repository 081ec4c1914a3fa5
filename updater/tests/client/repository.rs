//! What a host remembers of its repository, and which copy of it it asks.

use crate::host::{Host, expect, open, refresh, settings};
use crate::publisher::Publisher;
use crate::server::{Fault, Server};
use jiff::{Timestamp, ToSpan};
use std::path::Path;
use updater::repository::{Config, Repository};
use updater::source::Source;

#[test]
fn a_wrong_clock_delays_and_locks_nobody_out() {
    let mut host = Host::refreshed();
    host.publisher.publish("1.1.0");
    host.server.set_files(host.publisher.files.clone());
    let ahead = || Timestamp::now() + (24 * 365 * 100).hours();
    let error = refresh(&mut host.open().with_clock(ahead));
    expect("a clock that is ahead", error, Err("it expired at 2099"));
    let behind = || Timestamp::UNIX_EPOCH;
    assert_eq!(refresh(&mut host.open().with_clock(behind)).expect("it is valid"), "1.1.0");
    let mut repository = host.open();
    assert_eq!(refresh(&mut repository).expect("the clock is right again"), "1.1.0");
    assert_eq!(repository.newest_signed_time(), Some(1_763_000_000));
    let expires = repository.root_expires().and_then(|at| Timestamp::from_second(at as i64).ok());
    assert!(expires.is_some_and(|at| at.to_string().starts_with("2099")), "{expires:?}");
}

/// What a power cut or a rotten block may leave of each file, and what may not follow from it.
#[test]
fn a_rotten_state_neither_locks_out_nor_lets_back() {
    // Each of the numbers is written down twice.
    let cases: [&[&str]; 8] = [
        &["root.json"],
        &["timestamp.json"],
        &["snapshot.json"],
        &["targets.json"],
        &["roots/2.root.json"],
        &["timestamp.json", "snapshot.json"],
        &["timestamp.json", "targets.json"],
        &["snapshot.json", "targets.json"],
    ];
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("gone", |path| std::fs::remove_file(path).expect("it was there")),
        ("empty", |path| std::fs::write(path, "").expect("it is writable")),
        ("half", |path| {
            let bytes = std::fs::read(path).expect("it was there");
            std::fs::write(path, &bytes[..bytes.len() / 2]).expect("it is writable");
        }),
        ("other bytes", |path| std::fs::write(path, [0xa5; 4096]).expect("it is writable")),
    ];
    for names in cases {
        for (what, damage) in damages {
            let mut host = Host::new();
            host.publisher.rotate();
            host.publisher.publish("1.1.0");
            let old = host.publisher.files.clone();
            host.publisher.publish("1.2.0");
            assert_eq!(host.refresh().expect("an honest repository"), "1.2.0");

            for name in names {
                damage(&host.folder.path().join("state").join(name));
            }
            host.server.set_files(old);
            let case = format!("{names:?} {what}, old files");
            expect(&case, refresh(&mut host.open()), Err("after version"));

            host.publisher.publish("1.3.0");
            assert_eq!(host.refresh().expect("it finds back"), "1.3.0", "{names:?} {what}");
        }
    }
}

#[test]
fn an_older_snapshot_of_the_same_targets_is_noticed_without_the_timestamp() {
    let mut host = Host::refreshed();
    let old = host.publisher.files.clone();
    host.publisher.publish_snapshot();
    host.publisher.publish_timestamp();
    host.refresh().expect("an honest repository");
    std::fs::remove_file(host.folder.path().join("state/timestamp.json")).expect("it was there");
    host.server.set_files(old);
    expect("old files", refresh(&mut host.open()), Err("version 2 of snapshot, after version 3"));
}

#[test]
fn who_can_write_the_state_cannot_choose_the_release() {
    let host = Host::refreshed();
    let mut thief = Publisher::new();
    thief.rotate();
    thief.publish("6.6.6");
    let state = host.folder.path().join("state");
    std::fs::write(state.join("root.json"), thief.root_bytes(2)).expect("a file");
    std::fs::write(state.join("roots/2.root.json"), thief.root_bytes(2)).expect("a file");
    for role in ["timestamp", "snapshot", "targets"] {
        let name = thief.files.keys().rev().find(|name| name.ends_with(&format!("{role}.json")));
        std::fs::write(state.join(format!("{role}.json")), &thief.files[name.expect("a file")])
            .expect("a file");
    }
    assert_eq!(host.refresh().expect("an honest repository"), "1.0.0");
    host.server.set_files(thief.files);
    expect("the thief's repository", refresh(&mut host.open()), Err("0 of the 1 signatures"));
}

#[test]
fn a_newer_image_brings_a_newer_root_and_an_older_one_finds_its_way() {
    let mut host = Host::refreshed();
    host.publisher.rotate();
    host.publisher.rotate();
    host.publisher.publish("1.1.0");
    // The image of 1.1.0 trusts root 3; the repository keeps no older roots.
    let shipped = host.folder.path().join("shipped-root.json");
    std::fs::write(&shipped, host.publisher.root_bytes(3)).expect("a file");
    let (first, second) = (host.publisher.root_bytes(1), host.publisher.root_bytes(2));
    host.publisher.files.remove("metadata/2.root.json");
    assert_eq!(host.refresh().expect("root 3 signs"), "1.1.0");
    // Back in the old slot.
    std::fs::write(&shipped, first).expect("a file");
    host.publisher.files.insert("metadata/2.root.json".to_owned(), second);
    assert_eq!(host.refresh().expect("the chain is there"), "1.1.0");
}

#[test]
fn a_mirror_that_is_down_or_stale_or_hostile_does_not_stand_in_the_way() {
    type Spoil = fn(&Server, &Host);
    let spoilers: [(&str, Spoil); 4] = [
        ("down", |server, _| server.fail("", Fault::Status(500, 999))),
        ("stale", |server, host| server.set_files(host.publisher.files.clone())),
        ("hostile", |server, _| server.set_files(Publisher::new().files)),
        ("empty", |_, _| {}),
    ];
    for (name, spoil) in spoilers {
        let mut host = Host::new();
        let bad = Server::start();
        spoil(&bad, &host);
        host.publisher.publish("1.1.0");
        assert_eq!(host.refresh().expect("an honest mirror"), "1.1.0");
        let mut repository = open(&[&bad, &host.server], host.folder.path());
        assert_eq!(refresh(&mut repository).expect("an honest mirror"), "1.1.0", "{name}");
        let asked = bad.requests().len();
        assert!(asked > 0, "{name}");
        assert_eq!(refresh(&mut repository).expect("an honest mirror"), "1.1.0", "{name}");
        assert_eq!(bad.requests().len(), asked, "{name}: it is not asked again");
        let error = refresh(&mut open(&[&bad, &bad], host.folder.path()));
        assert!(error.is_err(), "{name}");
    }
}

#[test]
fn a_refresh_with_nothing_new_asks_for_three_files() {
    let host = Host::refreshed();
    let before = host.server.requests().len();
    host.open().refresh().expect("an honest repository");
    let asked: Vec<_> =
        host.server.requests().split_off(before).into_iter().map(|(path, _)| path).collect();
    assert_eq!(asked[..2], ["metadata/2.root.json", "metadata/timestamp.json"]);
    assert_eq!(asked.len(), 3, "{asked:?}");
}

#[test]
fn what_is_configured_has_to_make_sense() {
    let host = Host::new();
    let good = Config {
        mirrors: vec![host.server.url()],
        channel: "stable".to_owned(),
        trusted_root: host.folder.path().join("shipped-root.json"),
        state: host.folder.path().join("state"),
        http: settings(),
    };
    type Change = fn(&mut Config);
    let wrong: [(&str, Change); 4] = [
        ("not the address of a repository", |c| c.mirrors.push("updates.example".to_owned())),
        ("no mirror is configured", |c| c.mirrors.clear()),
        ("not the name of a channel", |c| c.channel = "../x".to_owned()),
        ("read /nowhere", |c| c.trusted_root = "/nowhere".into()),
    ];
    for (text, change) in wrong {
        let mut config = good.clone();
        change(&mut config);
        let error = Repository::open(&config).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(text)), "{error:?}");
    }
    let mut host = host;
    host.publisher.files.clear();
    expect(
        "a root file that is none",
        {
            std::fs::write(&good.trusted_root, "{}").expect("a file");
            host.refresh()
        },
        Err("the trusted root of this image"),
    );
    expect("no version", host.open().release("../../x").map(|r| r.version), Err("not a version"));
}
