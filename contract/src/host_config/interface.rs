//! One `[[network.interface]]` by itself.

use super::network::{
    Bond, BondMode, Bridge, Device, Interface, Ipv6, Link, RawBond, RawBridge, RawInterface,
    RawRoute, RawVlan, Route, TransmitHash, Vlan, bounded,
};
use super::{Wrong, address};
use crate::update::OneOrMore;
use std::net::IpAddr;

/// Milliseconds between two looks at the carrier of a bond's members.
const MONITOR: u32 = 100;

const BOND_MODES: [(&str, BondMode); 7] = [
    ("active-backup", BondMode::ActiveBackup),
    ("802.3ad", BondMode::Ieee8023ad),
    ("balance-rr", BondMode::BalanceRr),
    ("balance-xor", BondMode::BalanceXor),
    ("balance-tlb", BondMode::BalanceTlb),
    ("balance-alb", BondMode::BalanceAlb),
    ("broadcast", BondMode::Broadcast),
];
const HASHES: [(&str, TransmitHash); 3] = [
    ("layer2", TransmitHash::Layer2),
    ("layer2+3", TransmitHash::Layer23),
    ("layer3+4", TransmitHash::Layer34),
];
const LACP_RATES: [(&str, bool); 2] = [("slow", false), ("fast", true)];
const IPV6: [(&str, Ipv6); 4] =
    [("auto", Ipv6::Auto), ("dhcp", Ipv6::Dhcp), ("static", Ipv6::Static), ("off", Ipv6::Off)];

/// Checks one interface. `carrier`: VLANs lie on it, so that by itself it need not have an address.
pub(super) fn validate(raw: RawInterface, carrier: bool) -> Result<Interface, Wrong> {
    let link = link(&raw.name).map_err(|why| Wrong::new("name", why))?;
    let device = device(raw.bond, raw.bridge, raw.vlan)?;
    if device.is_some() && !matches!(&link, Link::Name(name) if is_new_name(name)) {
        let why = format!("`{}` is not a name for a new interface", raw.name);
        return Err(Wrong::new("name", why));
    }
    let written = raw.address.unwrap_or_default();
    bounded("address", written.len())?;
    let mut addresses = Vec::new();
    for (i, text) in written.iter().enumerate() {
        addresses.push(network(text).ok_or_else(|| {
            let why =
                format!("`{text}` is not an address with a prefix length, as in 192.0.2.10/24");
            Wrong(format!("address.{i}"), why)
        })?);
    }
    let dhcp = raw.dhcp.unwrap_or(addresses.is_empty() && !carrier);
    let ipv6 = match &raw.ipv6 {
        Some(text) => one_of("ipv6", text, &IPV6)?,
        None if carrier && addresses.is_empty() => Ipv6::Static,
        None => Ipv6::Auto,
    };
    if ipv6 == Ipv6::Off
        && let Some(i) = addresses.iter().position(|(ip, _)| ip.is_ipv6())
    {
        let why = format!("`{}` is given, but ipv6 is `off`", written[i]);
        return Err(Wrong(format!("address.{i}"), why));
    }
    let gateways = gateways(raw.gateway, &addresses, &raw.name)?;
    bounded("route", raw.route.len())?;
    let routes = raw.route.into_iter().enumerate();
    let routes = routes.map(|(i, raw)| route(raw).map_err(|w| w.below(&format!("route.{i}"))));
    let routes = routes.collect::<Result<_, _>>()?;
    if let Some(mtu) = raw.mtu
        && !(576..=65535).contains(&mtu)
    {
        return Err(Wrong::new("mtu", format!("{mtu} is not in 576..65535")));
    }
    let (metric, mtu) = (raw.metric, raw.mtu);
    Ok(Interface { link, device, dhcp, ipv6, addresses, gateways, routes, metric, mtu })
}

/// A name, a MAC address, or a pattern of either.
pub(super) fn link(text: &str) -> Result<Link, String> {
    let pattern = text.contains(['*', '?']);
    if text.contains(':') {
        let lower = text.to_ascii_lowercase();
        let in_address = |b: u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'*' | b'?');
        if pattern && text.len() <= 17 && lower.bytes().all(in_address) {
            return Ok(Link::MacPattern(lower));
        }
        let octet = |text: &str| match text.len() {
            2 => u8::from_str_radix(text, 16).ok(),
            _ => None,
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        return match octets.and_then(|octets| octets.try_into().ok()) {
            Some(mac) => Ok(Link::Mac(mac)),
            None => Err(format!("`{text}` is not a MAC address")),
        };
    }
    // IFNAMSIZ is 16 with the final NUL. Brackets would be a pattern too, and are in no name.
    let in_name = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '[' | ']' | '\\' | '%');
    match (1..=15).contains(&text.len()) && text.chars().all(in_name) && !text.starts_with('.') {
        true if pattern => Ok(Link::NamePattern(text.to_owned())),
        true => Ok(Link::Name(text.to_owned())),
        false => Err(format!("`{text}` is not an interface name")),
    }
}

/// `all` and `default` are folders among the kernel's settings.
fn is_new_name(name: &str) -> bool {
    !["lo", "all", "default", "bonding_masters"].contains(&name)
}

