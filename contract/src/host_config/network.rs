//! `[network]`: how it is written, and what it means once it was checked.

use super::{Wrong, address, interface, is_domain, merge, topology, unique};
use crate::module_alias;
use crate::update::OneOrMore;
use serde::Deserialize;
use std::net::IpAddr;

/// Most interfaces, and most routes, members, domains and name servers in a list.
pub(super) const MOST: usize = 64;

/// `[network]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNetwork {
    /// Name servers used instead of those that the network tells.
    pub nameservers: Option<Vec<String>>,
    /// DNS search domains.
    pub search: Option<Vec<String>>,
    /// `[[network.interface]]`
    pub interface: Vec<RawInterface>,
}

/// `[[network.interface]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawInterface {
    /// Kernel name (`eth0`), MAC address (`52:54:00:12:34:56`) or a pattern of either (`eth*`,
    /// `52:54:00:*`); of a bond, bridge or VLAN its new name.
    pub name: String,
    /// Ask for an address by DHCPv4. Defaults to true unless `address` is given.
    pub dhcp: Option<bool>,
    /// `auto`, `dhcp`, `static` or `off`.
    pub ipv6: Option<String>,
    /// Static addresses with prefix length: `192.0.2.10/24`.
    pub address: Option<Vec<String>>,
    /// Default gateway, or one of each family.
    pub gateway: Option<OneOrMore>,
    /// `[[network.interface.route]]`
    pub route: Vec<RawRoute>,
    /// Of its default routes; the lowest wins.
    pub metric: Option<u32>,
    /// Bytes; the link's own default otherwise.
    pub mtu: Option<u32>,
    /// Several links as one.
    pub bond: Option<RawBond>,
    /// A switch in software.
    pub bridge: Option<RawBridge>,
    /// A network among several on one link.
    pub vlan: Option<RawVlan>,
}

/// `[[network.interface.route]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRoute {
    /// Network with prefix length.
    pub to: String,
    /// The next router; without one the network is on the link.
    pub via: Option<String>,
    /// The lowest wins.
    pub metric: Option<u32>,
}

/// `bond` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawBond {
    /// Links by name, MAC address or pattern.
    pub members: Vec<String>,
    /// As the kernel names it.
    pub mode: Option<String>,
    /// Milliseconds between two looks at the members' carrier.
    pub monitor: Option<u32>,
    /// `slow` or `fast`.
    pub lacp_rate: Option<String>,
    /// `layer2`, `layer2+3` or `layer3+4`.
    pub transmit_hash: Option<String>,
}

/// `bridge` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBridge {
    /// Links by name, MAC address or pattern.
    pub members: Vec<String>,
    /// Whether it speaks the spanning tree protocol.
    pub stp: bool,
}

/// `vlan` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawVlan {
    /// The link that carries it, by name or MAC address.
    pub link: String,
    /// Its number.
    pub id: u32,
}

/// Settings of one link, or of several that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Which links, or the name of a new one.
    pub link: Link,
    /// What is to be made; `None`: the link exists.
    pub device: Option<Device>,
    /// Ask for an address by DHCPv4.
    pub dhcp: bool,
    /// How IPv6 addresses come about.
    pub ipv6: Ipv6,
    /// Static addresses and prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Other routes.
    pub routes: Vec<Route>,
    /// Of default routes.
    pub metric: Option<u32>,
    /// In bytes.
    pub mtu: Option<u32>,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Network and prefix length.
    pub to: (IpAddr, u8),
    /// The next router; `None`: the network is on the link.
    pub via: Option<IpAddr>,
    /// The lowest wins.
    pub metric: Option<u32>,
}

/// How IPv6 addresses come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// By what routers advertise, which may be to ask by DHCPv6.
    Auto,
    /// By DHCPv6, besides what routers advertise.
    Dhcp,
    /// Routers are not listened to.
    Static,
    /// There is no IPv6.
    Off,
}

/// How links are named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// By the kernel.
    Name(String),
    /// By hardware address.
    Mac([u8; 6]),
    /// By a pattern of the kernel's name.
    NamePattern(String),
    /// By a pattern of the hardware address in lower case.
    MacPattern(String),
}

impl Link {
    /// Whether it means the link of this name and hardware address.
    pub fn matches(&self, name: &str, mac: Option<[u8; 6]>) -> bool {
        match self {
            Link::Name(wanted) => wanted == name,
            Link::Mac(wanted) => mac == Some(*wanted),
            Link::NamePattern(pattern) => module_alias::matches(pattern, name),
            Link::MacPattern(pattern) => {
                mac.is_some_and(|mac| module_alias::matches(pattern, &mac_text(mac)))
            }
        }
    }

