//! Fetching from web servers that misbehave.

use crate::server::{Fault, Server};
use std::time::Duration;
use updater::http::{Base, Client, Mirrors, Patience, Settings};
use updater::source::SourceError;

const PATH: &str = "content/abc";

fn settings() -> Settings {
    let patience = Patience {
        connect: Duration::from_secs(5),
        silence: Duration::from_millis(300),
        window: Duration::from_millis(200),
        slowest: 10_000,
        rounds: 3,
        first_pause: Duration::from_millis(1),
        ..Patience::default()
    };
    Settings { patience, ..Settings::default() }
}

fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).collect()
}

fn mirrors(servers: &[&Server]) -> Mirrors {
    let bases = servers.iter().map(|server| Base::parse(&server.url()).expect("an address"));
    Mirrors::new(bases.collect()).expect("mirrors")
}

fn stream(mirrors: &mut Mirrors, range: std::ops::Range<u64>) -> Result<Vec<u8>, SourceError> {
    let mut client = Client::new(&settings()).expect("a client");
    let mut got = Vec::new();
    client.stream(mirrors, PATH, content().len() as u64, range, &mut |piece| {
        got.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(got)
}

#[test]
fn a_part_of_a_file_arrives_whole_or_fails_for_a_stated_reason() {
    let size = content().len() as u64;
    let cases = [
        ("an honest server", None, 1000..900_000, Ok(())),
        ("an empty part", None, 5..5, Ok(())),
        ("cut after 20 kB each time", Some(Fault::Cut(20_000)), 0..size, Ok(())),
        ("cut in the middle at first", Some(Fault::CutTimes(3)), 7..size, Ok(())),
        ("cut before the first byte", Some(Fault::Cut(0)), 0..size, Err("broke off at byte 0")),
        ("busy at first", Some(Fault::Status(503, 2)), 0..size, Ok(())),
        ("broken for good", Some(Fault::Status(500, 99)), 0..size, Err("500")),
        ("forbidden", Some(Fault::Status(401, 99)), 0..size, Err("401")),
        ("gone", Some(Fault::Status(404, 99)), 0..size, Err("not there")),
        ("no ranges", Some(Fault::NoRanges), 900_000..1_000_000, Ok(())),
        ("another range", Some(Fault::OtherRange), 10..1000, Err("another part")),
        ("another file", Some(Fault::RangeOfOther(5_000_000)), 10..1000, Err("5000000 bytes")),
        ("silence", Some(Fault::Silent), 0..10, Err("timeout")),
        ("too slow", Some(Fault::Trickle), 0..size, Err("bytes a second")),
        ("redirects for ever", Some(Fault::Loop), 0..10, Err("redirect")),
        ("more than there is", None, 0..size + 1, Err("asked for")),
    ];
    for (name, fault, range, expected) in cases {
        let server = Server::start();
        server.put(PATH, content());
        if let Some(fault) = fault {
            server.fail(PATH, fault);
        }
        match (stream(&mut mirrors(&[&server]), range.clone()), expected) {
            (Ok(got), Ok(())) => {
                assert!(got == content()[range.start as usize..range.end as usize], "{name}");
            }
            (Err(error), Err(text)) => {
                let error = error.to_string();
                assert!(error.contains(text), "{name}: {error}");
            }
            (got, _) => panic!("{name}: {:?}", got.map(|got| got.len())),
        }
    }
}

#[test]
fn a_transfer_that_broke_off_goes_on_where_it_stood() {
    let server = Server::start();
    server.put(PATH, content());
    server.fail(PATH, Fault::CutTimes(1));
    let got = stream(&mut mirrors(&[&server]), 0..1000).expect("it arrives");
    assert!(got == content()[..1000]);
    let ranges: Vec<_> = server.requests().into_iter().map(|(_, range)| range).collect();
    assert_eq!(ranges, [Some("bytes=0-999".to_owned()), Some("bytes=500-999".to_owned())]);
}

#[test]
fn a_server_without_ranges_is_not_asked_to_send_everything() {
    let server = Server::start();
    let size = 20u64 << 20;
    server.put(PATH, vec![7; size as usize]);
    server.fail(PATH, Fault::NoRanges);
    let mut client = Client::new(&settings()).expect("a client");
    let mut mirrors = mirrors(&[&server]);
    let error = client.stream(&mut mirrors, PATH, size, size - 10..size, &mut |_| Ok(()));
    assert!(matches!(error, Err(SourceError::Refused(why)) if why.contains("no byte ranges")));
}

#[test]
fn another_mirror_takes_over_and_is_remembered() {
    for fault in [Fault::Status(404, 99), Fault::Status(500, 99), Fault::Cut(0), Fault::OtherRange]
    {
        let (bad, good) = (Server::start(), Server::start());
        for server in [&bad, &good] {
            server.put(PATH, content());
        }
        bad.fail(PATH, fault);
        let mut mirrors = mirrors(&[&bad, &good]);
        for range in [0..500_000, 500_000..1_000_000] {
            let got = stream(&mut mirrors, range.clone()).expect("the good one has it");
            assert!(got == content()[range.start as usize..range.end as usize], "{fault:?}");
        }
        assert_eq!(bad.requests().len(), 1, "{fault:?}");
    }
}

#[test]
fn small_files_are_bounded_and_resumed() {
    let small: Vec<u8> = content()[..10_000].to_vec();
    let cases = [
        ("honest", None, 10_000, Ok(true)),
        ("too large", None, 9_999, Err("10000 bytes, more than the 9999")),
        ("not there", Some(Fault::Status(404, 9)), 10_000, Ok(false)),
        ("forbidden by an object store", Some(Fault::Status(403, 9)), 10_000, Ok(false)),
        ("endless", Some(Fault::Endless), 10_000, Err("more than the 10000 bytes")),
        ("announced as endless", Some(Fault::Length(1 << 40)), 10_000, Err("more than")),
        ("announced as longer", Some(Fault::Length(10_001)), 20_000, Err("ends before")),
        ("cut each time", Some(Fault::Cut(999)), 10_000, Ok(true)),
        ("busy once", Some(Fault::Status(503, 1)), 10_000, Ok(true)),
        ("silent", Some(Fault::Silent), 10_000, Err("timeout")),
    ];
    for (name, fault, limit, expected) in cases {
        let server = Server::start();
        server.put(PATH, small.clone());
        if let Some(fault) = fault {
            server.fail(PATH, fault);
        }
        let base = Base::parse(&server.url()).expect("an address");
        let got = Client::new(&settings()).expect("a client").get(&base, PATH, limit);
        match (got, expected) {
            (Ok(got), Ok(there)) => assert_eq!(got, there.then(|| small.clone()), "{name}"),
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text), "{name}: {error}");
            }
            (got, _) => panic!("{name}: {:?}", got.map(|got| got.map(|got| got.len()))),
        }
    }
}