fn device(
    bond: Option<RawBond>,
    bridge: Option<RawBridge>,
    vlan: Option<RawVlan>,
) -> Result<Option<Device>, Wrong> {
    let devices = [
        bond.map(|raw| self::bond(raw).map_err(|w| w.below("bond"))),
        bridge.map(|raw| self::bridge(raw).map_err(|w| w.below("bridge"))),
        vlan.map(|raw| self::vlan(raw).map_err(|w| w.below("vlan"))),
    ];
    let mut devices = devices.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    if devices.len() > 1 {
        return Err(Wrong::new(
            devices[1].kind(),
            "only one of bond, bridge and vlan can be given",
        ));
    }
    Ok(devices.pop())
}

fn members(texts: &[String]) -> Result<Vec<Link>, Wrong> {
    bounded("members", texts.len())?;
    let links = texts.iter().enumerate();
    let links = links.map(|(i, text)| link(text).map_err(|why| Wrong(format!("members.{i}"), why)));
    links.collect()
}

fn bond(raw: RawBond) -> Result<Device, Wrong> {
    if raw.members.is_empty() {
        return Err(Wrong::new("members", "a bond needs at least one"));
    }
    let mode = raw.mode.as_deref().unwrap_or("active-backup");
    let monitor = raw.monitor.unwrap_or(MONITOR);
    if !(10..=10_000).contains(&monitor) {
        return Err(Wrong::new("monitor", format!("{monitor} is not in 10..10000")));
    }
    let mode = one_of("mode", mode, &BOND_MODES)?;
    let rate = raw.lacp_rate.as_deref();
    if rate.is_some() && mode != BondMode::Ieee8023ad {
        return Err(Wrong::new("lacp-rate", "only a bond of mode `802.3ad` has one"));
    }
    let hash = raw.transmit_hash.as_deref();
    Ok(Device::Bond(Bond {
        members: members(&raw.members)?,
        mode,
        monitor,
        lacp_fast: rate.map_or(Ok(false), |rate| one_of("lacp-rate", rate, &LACP_RATES))?,
        transmit_hash: hash.map(|hash| one_of("transmit-hash", hash, &HASHES)).transpose()?,
    }))
}

fn bridge(raw: RawBridge) -> Result<Device, Wrong> {
    Ok(Device::Bridge(Bridge { members: members(&raw.members)?, stp: raw.stp }))
}

fn vlan(raw: RawVlan) -> Result<Device, Wrong> {
    let on = link(&raw.link).map_err(|why| Wrong::new("link", why))?;
    if !on.is_exact() {
        let why = format!("`{}` may mean several links; a VLAN lies on one", raw.link);
        return Err(Wrong::new("link", why));
    }
    match u16::try_from(raw.id).ok().filter(|id| (1..=4094).contains(id)) {
        Some(id) => Ok(Device::Vlan(Vlan { link: on, id })),
        None => Err(Wrong::new("id", format!("{} is not in 1..4094", raw.id))),
    }
}

fn one_of<T: Copy>(key: &str, text: &str, known: &[(&str, T)]) -> Result<T, Wrong> {
    let found = known.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
        Wrong::new(key, format!("`{text}` is none of {}", names.join(", ")))
    })
}

/// An address and a prefix length.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, prefix))
}

fn gateways(
    written: Option<OneOrMore>,
    addresses: &[(IpAddr, u8)],
    name: &str,
) -> Result<Vec<IpAddr>, Wrong> {
    let (texts, listed) = match written {
        None => return Ok(Vec::new()),
        Some(OneOrMore::One(one)) => (vec![one], false),
        Some(OneOrMore::More(more)) => (more, true),
    };
    let mut gateways: Vec<IpAddr> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let key = if listed { format!("gateway.{i}") } else { "gateway".to_owned() };
        let gateway = match address(text) {
            Ok(gateway) => gateway,
            Err(why) => return Err(Wrong(key, why)),
        };
        let of_family = |ip: &IpAddr| ip.is_ipv4() == gateway.is_ipv4();
        if gateways.iter().any(of_family) {
            let why = format!("{gateway} is a second gateway of its family");
            return Err(Wrong(key, why));
        }
        let mut nets = addresses.iter().filter(|(ip, _)| of_family(ip)).peekable();
        let link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if nets.peek().is_some()
            && !link_local
            && !nets.any(|(ip, prefix)| same_net(*ip, gateway, *prefix))
        {
            let why = format!("{gateway} is in no network of interface `{name}`");
            return Err(Wrong(key, why));
        }
        gateways.push(gateway);
    }
    Ok(gateways)
}

fn route(raw: RawRoute) -> Result<Route, Wrong> {
    let Some(to) = network(&raw.to) else {
        let why = format!("`{}` is not a network as in 198.51.100.0/24", raw.to);
        return Err(Wrong::new("to", why));
    };
    let start = start_of(to);
    if start != to.0 {
        let why = format!("`{}` is an address in {start}/{}, not a network", raw.to, to.1);
        return Err(Wrong::new("to", why));
    }
    let via = raw.via.as_deref().map(address).transpose();
    let via = via.map_err(|why| Wrong::new("via", why))?;
    if let Some(via) = via
        && via.is_ipv4() != to.0.is_ipv4()
    {
        return Err(Wrong::new("via", format!("{via} is not of the family of {}", raw.to)));
    }
    Ok(Route { to, via, metric: raw.metric })
}

/// The first address of a network.
fn start_of((ip, prefix): (IpAddr, u8)) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => (ip & super::netmask(prefix)).into(),
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            std::net::Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

fn same_net(ip: IpAddr, other: IpAddr, prefix: u8) -> bool {
    start_of((ip, prefix)) == start_of((other, prefix))
}
