//! Links, addresses and routes by rtnetlink(7).

mod device;
mod event;
mod message;

pub use device::NewDevice;
pub use event::{Address, Event, Link};

use event::{address, event};
use message::{Body, Message, messages};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNDUSEROPT: u16 = 68;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// RTMGRP_LINK, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_IFINFO, and the bit of RTNLGRP_ND_USEROPT (20).
const GROUPS: u32 = 1 | 0x100 | 0x800 | 1 << 19;

const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// The kernel sends at most 32 KiB a datagram.
const BUFFER: usize = 32 * 1024;
/// The kernel answers at once; this is a net against never.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Network and prefix length; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: (IpAddr, u8),
    /// The next router; `None`: the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub link: i32,
    /// Of routes to the same destination the one with the lowest wins.
    pub metric: u32,
    /// `RTPROT_*`: who made it.
    pub protocol: u8,
}

/// `RTPROT_STATIC`: made by a person's configuration.
pub const PROTOCOL_STATIC: u8 = 4;
/// `RTPROT_DHCP`.
pub const PROTOCOL_DHCP: u8 = 16;

/// Tells what happens to links. Does not change them: that is [`Requests`].
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let fd = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
    Ok(fd)
}

/// One datagram; `None` when it did not come from the kernel.
fn receive<'a>(
    fd: &OwnedFd,
    buffer: &'a mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<&'a [u8]>> {
    let (n, _, from) = rustix::net::recvfrom(fd, &mut *buffer, flags)?;
    let kernel = match from.map(SocketAddrNetlink::try_from) {
        Some(Ok(from)) => from.pid() == 0,
        _ => false,
    };
    Ok(kernel.then_some(&buffer[..n]))
}

impl Events {
    /// Starts listening. To be followed by [`Requests::links`], which tells what exists already.
    pub fn open() -> io::Result<Events> {
        Ok(Events { fd: open(GROUPS)?, buffer: vec![0; BUFFER] })
    }

    /// What has happened since the last call, without waiting. `None`: so much that some of it was
    /// lost, and [`Requests::links`] should be asked again.
    pub fn read(&mut self) -> io::Result<Option<Vec<Event>>> {
        let mut events = Vec::new();
        loop {
            match receive(&self.fd, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(Some(bytes)) => events.extend(messages(bytes).filter_map(|m| event(&m))),
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Some(events)),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks the kernel to change links, addresses and routes.
#[derive(Debug)]
pub struct Requests {
    fd: OwnedFd,
    sequence: u32,
}

impl Requests {
    /// Opens the way to the kernel.
    pub fn open() -> io::Result<Requests> {
        let fd = open(0)?;
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(ANSWER_WITHIN),
        )?;
        Ok(Requests { fd, sequence: 0 })
    }

    /// All links.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut body = Body::default();
        body.raw(&[0; 16]);
        self.ask(RTM_GETLINK, NLM_F_DUMP, &body, |answer| match event(answer) {
            Some(Event::Link(link)) => Some(link),
            _ => None,
        })
    }

    /// All addresses that reach further than a link or this host.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut body = Body::default();
        body.raw(&[0; 8]);
        self.ask(RTM_GETADDR, NLM_F_DUMP, &body, address)
    }

    /// Switches a link on.
    pub fn set_up(&mut self, link: i32) -> io::Result<()> {
        self.change_link(link, IFF_UP, IFF_UP, &[])
    }

    /// Switches a link off.
    pub fn set_down(&mut self, link: i32) -> io::Result<()> {
        self.change_link(link, 0, IFF_UP, &[])
    }

    /// Sets the largest packet of a link, in bytes.
    pub fn set_mtu(&mut self, link: i32, mtu: u32) -> io::Result<()> {
        const IFLA_MTU: u16 = 4;
        self.change_link(link, 0, 0, &[(IFLA_MTU, &mtu.to_ne_bytes())])
    }

    /// Gives a link another hardware address.
    pub fn set_mac(&mut self, link: i32, mac: [u8; 6]) -> io::Result<()> {
        const IFLA_ADDRESS: u16 = 1;
        self.change_link(link, 0, 0, &[(IFLA_ADDRESS, &mac)])
    }

