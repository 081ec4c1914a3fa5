//! What the kernel tells, read from its messages.

use super::message::{Message, attributes, u16_at, u32_at};
use super::{IFF_UP, RT_SCOPE_LINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNDUSEROPT};
use std::net::{IpAddr, Ipv6Addr};

const IFF_LOWER_UP: u32 = 1 << 16;
const ARPHRD_ETHER: u16 = 1;
/// A tentative address is not usable yet, one that failed duplicate detection never will be.
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
/// What the last router advertisement said of DHCPv6 (linux/if_link.h, net/if_inet6.h).
const IF_RA_OTHERCONF: u32 = 0x80;
const IF_RA_MANAGED: u32 = 0x40;
/// ICMPv6.
const ROUTER_ADVERTISEMENT: u8 = 134;

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: i32,
    /// The kernel's name.
    pub name: String,
    /// Whether it speaks Ethernet.
    pub ethernet: bool,
    /// Hardware address, of links that have one of 6 bytes.
    pub mac: Option<[u8; 6]>,
    /// The hardware address that it came with; bonds change that of their members.
    pub permanent_mac: Option<[u8; 6]>,
    /// Whether it was switched on.
    pub up: bool,
    /// Whether there is someone at the other end of the cable.
    pub carrier: bool,
    /// The bridge or bond that it is part of.
    pub master: Option<i32>,
    /// `bond`, `bridge`, `vlan` and so on; `None` of hardware.
    pub kind: Option<String>,
}

/// What the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link appeared or changed.
    Link(Link),
    /// A link has gone.
    Gone(i32),
    /// A link has got a usable IPv6 address that reaches beyond the link.
    GlobalIpv6(i32),
    /// A link has got the usable IPv6 address that every link has.
    LinkLocal(i32, Ipv6Addr),
    /// A router says whether there is more to ask for by DHCPv6.
    Router {
        /// The link.
        link: i32,
        /// Addresses are (M).
        managed: bool,
        /// Other things are (O).
        other: bool,
    },
    /// Options of a router advertisement that the kernel leaves to others, as they were sent.
    RouterOptions(i32, Vec<u8>),
}

pub(super) fn event(message: &Message<'_>) -> Option<Event> {
    match message.kind {
        RTM_NEWLINK if message.body.first() == Some(&(libc::AF_INET6 as u8)) => {
            router(message.body)
        }
        RTM_NEWLINK => link(message.body).map(Event::Link),
        RTM_DELLINK => {
            // A link that leaves a bridge is told as gone by the bridge's own family.
            let real = message.body.first() == Some(&(libc::AF_UNSPEC as u8));
            let index = u32_at(message.body, 4)? as i32;
            real.then_some(Event::Gone(index))
        }
        RTM_NEWADDR => ipv6(message.body),
        RTM_NEWNDUSEROPT => router_options(message.body),
        _ => None,
    }
}

fn link(body: &[u8]) -> Option<Link> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_PERM_ADDRESS: u16 = 54;
    if body.first() != Some(&(libc::AF_UNSPEC as u8)) {
        return None;
    }
    let text = |value: &[u8]| {
        String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
    };
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)? as i32,
        name: String::new(),
        ethernet: u16_at(body, 2)? == ARPHRD_ETHER,
        mac: None,
        permanent_mac: None,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        master: None,
        kind: None,
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_PERM_ADDRESS => link.permanent_mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = u32_at(value, 0).map(|index| index as i32),
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(link)
}

/// The kernel tells of a link's IPv6 side when a router advertisement changed its flags.
fn router(body: &[u8]) -> Option<Event> {
    const IFLA_PROTINFO: u16 = 12;
    const IFLA_INET6_FLAGS: u16 = 1;
    let link = u32_at(body, 4)? as i32;
    let (_, info) = attributes(body.get(16..)?).find(|(kind, _)| *kind == IFLA_PROTINFO)?;
    let (_, flags) = attributes(info).find(|(kind, _)| *kind == IFLA_INET6_FLAGS)?;
    let flags = u32_at(flags, 0)?;
    let (managed, other) = (flags & IF_RA_MANAGED != 0, flags & IF_RA_OTHERCONF != 0);
    Some(Event::Router { link, managed, other })
}

