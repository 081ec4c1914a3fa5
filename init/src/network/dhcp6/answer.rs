//! What a DHCPv6 server says, checked: nothing of it is used before.

use super::super::told::MAX_SERVERS;
use super::super::{advertisement, domains};
use super::message::{Message, option, options};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Most addresses that are taken.
const MAX_ADDRESSES: usize = 4;
/// Shorter lifetimes are taken for this long, so that a server cannot make us ask all the time.
const SHORTEST: Duration = Duration::from_secs(10);
/// All ones is for ever. A year is near enough, and adds up to no overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// RFC 8415, section 21.23: bounds of the time after which to ask again, and what holds untold.
const REFRESH: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(24 * 3600));

/// Addresses, until when they hold, and who granted them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// The server's identifier.
    pub server: Vec<u8>,
    /// How long all of them hold.
    pub duration: Duration,
    /// After this time its server is asked to prolong it (T1).
    pub renew: Duration,
    /// After this time any server is asked (T2).
    pub rebind: Duration,
}

/// What goes without addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Name servers, at most three.
    pub name_servers: Vec<Ipv6Addr>,
    /// Search domains.
    pub domains: Vec<String>,
    /// Time servers, at most three.
    pub time_servers: Vec<Ipv6Addr>,
}

/// Reads the addresses of an advertisement or a reply for the identity association `iaid`. The error
/// says why there are none.
pub fn lease(message: &Message, iaid: u32) -> Result<Lease, &'static str> {
    status(message.option(option::STATUS))?;
    let server = message.option(option::SERVER_ID).filter(|id| (2..=130).contains(&id.len()));
    let server = server.ok_or("no server identifier")?.to_vec();
    let ours = |value: &&[u8]| value.first_chunk() == Some(&iaid.to_be_bytes());
    let all = message.options.iter().filter(|(code, _)| *code == option::IA_NA);
    let association = all.map(|(_, value)| value.as_slice()).find(ours);
    let association = association.and_then(|value| value.split_first_chunk::<12>());
    let (head, inner) = association.ok_or("no answer to what was asked for")?;
    let inner = options(inner).ok_or("malformed options")?;
    status(inner.iter().find(|(code, _)| *code == option::STATUS).map(|(_, value)| *value))?;
    let mut addresses = Vec::new();
    let (mut preferred, mut valid) = (LONGEST, LONGEST);
    for (_, value) in inner.iter().filter(|(code, _)| *code == option::IA_ADDRESS) {
        let Some((head, rest)) = value.split_first_chunk::<24>() else { continue };
        let (Some((octets, _)), Some(rest)) = (head.split_first_chunk::<16>(), options(rest))
        else {
            continue;
        };
        let address = Ipv6Addr::from(*octets);
        let (for_new, for_old) = (seconds(&head[16..20]), seconds(&head[20..24]));
        let refused = rest
            .iter()
            .any(|(code, value)| *code == option::STATUS && status(Some(value)).is_err());
        // RFC 8415, section 21.6: one whose times contradict each other is dropped.
        let sound = is_host(&address) && !for_old.is_zero() && for_new <= for_old;
        if sound && !refused && addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
            preferred = preferred.min(for_new);
            valid = valid.min(for_old);
        }
    }
    if addresses.is_empty() {
        return Err("no address");
    }
    let duration = valid.clamp(SHORTEST, LONGEST);
    let preferred =
        if preferred.is_zero() { duration } else { preferred.clamp(SHORTEST, duration) };
    // RFC 8415, section 14.2: half and four fifths of the preferred time, in this order.
    let rebind = seconds(&head[8..12]);
    let rebind = match !rebind.is_zero() && rebind < duration {
        true => rebind,
        false => preferred * 4 / 5,
    };
    let renew = seconds(&head[4..8]);
    let renew = match !renew.is_zero() && renew <= rebind {
        true => renew,
        false => (preferred / 2).min(rebind),
    };
    Ok(Lease { addresses, server, duration, renew, rebind })
}

/// Reads name servers, domains and time servers.
pub fn facts(message: &Message) -> Facts {
    let name_servers = addresses(message.option(option::NAME_SERVERS).unwrap_or_default());
    Facts {
        name_servers: name_servers.take(MAX_SERVERS).collect(),
        domains: domains::list(message.option(option::DOMAINS).unwrap_or_default()),
        time_servers: time_servers(message),
    }
}

