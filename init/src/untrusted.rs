//! The readers of bytes that others made, for the fuzz targets of the project: each takes any bytes,
//! panics where something does not hold that has to, and returns whether they were taken for what they
//! should be. The host itself does not use this.

use crate::clock::sntp;
use crate::layers::Told;
use crate::network::dhcp::lease::Lease;
use crate::network::dhcp::message::{Kind, Message, option};
use crate::network::{advertisement, dhcp6, dns, domains};
use crate::verity;
use crate::{ext4, modules};
use contract::layout::VERITY_BLOCK;
use contract::verity::Superblock;
use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A message that is read can be written, and is then read as one of the same kind. A lease that is
/// read is one that can be used.
pub fn dhcp(bytes: &[u8]) -> bool {
    let Some(message) = Message::decode(bytes) else { return false };
    if let Ok(lease) = Lease::from_message(&message) {
        assert!(lease.renew <= lease.rebind && lease.rebind <= lease.duration);
        assert!(lease.search.iter().all(|name| domains::name(name).as_ref() == Some(name)));
    }
    let again = Message::decode(&message.encode()).map(|again| (again.kind, again.xid));
    assert_eq!(again, Some((message.kind, message.xid)));
    true
}

/// An offer with an option of each kind that is read.
pub fn dhcp_samples() -> Vec<Vec<u8>> {
    let options = [
        (option::SUBNET_MASK, vec![255, 255, 255, 0]),
        (option::ROUTER, vec![10, 0, 2, 2]),
        (option::NAME_SERVER, vec![10, 0, 2, 3, 1, 1, 1, 1]),
        (option::DOMAIN_NAME, b"example.org".to_vec()),
        (option::LEASE_TIME, vec![0, 1, 81, 128]),
        (option::SERVER_ID, vec![10, 0, 2, 2]),
        (option::CLASSLESS_ROUTES, vec![0, 10, 0, 2, 2]),
        (option::DOMAIN_SEARCH, b"\x03eng\x07example\x03org\0\x02hr\xc0\x04".to_vec()),
    ];
    let message = Message {
        kind: Kind::Offer,
        reply: true,
        xid: 0x1234_5678,
        seconds: 0,
        broadcast: false,
        client: Ipv4Addr::UNSPECIFIED,
        yours: Ipv4Addr::new(10, 0, 2, 15),
        mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        options: BTreeMap::from(options),
    };
    vec![message.encode()]
}

/// A DHCPv6 message that is read can be written, and is then the same. A lease that is read is one
/// that can be used.
pub fn dhcp6(bytes: &[u8]) -> bool {
    use dhcp6::{answer, message::Message};
    let Some(message) = Message::decode(bytes) else { return false };
    assert_eq!(Message::decode(&message.encode()).as_ref(), Some(&message));
    let facts = answer::facts(&message);
    assert!(facts.domains.iter().all(|name| domains::name(name).as_ref() == Some(name)));
    assert!(answer::refresh(&message) >= Duration::from_secs(600));
    let lease = answer::lease(&message, 9);
    if let Ok(lease) = &lease {
        assert!(!lease.addresses.is_empty());
        assert!(lease.renew <= lease.rebind && lease.rebind <= lease.duration);
    }
    lease.is_ok()
}

/// A reply with one address, name servers and domains.
pub fn dhcp6_samples() -> Vec<Vec<u8>> {
    use dhcp6::message::{Kind, Message, option};
    let server = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53).octets();
    let mut association = vec![0, 0, 0, 9, 0, 0, 0, 60, 0, 0, 0, 90, 0, 5, 0, 24];
    association.extend(server);
    association.extend([0, 0, 0, 100, 0, 0, 0, 200, 0, 13, 0, 2, 0, 0]);
    let options = vec![
        (option::CLIENT_ID, vec![0, 4, 7, 7]),
        (option::SERVER_ID, vec![0, 3, 0, 1]),
        (option::IA_NA, association),
        (option::NAME_SERVERS, server.to_vec()),
        (option::DOMAINS, b"\x07example\x03org\0".to_vec()),
        (option::REFRESH_TIME, vec![0, 0, 14, 16]),
    ];
    vec![Message { kind: Kind::Reply, xid: 7, options }.encode()]
}