#[test]
fn nobody_listens() {
    let address = {
        let server = Server::start();
        server.url()
    };
    // The port is free again once the server's thread has seen that it is to end.
    let base = Base::parse(&address).expect("an address");
    let mut client = Client::new(&settings()).expect("a client");
    let gone = (0..100).any(|_| {
        let got = client.get(&base, PATH, 10);
        matches!(got, Err(SourceError::Unreachable(why)) if why.contains("refused"))
    });
    assert!(gone);
}

#[test]
fn the_sink_may_refuse_and_a_flag_may_stop_it() {
    let server = Server::start();
    server.put(PATH, content());
    let mut mirrors = mirrors(&[&server]);
    let mut client = Client::new(&settings()).expect("a client");
    let full = &mut |_: &[u8]| Err(std::io::ErrorKind::StorageFull.into());
    let size = content().len() as u64;
    let error = client.stream(&mut mirrors, PATH, size, 0..size, full);
    assert!(matches!(error, Err(SourceError::Sink(_))));
    assert_eq!(server.requests().len(), 1);

    let flag = client.stop_flag();
    let mut pieces = 0;
    let error = client.stream(&mut mirrors, PATH, size, 0..size, &mut |_| {
        pieces += 1;
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    assert!(matches!(error, Err(SourceError::Unreachable(why)) if why == "stopped"));
    assert_eq!(pieces, 1);
}

#[test]
fn a_folder_is_a_mirror_too() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("content")).expect("a folder");
    std::fs::write(folder.path().join(PATH), content()).expect("a file");
    let base = Base::parse(&folder.path().display().to_string()).expect("an address");
    let mut mirrors = Mirrors::new(vec![base]).expect("mirrors");
    let got = stream(&mut mirrors, 100..200_000).expect("it is there");
    assert!(got == content()[100..200_000]);
}

#[test]
fn setups_that_cannot_be_are_refused() {
    let none = tempfile::NamedTempFile::new().expect("a file");
    let wrong: [(&str, Settings); 3] = [
        ("not the address of a proxy", Settings { proxy: Some("::".into()), ..settings() }),
        ("read certificates", Settings { authority: Some("/nowhere".into()), ..settings() }),
        ("read certificates", Settings { authority: Some(none.path().into()), ..settings() }),
    ];
    for (text, settings) in wrong {
        let error = Client::new(&settings).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(text)), "{error:?}");
    }
    assert!(Mirrors::new(Vec::new()).is_err());
}