/// Servers that can be asked for the time: those of RFC 5908, else those of RFC 4075. Names and
/// multicast groups of the former are left out.
fn time_servers(message: &Message) -> Vec<Ipv6Addr> {
    /// NTP_SUBOPTION_SRV_ADDR of RFC 5908, section 4.1.
    const ADDRESS: u16 = 1;
    let told = message.options.iter().filter(|(code, _)| *code == option::NTP_SERVER);
    let inner = told.flat_map(|(_, value)| options(value).unwrap_or_default());
    let mut found: Vec<Ipv6Addr> = inner
        .filter(|(code, _)| *code == ADDRESS)
        .flat_map(|(_, value)| addresses(value).collect::<Vec<_>>())
        .collect();
    if found.is_empty() {
        found.extend(addresses(message.option(option::SNTP_SERVERS).unwrap_or_default()));
    }
    found.truncate(MAX_SERVERS);
    found
}

/// The addresses in a list that somebody can answer at.
fn addresses(list: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let (all, _) = list.as_chunks::<16>();
    all.iter().map(|octets| Ipv6Addr::from(*octets)).filter(advertisement::is_server)
}

/// After which time to ask again for [`facts`].
pub fn refresh(message: &Message) -> Duration {
    let told = message.number(option::REFRESH_TIME).map(|s| Duration::from_secs(s.into()));
    told.unwrap_or(REFRESH.1).clamp(REFRESH.0, LONGEST)
}

fn status(value: Option<&[u8]>) -> Result<(), &'static str> {
    match value {
        None => Ok(()),
        Some([0, 0, ..]) => Ok(()),
        Some([0, 2, ..]) => Err("the server has no address left"),
        Some([0, 3, ..]) => Err("the server does not know this address"),
        Some([0, 4, ..]) => Err("the address is not of this link"),
        Some(_) => Err("the server refuses"),
    }
}

fn seconds(bytes: &[u8]) -> Duration {
    let seconds = bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Duration::from_secs(seconds.into()).min(LONGEST)
}

