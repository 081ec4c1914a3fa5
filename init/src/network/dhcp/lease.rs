//! What a DHCP server grants, checked: nothing of it is used before.

use super::super::domains;
use super::super::told::MAX_SERVERS;
use super::message::{Message, option};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Most routes that are kept.
const MAX_ROUTES: usize = 64;
/// Shorter leases are taken for this long, so that a server cannot make us ask all the time.
const SHORTEST: Duration = Duration::from_secs(10);
/// RFC 2131, section 3.3: this lease never ends. A year is near enough, and adds up to no overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A route that a server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub network: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The router; unspecified: the network is on the link.
    pub router: Ipv4Addr,
}

/// An address and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length of its network.
    pub prefix: u8,
    /// The default route and others.
    pub routes: Vec<Route>,
    /// Name servers, at most three.
    pub name_servers: Vec<Ipv4Addr>,
    /// Time servers, at most three (RFC 2132, section 8.3).
    pub time_servers: Vec<Ipv4Addr>,
    /// Domain of the host.
    pub domain: Option<String>,
    /// Domains in which short names are looked up (RFC 3397).
    pub search: Vec<String>,
    /// Name of the host.
    pub hostname: Option<String>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// The server that granted it.
    pub server: Ipv4Addr,
    /// How long it holds.
    pub duration: Duration,
    /// After this time its server is asked to prolong it (T1).
    pub renew: Duration,
    /// After this time any server is asked (T2).
    pub rebind: Duration,
}

impl Lease {
    /// Reads an offer or an acknowledgement. The error says what is wrong with it.
    pub fn from_message(message: &Message) -> Result<Lease, &'static str> {
        let address = message.yours;
        if !is_host(address) {
            return Err("the address is not one that a host can have");
        }
        let server = message.address(option::SERVER_ID).ok_or("no server identifier")?;
        if !is_host(server) {
            return Err("the server identifier is not an address");
        }
        let prefix = match message.address(option::SUBNET_MASK) {
            Some(mask) => prefix_of(mask).ok_or("the subnet mask has holes")?,
            None => classful_prefix(address),
        };
        let seconds = message.number(option::LEASE_TIME).ok_or("no lease time")?;
        let duration = Duration::from_secs(seconds.into()).clamp(SHORTEST, LONGEST);
        let time = |code| message.number(code).map(|s| Duration::from_secs(s.into()));
        // RFC 2131, section 4.4.5: half and seven eighths of the lease, in this order.
        let rebind = time(option::REBINDING_TIME)
            .filter(|t| *t > Duration::ZERO && *t < duration)
            .unwrap_or(duration * 7 / 8);
        let renew = time(option::RENEWAL_TIME)
            .filter(|t| *t > Duration::ZERO && *t <= rebind)
            .unwrap_or((duration / 2).min(rebind));
        Ok(Lease {
            address,
            prefix,
            routes: routes(message),
            name_servers: message
                .addresses(option::NAME_SERVER)
                .filter(|a| is_host(*a) || a.is_loopback())
                .take(MAX_SERVERS)
                .collect(),
            time_servers: message
                .addresses(option::TIME_SERVER)
                .filter(|a| is_host(*a))
                .take(MAX_SERVERS)
                .collect(),
            domain: message.text(option::DOMAIN_NAME).and_then(domains::name),
            search: message
                .options
                .get(&option::DOMAIN_SEARCH)
                .map_or_else(Vec::new, |list| domains::list(list)),
            hostname: message.text(option::HOST_NAME).and_then(domains::name),
            mtu: message.options.get(&option::MTU).and_then(|value| {
                let mtu = u32::from(u16::from_be_bytes(value.as_slice().try_into().ok()?));
                // Below 1280 IPv6 stops working; above 9216 no switch carries it.
                (1280..=9216).contains(&mtu).then_some(mtu)
            }),
            server,
            duration,
            renew,
            rebind,
        })
    }
}

/// RFC 3442: where classless routes are told, the router option does not count.
fn routes(message: &Message) -> Vec<Route> {
    let told = message.options.get(&option::CLASSLESS_ROUTES).map(Vec::as_slice);
    match told.and_then(classless_routes) {
        Some(routes) => routes,
        None => message
            .address(option::ROUTER)
            .filter(|router| is_host(*router))
            .map(|router| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router })
            .into_iter()
            .collect(),
    }
}

fn classless_routes(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let [prefix, rest @ ..] = bytes {
        let significant = usize::from(prefix.div_ceil(8));
        let (network, rest) = rest.split_at_checked(significant)?;
        let (router, rest) = rest.split_at_checked(4)?;
        let mut octets = [0; 4];
        octets.get_mut(..significant)?.copy_from_slice(network);
        let mask = contract::host_config::netmask(*prefix);
        let network = Ipv4Addr::from(octets) & mask;
        let router = Ipv4Addr::new(router[0], router[1], router[2], router[3]);
        if routes.len() < MAX_ROUTES && (is_host(router) || router.is_unspecified()) {
            routes.push(Route { network, prefix: *prefix, router });
        }
        bytes = rest;
    }
    (!routes.is_empty()).then_some(routes)
}

fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified()
        && !address.is_broadcast()
        && !address.is_multicast()
        && !address.is_loopback()
        && address.octets()[0] != 0
        && address.octets()[0] < 240
}

fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let prefix = bits.leading_ones() as u8;
    (prefix > 0 && contract::host_config::netmask(prefix) == mask).then_some(prefix)
}

fn classful_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Kind;
    use super::*;
    use std::collections::BTreeMap;

    fn ack(options: &[(u8, &[u8])]) -> Message {
        let mut all = BTreeMap::from([
            (option::SERVER_ID, vec![192, 0, 2, 1]),
            (option::LEASE_TIME, 3600u32.to_be_bytes().to_vec()),
            (option::SUBNET_MASK, vec![255, 255, 255, 0]),
        ]);
        all.extend(options.iter().map(|(code, value)| (*code, value.to_vec())));
        Message {
            kind: Kind::Ack,
            reply: true,
            xid: 1,
            seconds: 0,
            broadcast: false,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::new(192, 0, 2, 7),
            mac: [0; 6],
            options: all,
        }
    }

    fn lease(options: &[(u8, &[u8])]) -> Result<Lease, &'static str> {
        Lease::from_message(&ack(options))
    }

    fn route(network: [u8; 4], prefix: u8, router: [u8; 4]) -> Route {
        Route { network: network.into(), prefix, router: router.into() }
    }

    #[test]
    fn times_default_to_half_and_seven_eighths() {
        let lease = lease(&[]).expect("a lease");
        assert_eq!(lease.duration.as_secs(), 3600);
        assert_eq!((lease.renew.as_secs(), lease.rebind.as_secs()), (1800, 3150));
    }

    #[test]
    fn times_out_of_order_are_replaced() {
        let lease = lease(&[(58, &[0, 0, 14, 0]), (59, &[0, 0, 0, 100])]).expect("a lease");
        assert_eq!((lease.renew.as_secs(), lease.rebind.as_secs()), (100, 100));
    }

    #[test]
    fn routes_by_router_and_by_classless_option() {
        let default = [route([0; 4], 0, [192, 0, 2, 1])];
        assert_eq!(lease(&[(3, &[192, 0, 2, 1])]).expect("a lease").routes, default);
        let told = [0, 192, 0, 2, 254, 20, 10, 1, 255, 192, 0, 2, 2, 32, 10, 9, 9, 9, 0, 0, 0, 0];
        let both = lease(&[(3, &[192, 0, 2, 1]), (121, &told)]).expect("a lease");
        let expected = [
            route([0; 4], 0, [192, 0, 2, 254]),
            route([10, 1, 240, 0], 20, [192, 0, 2, 2]),
            route([10, 9, 9, 9], 32, [0; 4]),
        ];
        assert_eq!(both.routes, expected);
    }

    #[test]
    fn malformed_classless_routes_fall_back_to_the_router() {
        for bad in [&[33, 1, 2, 3, 4, 5, 1, 1, 1, 1][..], &[24, 10, 0], &[]] {
            let lease = lease(&[(3, &[192, 0, 2, 1]), (121, bad)]).expect("a lease");
            assert_eq!(lease.routes, [route([0; 4], 0, [192, 0, 2, 1])], "{bad:?}");
        }
    }

    #[test]
    fn bad_values_are_refused_or_left_out() {
        assert!(lease(&[(54, &[0, 0, 0, 0])]).is_err());
        assert!(lease(&[(51, &[1])]).is_err());
        assert!(lease(&[(1, &[255, 0, 255, 0])]).is_err());
        let mut message = ack(&[]);
        for bad in [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]] {
            message.yours = bad.into();
            assert!(Lease::from_message(&message).is_err(), "{bad:?}");
        }
        let bad = lease(&[
            (15, b"example.org\nnameserver 6.6.6.6"),
            (12, b"-x"),
            (26, &[0, 68]),
            (6, &[0, 0, 0, 0, 192, 0, 2, 53]),
        ]);
        let bad = bad.expect("a lease");
        assert_eq!((bad.domain, bad.hostname, bad.mtu), (None, None, None));
        assert_eq!(bad.name_servers, [Ipv4Addr::new(192, 0, 2, 53)]);
    }

    #[test]
    fn good_values_are_kept() {
        let search = b"\x03eng\x07example\x03org\0\x02hr\xc0\x04";
        let good =
            lease(&[(15, b"example.org.\0"), (12, b"node-1"), (26, &[5, 220]), (119, search)]);
        let good = good.expect("a lease");
        assert_eq!(good.search, ["eng.example.org", "hr.example.org"]);
        assert_eq!(good.domain.as_deref(), Some("example.org"));
        assert_eq!(good.hostname.as_deref(), Some("node-1"));
        assert_eq!(good.mtu, Some(1500));
    }

    #[test]
    fn endless_and_tiny_leases_are_bounded() {
        assert_eq!(lease(&[(51, &[255; 4])]).expect("a lease").duration, LONGEST);
        assert_eq!(lease(&[(51, &[0; 4])]).expect("a lease").duration, SHORTEST);
    }
}