/// What is heard of routers is bounded, and may stand in a file.
pub fn router(bytes: &[u8]) -> bool {
    let mut heard = advertisement::Heard::default();
    heard.hear(advertisement::read(bytes), Duration::ZERO);
    assert!(heard.servers().len() <= 8 && heard.domains().len() <= 8);
    assert!(heard.domains().iter().all(|name| domains::name(name).as_ref() == Some(name)));
    heard.deadline().is_some()
}

/// Name servers, and search domains.
pub fn router_samples() -> Vec<Vec<u8>> {
    let mut options = vec![25, 3, 0, 0, 0, 0, 2, 88];
    options.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
    options.extend(b"\x1f\x03\0\0\0\0\x02\x58\x07example\x03org\0\0\0\0");
    vec![options]
}

/// A time that is believed is not before the one that has passed for sure.
pub fn sntp(bytes: &[u8]) -> bool {
    let floor = Duration::from_secs(1_795_219_200);
    let time = sntp::decode(bytes, 0, floor, Duration::from_millis(10));
    assert!(time.is_ok_and(|time| time >= floor) || time.is_err());
    time.is_ok()
}

/// No answer panics.
pub fn dns(bytes: &[u8]) -> bool {
    let answers = [dns::Kind::A, dns::Kind::Aaaa].map(|kind| {
        let query = dns::encode(7, "time.example", kind).expect("a name");
        dns::decode(bytes, 7, &query, kind)
    });
    answers.into_iter().flatten().any(|addresses| !addresses.is_empty())
}

/// An answer with one address behind an alias.
pub fn dns_samples() -> Vec<Vec<u8>> {
    let mut answer = dns::encode(7, "time.example", dns::Kind::A).expect("a name");
    (answer[2], answer[7]) = (0x81, 2);
    answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 12]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
    vec![answer]
}

/// What was kept is read as it was kept, or not at all.
pub fn told(bytes: &[u8]) -> bool {
    let Some(told) = Told::decode(bytes) else { return false };
    assert_eq!(Told::decode(&told.encode()).as_ref(), Some(&told));
    let _ = crate::layers::decide(None, Ok(&told), None);
    true
}

/// One layer and one file.
pub fn told_samples() -> Vec<Vec<u8>> {
    let text = "[[workload]]\nname = \"w\"\nfile = \"w.yaml\"";
    let layer = crate::layers::Layer { name: "berth/host.toml".into(), text: text.into() };
    let files = BTreeMap::from([("w.yaml".to_owned(), b"services: {}".to_vec())]);
    vec![Told { layers: vec![layer], files }.encode()]
}

/// `modules.dep`, `modules.alias` and `modules.softdep` with NULs between them: an order has each
/// module once.
pub fn modules(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let index = modules::index::Index::new(part(), part(), part());
    let mut found = false;
    for wanted in ["a", "fs-ext4", "pci:v1d1", ""] {
        let order = index.order(wanted);
        let once: HashSet<*const u8> = order.iter().map(|path| path.as_ptr()).collect();
        assert_eq!(once.len(), order.len());
        found |= order.len() > 1;
    }
    found
}

/// No start of a partition panics.
pub fn ext4(start: &[u8; ext4::PIECE]) -> bool {
    ext4::superblock(start).is_some()
}

/// Number of data blocks and salt, where a superblock is read. What fits its partitions can be
/// handed to the kernel.
pub fn verity(block: &[u8; VERITY_BLOCK]) -> Option<(u64, Vec<u8>)> {
    let read = Superblock::decode(block).ok()?;
    let _ = verity::fits(&read, 1 << 40, 1 << 33);
    let root_hash = read.hasher().hash(block);
    let _ = verity::parameters(&read, "254:1", "254:2", &root_hash);
    assert!(verity::sectors(&read) >= read.data_blocks);
    Some((read.data_blocks, read.salt))
}