fn is_host(address: &Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_loopback()
        && !address.is_unicast_link_local()
        && address.to_ipv4_mapped().is_none()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::Kind;
    use super::*;
    use proptest::prelude::*;

    pub const IAID: u32 = 9;
    pub const SERVER: [u8; 4] = [0, 3, 0, 1];

    /// An identity association with these times and addresses: preferred, valid.
    pub fn association(times: (u32, u32), addresses: &[(Ipv6Addr, u32, u32)]) -> Vec<u8> {
        let mut value = IAID.to_be_bytes().to_vec();
        value.extend(times.0.to_be_bytes());
        value.extend(times.1.to_be_bytes());
        for (address, preferred, valid) in addresses {
            value.extend([0, 5, 0, 24]);
            value.extend(address.octets());
            value.extend(preferred.to_be_bytes());
            value.extend(valid.to_be_bytes());
        }
        value
    }

    pub fn address(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
    }

    fn reply(options: &[(u16, Vec<u8>)]) -> Message {
        let server = (option::SERVER_ID, SERVER.to_vec());
        let options = std::iter::once(server).chain(options.iter().cloned()).collect();
        Message { kind: Kind::Reply, xid: 1, options }
    }

    fn times(lease: &Lease) -> (u64, u64, u64) {
        (lease.renew.as_secs(), lease.rebind.as_secs(), lease.duration.as_secs())
    }

    #[test]
    fn times_have_an_order_whatever_is_told() {
        let cases = [
            ((0, 0), (1000, 2000), (500, 800, 2000)),
            ((100, 200), (1000, 2000), (100, 200, 2000)),
            ((300, 200), (1000, 2000), (200, 200, 2000)),
            ((100, 9000), (1000, 2000), (100, 800, 2000)),
            ((0, 0), (0, 2000), (1000, 1600, 2000)),
            ((0, 0), (1, 1), (5, 8, 10)),
            ((0, 0), (u32::MAX, u32::MAX), (15_768_000, 25_228_800, 31_536_000)),
        ];
        for (told, (preferred, valid), expected) in cases {
            let ia = association(told, &[(address(1), preferred, valid)]);
            let found = lease(&reply(&[(option::IA_NA, ia)]), IAID).expect("a lease");
            assert_eq!(times(&found), expected, "{told:?} {preferred} {valid}");
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_left_out() {
        let bad = [
            (Ipv6Addr::LOCALHOST, 10, 20),
            ("ff02::1".parse().expect("an address"), 10, 20),
            ("fe80::1".parse().expect("an address"), 10, 20),
            ("::ffff:192.0.2.1".parse().expect("an address"), 10, 20),
            (address(7), 20, 10),
            (address(8), 0, 0),
        ];
        let with = |more: &[_]| [&bad[..], more].concat();
        let ia = association((0, 0), &with(&[(address(1), 60, 90), (address(1), 60, 90)]));
        let found = lease(&reply(&[(option::IA_NA, ia)]), IAID).expect("a lease");
        assert_eq!(found.addresses, [address(1)]);
        let ia = association((0, 0), &bad);
        assert_eq!(lease(&reply(&[(option::IA_NA, ia)]), IAID), Err("no address"));
    }

    #[test]
    fn refusals_are_told_wherever_they_stand() {
        let good = association((0, 0), &[(address(1), 60, 90)]);
        let none_left = (option::STATUS, vec![0, 2]);
        let whole = reply(&[(option::IA_NA, good.clone()), none_left]);
        assert_eq!(lease(&whole, IAID), Err("the server has no address left"));
        let mut inner = good.clone();
        inner.extend([0, 13, 0, 2, 0, 3]);
        let inner = reply(&[(option::IA_NA, inner)]);
        assert_eq!(lease(&inner, IAID), Err("the server does not know this address"));
        let other = reply(&[(option::IA_NA, good)]);
        assert_eq!(lease(&other, IAID + 1), Err("no answer to what was asked for"));
        let cut = reply(&[(option::IA_NA, IAID.to_be_bytes().to_vec())]);
        assert!(lease(&cut, IAID).is_err());
    }

    #[test]
    fn time_servers_of_either_option_are_read() {
        let list = |numbers: &[u16]| -> Vec<u8> {
            numbers.iter().flat_map(|n| address(*n).octets()).collect()
        };
        let sub = |code: u8, value: Vec<u8>| [vec![0, code, 0, value.len() as u8], value].concat();
        let old = (option::SNTP_SERVERS, list(&[1, 2, 3, 4]));
        assert_eq!(
            facts(&reply(std::slice::from_ref(&old))).time_servers,
            [address(1), address(2), address(3)]
        );
        // A multicast group, a name, and one address in each of two options.
        let group = sub(2, Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x101).octets().to_vec());
        let first = [group, sub(3, b"\x03ntp\0".to_vec()), sub(1, list(&[7]))].concat();
        let new = [(option::NTP_SERVER, first), (option::NTP_SERVER, sub(1, list(&[8])))];
        let all = [&[old][..], &new].concat();
        assert_eq!(facts(&reply(&all)).time_servers, [address(7), address(8)]);
        let cut = [(option::NTP_SERVER, vec![0, 1, 0, 16, 1])];
        assert_eq!(facts(&reply(&cut)).time_servers, Vec::<Ipv6Addr>::new());
    }

    #[test]
    fn facts_are_bounded() {
        let mut servers = Ipv6Addr::LOCALHOST.octets().to_vec();
        (1..9).for_each(|n| servers.extend(address(n).octets()));
        servers.push(1);
        let message = reply(&[
            (option::NAME_SERVERS, servers),
            (option::DOMAINS, b"\x03lan\0\x01_\0".to_vec()),
            (option::REFRESH_TIME, vec![0; 4]),
        ]);
        let found = facts(&message);
        assert_eq!(found.name_servers, [address(1), address(2), address(3)]);
        assert_eq!(found.domains, ["lan"]);
        assert_eq!(refresh(&message), REFRESH.0);
        assert_eq!(refresh(&reply(&[])), REFRESH.1);
    }

    proptest! {
        #[test]
        fn a_lease_has_addresses_and_times_in_order(
            noise in proptest::collection::vec(any::<u8>(), 0..120), told in any::<(u32, u32)>(),
            lives in any::<(u32, u32)>(),
        ) {
            let mut ia = association(told, &[(address(1), lives.0, lives.1)]);
            ia.extend(&noise);
            let ia = (option::IA_NA, ia);
            if let Ok(lease) = lease(&reply(&[ia, (option::IA_NA, noise)]), IAID) {
                prop_assert!(!lease.addresses.is_empty());
                prop_assert!(lease.renew <= lease.rebind && lease.rebind <= lease.duration);
                prop_assert!(lease.renew > Duration::ZERO);
            }
        }
    }
}