    /// Makes a link part of a bond, which wants it switched off, or of a bridge.
    pub fn set_master(&mut self, link: i32, master: i32) -> io::Result<()> {
        const IFLA_MASTER: u16 = 10;
        self.change_link(link, 0, 0, &[(IFLA_MASTER, &master.to_ne_bytes())])
    }

    /// Makes a link out of others.
    pub fn create(&mut self, name: &str, device: &NewDevice) -> io::Result<()> {
        self.order(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &device.body(name))
    }

    fn change_link(
        &mut self,
        link: i32,
        flags: u32,
        mask: u32,
        attributes: &[(u16, &[u8])],
    ) -> io::Result<()> {
        let mut body = Body::default();
        body.link(link, flags, mask);
        for (kind, value) in attributes {
            body.attribute(*kind, value);
        }
        self.order(RTM_NEWLINK, 0, &body)
    }

    /// Gives a link an address; one that it has already stays.
    pub fn add_address(&mut self, link: i32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let body = address_body(link, address, prefix);
        self.order(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// Takes an address from a link.
    pub fn remove_address(&mut self, link: i32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.order(RTM_DELADDR, 0, &address_body(link, address, prefix))
    }

    /// Adds a route, or replaces the one with the same destination and metric.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        self.order(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route_body(route))
    }

    /// Removes a route.
    pub fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        self.order(RTM_DELROUTE, 0, &route_body(route))
    }

    /// Has one thing done.
    fn order(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        self.ask(kind, NLM_F_ACK | flags, body, |_| None::<()>).map(drop)
    }

    /// Sends one request and reads until the kernel has said that this was all. Of the answers it
    /// gives what `take` makes of them.
    fn ask<T>(
        &mut self,
        kind: u16,
        flags: u16,
        body: &Body,
        take: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = body.message(kind, NLM_F_REQUEST | flags, self.sequence);
        let kernel = SocketAddrAny::from(SocketAddrNetlink::new(0, 0));
        rustix::net::sendto(&self.fd, &request, SendFlags::empty(), &kernel)?;
        let mut buffer = vec![0; BUFFER];
        let mut answers = Vec::new();
        loop {
            let Some(bytes) = receive(&self.fd, &mut buffer, RecvFlags::empty())? else { continue };
            for message in messages(bytes).filter(|m| m.sequence == self.sequence) {
                match message.kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => return answer_code(message.body).map(|()| answers),
                    _ => answers.extend(take(&message)),
                }
            }
        }
    }
}

fn answer_code(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn address_body(link: i32, address: IpAddr, prefix: u8) -> Body {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut body = Body::default();
    body.raw(&[family(address), prefix, 0, 0]);
    body.raw(&link.to_ne_bytes());
    body.attribute(IFA_LOCAL, &octets(address));
    body.attribute(IFA_ADDRESS, &octets(address));
    body
}

fn route_body(route: &Route) -> Body {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    let (destination, prefix) = route.destination;
    let scope = if route.gateway.is_some() { 0 } else { RT_SCOPE_LINK };
    // A router need not be in the link's own network: clouds hand out /32 addresses.
    let flags = if route.gateway.is_some() { RTNH_F_ONLINK } else { 0 };
    let family = family(destination);
    let mut body = Body::default();
    body.raw(&[family, prefix, 0, 0, RT_TABLE_MAIN, route.protocol, scope, RTN_UNICAST]);
    body.raw(&flags.to_ne_bytes());
    if prefix > 0 {
        body.attribute(RTA_DST, &octets(destination));
    }
    body.attribute(RTA_OIF, &route.link.to_ne_bytes());
    if let Some(gateway) = route.gateway {
        body.attribute(RTA_GATEWAY, &octets(gateway));
    }
    body.attribute(RTA_PRIORITY, &route.metric.to_ne_bytes());
    body
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback() {
        let links = Requests::open().and_then(|mut r| r.links()).expect("links");
        assert!(links.iter().any(|link| link.name == "lo" && !link.ethernet));
        // 127.0.0.1 reaches no further than this machine.
        let addresses = Requests::open().and_then(|mut r| r.addresses()).expect("addresses");
        assert!(addresses.iter().all(|address| !address.address.is_loopback()));
    }
}