/// `struct nduseroptmsg`, and the options as they were in the packet.
fn router_options(body: &[u8]) -> Option<Event> {
    let [family, _, low, high] = *body.first_chunk()?;
    let len = usize::from(u16::from_ne_bytes([low, high]));
    let link = u32_at(body, 4)? as i32;
    let options = body.get(16..16 + len)?;
    let advertisement = family == libc::AF_INET6 as u8 && *body.get(8)? == ROUTER_ADVERTISEMENT;
    advertisement.then(|| Event::RouterOptions(link, options.to_vec()))
}

fn ipv6(body: &[u8]) -> Option<Event> {
    let (scope, Address { link, address, .. }) = any_address(body)?;
    match (scope, address) {
        (0, IpAddr::V6(_)) => Some(Event::GlobalIpv6(link)),
        (RT_SCOPE_LINK, IpAddr::V6(address)) => Some(Event::LinkLocal(link, address)),
        _ => None,
    }
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link: i32,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

/// One that is in use, and reaches further than the link.
pub(super) fn address(message: &Message<'_>) -> Option<Address> {
    let (scope, address) = any_address(message.body)?;
    (message.kind == RTM_NEWADDR && scope == 0).then_some(address)
}

/// `struct ifaddrmsg` of an address in use: its scope, and what it says.
fn any_address(body: &[u8]) -> Option<(u8, Address)> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_FLAGS: u16 = 8;
    let [family, prefix, flags, scope] = *body.first_chunk()?;
    let mut flags = u32::from(flags);
    let (mut address, mut local) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            IFA_FLAGS => flags = u32_at(value, 0)?,
            IFA_ADDRESS => address = ip(family, value),
            // Where it differs, the other one is the far end of a line between two.
            IFA_LOCAL => local = ip(family, value),
            _ => {}
        }
    }
    let usable = flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == 0;
    let link = u32_at(body, 4)? as i32;
    usable.then_some((scope, Address { link, address: local.or(address)?, prefix }))
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(<[u8; 4]>::try_from(value).ok()?.into()),
        libc::AF_INET6 => Some(<[u8; 16]>::try_from(value).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Body, messages};
    use super::*;

    fn new_link(family: u8, flags: u32) -> Vec<u8> {
        let mut body = Body::default();
        body.raw(&[family, 0]);
        body.raw(&ARPHRD_ETHER.to_ne_bytes());
        body.raw(&7i32.to_ne_bytes());
        body.raw(&flags.to_ne_bytes());
        body.raw(&[0; 4]);
        body.attribute(3, b"eth0\0");
        body.attribute(1, &[2, 0, 0, 0, 0, 1]);
        let mut info = Body::default();
        info.attribute(1, b"bond");
        body.nested(18, info);
        body.message(RTM_NEWLINK, 0, 1)
    }

    fn events(bytes: &[u8]) -> Vec<Event> {
        messages(bytes).filter_map(|m| event(&m)).collect()
    }

    #[test]
    fn links_are_read() {
        let expected = Link {
            index: 7,
            name: "eth0".into(),
            ethernet: true,
            mac: Some([2, 0, 0, 0, 0, 1]),
            permanent_mac: None,
            up: true,
            carrier: true,
            master: None,
            kind: Some("bond".into()),
        };
        let two = [new_link(0, 0x10001), new_link(0, 1)].concat();
        let no_carrier = Link { carrier: false, ..expected.clone() };
        assert_eq!(events(&two), [Event::Link(expected), Event::Link(no_carrier)]);
    }

    #[test]
    fn what_a_bridge_says_of_its_ports_is_not_about_links() {
        assert_eq!(events(&new_link(libc::AF_BRIDGE as u8, 1)), []);
    }

    #[test]
    fn cut_or_lying_messages_end_quietly() {
        let whole = new_link(0, 1);
        for len in 0..whole.len() {
            assert_eq!(events(&whole[..len]), [], "{len}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0xff] {
                let mut bad = whole.clone();
                bad[at] = value;
                events(&bad);
            }
        }
    }

    #[test]
    fn only_usable_global_addresses_count() {
        let address = |family: i32, flags: u32, scope: u8| {
            let mut body = Body::default();
            body.raw(&[family as u8, 64, 0x80, scope]);
            body.raw(&3i32.to_ne_bytes());
            body.attribute(1, &Ipv6Addr::LOCALHOST.octets());
            body.attribute(8, &flags.to_ne_bytes());
            events(&body.message(RTM_NEWADDR, 0, 1))
        };
        assert_eq!(address(libc::AF_INET6, 0, 0), [Event::GlobalIpv6(3)]);
        assert_eq!(address(libc::AF_INET6, IFA_F_TENTATIVE, 0), []);
        let link_local = Event::LinkLocal(3, Ipv6Addr::LOCALHOST);
        assert_eq!(address(libc::AF_INET6, 0, RT_SCOPE_LINK), [link_local]);
        assert_eq!(address(libc::AF_INET6, IFA_F_TENTATIVE, RT_SCOPE_LINK), []);
        assert_eq!(address(libc::AF_INET, 0, 0), []);
    }

    #[test]
    fn addresses_are_those_of_this_end() {
        let body = |family: i32, scope: u8, attributes: &[(u16, &[u8])]| {
            let mut body = Body::default();
            body.raw(&[family as u8, 24, 0x80, scope]);
            body.raw(&3i32.to_ne_bytes());
            attributes.iter().for_each(|(kind, value)| body.attribute(*kind, value));
            let bytes = body.message(RTM_NEWADDR, 0, 1);
            messages(&bytes).next().and_then(|message| super::address(&message))
        };
        let found = |address: [u8; 4]| {
            Some(Address { link: 3, address: IpAddr::from(address), prefix: 24 })
        };
        let v4 = libc::AF_INET;
        assert_eq!(body(v4, 0, &[(1, &[192, 0, 2, 1])]), found([192, 0, 2, 1]));
        let line = [(1, &[192, 0, 2, 1][..]), (2, &[192, 0, 2, 7])];
        assert_eq!(body(v4, 0, &line), found([192, 0, 2, 7]));
        assert_eq!(body(v4, RT_SCOPE_LINK, &line), None);
        assert_eq!(body(v4, 0, &[(1, &[192, 0, 2])]), None);
        assert_eq!(body(v4, 0, &[]), None);
    }

    #[test]
    fn what_routers_say_is_passed_on() {
        let mut info = Body::default();
        info.attribute(1, &(IF_RA_OTHERCONF | 0x20).to_ne_bytes());
        let mut body = Body::default();
        body.raw(&[libc::AF_INET6 as u8, 0, 1, 0]);
        body.raw(&4i32.to_ne_bytes());
        body.raw(&[0; 8]);
        body.nested(12, info);
        let found = events(&body.message(RTM_NEWLINK, 0, 1));
        assert_eq!(found, [Event::Router { link: 4, managed: false, other: true }]);

        let options = |len: u16, icmp: u8| {
            let mut body = Body::default();
            body.raw(&[libc::AF_INET6 as u8, 0]);
            body.raw(&len.to_ne_bytes());
            body.raw(&4i32.to_ne_bytes());
            body.raw(&[icmp, 0, 0, 0, 0, 0, 0, 0]);
            body.raw(&[25, 1, 0, 0, 0, 0, 0, 9]);
            events(&body.message(RTM_NEWNDUSEROPT, 0, 1))
        };
        let passed = Event::RouterOptions(4, vec![25, 1, 0, 0, 0, 0, 0, 9]);
        assert_eq!(options(8, ROUTER_ADVERTISEMENT), [passed]);
        assert_eq!(options(9, ROUTER_ADVERTISEMENT), []);
        assert_eq!(options(8, 137), []);
    }
}