    /// Whether it can mean one link only.
    pub const fn is_exact(&self) -> bool {
        matches!(self, Link::Name(_) | Link::Mac(_))
    }
}

/// A hardware address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// What is made out of other links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Several links as one.
    Bond(Bond),
    /// A switch in software.
    Bridge(Bridge),
    /// A network among several on one link.
    Vlan(Vlan),
}

impl Device {
    /// What it is called in the configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Device::Bond(_) => "bond",
            Device::Bridge(_) => "bridge",
            Device::Vlan(_) => "vlan",
        }
    }

    /// Links that become part of it.
    pub fn members(&self) -> &[Link] {
        match self {
            Device::Bond(bond) => &bond.members,
            Device::Bridge(bridge) => &bridge.members,
            Device::Vlan(_) => &[],
        }
    }
}

/// Several links as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Which links.
    pub members: Vec<Link>,
    /// Which member sends what.
    pub mode: BondMode,
    /// Milliseconds between two looks at the members' carrier.
    pub monitor: u32,
    /// Whether LACP packets go every second instead of every 30 s.
    pub lacp_fast: bool,
    /// What chooses a member for a packet, as the kernel numbers it.
    pub transmit_hash: Option<TransmitHash>,
}

/// `BOND_MODE_*` of linux/if_bonding.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BondMode {
    /// Packets one by one over all members.
    BalanceRr = 0,
    /// One member at a time.
    ActiveBackup = 1,
    /// By a hash of the packet.
    BalanceXor = 2,
    /// Every packet over every member.
    Broadcast = 3,
    /// LACP, with a switch that speaks it too.
    Ieee8023ad = 4,
    /// By load when sending.
    BalanceTlb = 5,
    /// By load in both directions.
    BalanceAlb = 6,
}

/// `BOND_XMIT_POLICY_*` of linux/if_bonding.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TransmitHash {
    /// Hardware addresses.
    Layer2 = 0,
    /// Addresses and ports.
    Layer34 = 1,
    /// Hardware addresses and addresses.
    Layer23 = 2,
}

/// A switch in software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Which links.
    pub members: Vec<Link>,
    /// Whether it speaks the spanning tree protocol.
    pub stp: bool,
}

/// A network among several on one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The link that carries it, by name or MAC address.
    pub link: Link,
    /// Its number, from 1 to 4094.
    pub id: u16,
}

/// `[network]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) nameservers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    pub(super) interfaces: Vec<Interface>,
}

impl RawNetwork {
    /// This layer over `below`: its keys win, interfaces are told apart by name.
    pub(super) fn over(self, below: RawNetwork) -> RawNetwork {
        RawNetwork {
            nameservers: self.nameservers.or(below.nameservers),
            search: self.search.or(below.search),
            interface: merge(below.interface, self.interface, |i| &i.name),
        }
    }

    pub(super) fn validate(self) -> Result<Network, Wrong> {
        let nameservers = self.nameservers.unwrap_or_default();
        let search = self.search.unwrap_or_default();
        bounded("nameservers", nameservers.len())?;
        bounded("search", search.len())?;
        bounded("interface", self.interface.len())?;
        let nameservers = nameservers
            .iter()
            .enumerate()
            .map(|(i, text)| address(text).map_err(|why| Wrong(format!("nameservers.{i}"), why)));
        let nameservers = nameservers.collect::<Result<_, _>>()?;
        for (i, domain) in search.iter().enumerate() {
            if !is_domain(domain) {
                let why = format!("`{domain}` is not a domain name");
                return Err(Wrong(format!("search.{i}"), why));
            }
        }
        unique("interface", self.interface.iter().map(|i| &i.name))?;
        let carriers = topology::carriers(&self.interface);
        let interfaces = self.interface.into_iter().enumerate().map(|(i, raw)| {
            let carrier = carriers.contains(&raw.name);
            interface::validate(raw, carrier)
                .map_err(|wrong| wrong.below(&format!("interface.{i}")))
        });
        let interfaces = interfaces.collect::<Result<Vec<_>, _>>()?;
        topology::check(&interfaces)?;
        Ok(Network { nameservers, search, interfaces })
    }
}

/// Refuses lists that nobody would write.
pub(super) fn bounded(key: &str, len: usize) -> Result<(), Wrong> {
    match len > MOST {
        true => Err(Wrong::new(key, format!("{len} entries; at most {MOST} are taken"))),
        false => Ok(()),
    }
}
