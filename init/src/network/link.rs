//! One link with addresses: static ones, a DHCP client and its sockets, and its IPv6 side.

use super::dhcp::lease::Lease;
use super::dhcp::message::{CLIENT_PORT, SERVER_PORT};
use super::dhcp::{Action, Client, Event};
use super::told::Told;
use super::v6::{self, LinkV6};
use super::{MAX_PACKETS, complain, udp};
use crate::log;
use crate::random::Random;
use contract::host_config::{self, Interface, Ipv6};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use sys::netlink::{self, Requests, Route};
use sys::packet::PacketSocket;

/// Default routes of a link get this metric plus its number: the first link wins.
const METRIC: u32 = 100;

/// What is asked of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    dhcp: bool,
    ipv6: Ipv6,
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
    routes: Vec<host_config::Route>,
    metric: Option<u32>,
    mtu: Option<u32>,
    hostname: Option<String>,
}

impl Settings {
    /// Those of the host configuration. Without any a link uses DHCP and what routers say, unless it
    /// is there to carry VLANs. `hostname` is told to the DHCP server.
    pub fn of(interface: Option<&Interface>, carrier: bool, hostname: Option<&str>) -> Settings {
        let hostname = hostname.map(str::to_owned);
        match interface {
            Some(i) => Settings {
                dhcp: i.dhcp,
                ipv6: i.ipv6,
                addresses: i.addresses.clone(),
                gateways: i.gateways.clone(),
                routes: i.routes.clone(),
                metric: i.metric,
                mtu: i.mtu,
                hostname,
            },
            None => Settings {
                dhcp: !carrier,
                ipv6: if carrier { Ipv6::Static } else { Ipv6::Auto },
                addresses: vec![],
                gateways: vec![],
                routes: vec![],
                metric: None,
                mtu: None,
                hostname,
            },
        }
    }

    /// The routes of a link with this number, those on the link itself first: others may lead
    /// through them.
    fn routes(&self, link: i32) -> Vec<Route> {
        let everything = |gateway: &IpAddr| match gateway {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let metric = self.metric(link);
        let route = |destination, gateway, metric| Route {
            destination,
            gateway,
            link,
            metric,
            protocol: netlink::PROTOCOL_STATIC,
        };
        let others = self.routes.iter();
        let others = others.map(|r| route(r.to, r.via, r.metric.unwrap_or(metric)));
        let gateways = self.gateways.iter().map(|g| route((everything(g), 0), Some(*g), metric));
        let mut routes: Vec<Route> = others.chain(gateways).collect();
        routes.sort_by_key(|route| route.gateway.is_some());
        routes
    }

    fn metric(&self, link: i32) -> u32 {
        self.metric.unwrap_or(METRIC + link.unsigned_abs())
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.dhcp, self.addresses.is_empty()) {
            (true, _) => "DHCP",
            (false, false) => "static",
            (false, true) => "no addresses",
        })?;
        for (address, prefix) in &self.addresses {
            write!(f, " {address}/{prefix}")?;
        }
        Ok(())
    }
}

/// A link under our care.
#[derive(Debug)]
pub struct UsedLink {
    /// The kernel's name.
    pub name: String,
    /// Since when it has a global IPv6 address.
    pub ipv6_since: Option<Duration>,
    index: i32,
    mac: Option<[u8; 6]>,
    settings: Settings,
    client: Option<Client>,
    socket: Option<PacketSocket>,
    v6: Option<LinkV6>,
    carrier: bool,
    has_static: bool,
    /// The address that was said on the console: renewals are not.
    said: Option<Ipv4Addr>,
    /// It was said that nobody answers.
    said_unanswered: bool,
}

impl UsedLink {
    /// A link that was just seen for the first time. [`UsedLink::changed`] is to follow.
    pub fn new(link: &netlink::Link, settings: Settings) -> UsedLink {
        UsedLink {
            name: link.name.clone(),
            ipv6_since: None,
            index: link.index,
            mac: link.mac,
            settings,
            client: None,
            socket: None,
            v6: None,
            carrier: false,
            has_static: false,
            said: None,
            said_unanswered: false,
        }
    }

    /// The sockets to wait for.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let v4 = self.socket.as_ref().map(AsFd::as_fd);
        v4.into_iter().chain(self.v6.as_ref().and_then(LinkV6::file))
    }

    /// When a client has something to do, or something that was told no longer holds.
    pub fn deadline(&self) -> Option<Duration> {
        let v4 = self.client.as_ref().and_then(Client::deadline);
        v4.into_iter().chain(self.v6.as_ref().and_then(LinkV6::deadline)).min()
    }

    /// The lease in use.
    fn lease(&self) -> Option<&Lease> {
        self.client.as_ref().and_then(Client::lease)
    }

    /// What DHCP and routers say of names and of the time.
    pub fn told(&self) -> Told {
        let mut told = self.lease().map(Told::from).unwrap_or_default();
        told.link = self.name.clone();
        if let Some(v6) = &self.v6 {
            told.servers.extend(v6.servers());
            told.search.extend(v6.domains());
            told.time_servers.extend(v6.time_servers());
        }
        told
    }

    /// Why it has no address, when it has none.
    pub fn problem(&self) -> Option<String> {
        let unanswered = self.client.as_ref().is_some_and(Client::is_unanswered);
        let why = match (self.carrier, unanswered) {
            _ if self.has_ipv4() || self.ipv6_since.is_some() => return None,
            (false, _) => "no carrier",
            (true, true) => "no DHCP server answers",
            (true, false) if self.client.is_some() => "no DHCP server has granted an address",
            (true, false) => return None,
        };
        Some(format!("{}: {why}", self.name))
    }

    /// Whether there is an IPv4 address, or a static one of any family.
    pub fn has_ipv4(&self) -> bool {
        self.carrier && (self.has_static || self.lease().is_some())
    }

    /// Takes in what the kernel says of the link. Returns whether what it is told changed.
    pub fn changed(&mut self, link: &netlink::Link, kernel: &mut Requests, now: Duration) -> bool {
        self.name.clone_from(&link.name);
        let mut changed = false;
        let new = self.v6.is_none();
        // First: a socket on a link that is off says so to its first user.
        if new || !link.up {
            self.switch_on(kernel);
        }
        if new || self.mac != link.mac {
            // A bond has the address of its first member, once it has one.
            self.mac = link.mac;
            changed |= self.set_up_clients(kernel, now);
        }
        let carrier = link.up && link.carrier;
        if carrier == self.carrier {
            return changed;
        }
        self.carrier = carrier;
        let text = if carrier { "connected" } else { "no carrier" };
        log::line(&format!("network: {}: {text}", self.name));
        if carrier {
            // Whatever was lost while there was none.
            self.has_static = self.configure_static(kernel);
        }
        changed | self.tell_carrier(kernel, now)
    }

    fn tell_carrier(&mut self, kernel: &mut Requests, now: Duration) -> bool {
        let mut changed = false;
        if let Some(client) = &mut self.client {
            let event = if self.carrier { Event::LinkUp } else { Event::LinkDown };
            let actions = client.step(now, event);
            changed |= self.act(actions, kernel);
        }
        if let Some(v6) = &mut self.v6 {
            changed |= v6.set_carrier(self.carrier, kernel, now);
        }
        changed
    }

    /// The IPv6 side of the link.
    pub fn v6(&mut self) -> Option<&mut LinkV6> {
        self.v6.as_mut()
    }

    fn switch_on(&mut self, kernel: &mut Requests) {
        v6::tell_kernel(&self.name, self.settings.ipv6);
        if let Some(mtu) = self.settings.mtu
            && let Err(e) = kernel.set_mtu(self.index, mtu)
        {
            complain(format_args!("{}: set MTU {mtu}", self.name), &e);
        }
        if let Err(e) = kernel.set_up(self.index) {
            complain(format_args!("{}: switch on", self.name), &e);
        }
        self.has_static = self.configure_static(kernel);
    }

    /// Clients for the hardware address that the link has now.
    fn set_up_clients(&mut self, kernel: &mut Requests, now: Duration) -> bool {
        let mut changed = false;
        if let Some(lease) = self.lease().cloned() {
            self.deconfigure(&lease, kernel);
            changed = true;
        }
        (self.client, self.socket) = (None, None);
        if self.settings.dhcp {
            match (self.mac, PacketSocket::open(self.index, CLIENT_PORT)) {
                (Some(mac), Ok(socket)) => {
                    let hostname = self.settings.hostname.clone();
                    self.client = Some(Client::new(mac, hostname, Random::new()));
                    self.socket = Some(socket);
                }
                (_, Err(e)) => complain(format_args!("{}: open a socket", self.name), &e),
                (None, _) => log::line(&format!("network: {}: no MAC address", self.name)),
            }
        }
        if self.v6.is_none() {
            self.v6 = Some(LinkV6::new(self.index, &self.name, self.settings.ipv6, self.mac));
        }
        if self.carrier {
            changed |= self.tell_carrier(kernel, now);
        }
        changed
    }

    fn configure_static(&self, kernel: &mut Requests) -> bool {
        let mut any = false;
        for (address, prefix) in &self.settings.addresses {
            match kernel.add_address(self.index, *address, *prefix) {
                Ok(()) => any = true,
                Err(e) => complain(format_args!("{}: add {address}/{prefix}", self.name), &e),
            }
        }
        for route in self.settings.routes(self.index) {
            // Until the link is on there are no routes over it.
            if let Err(e) = kernel.add_route(&route)
                && self.carrier
            {
                let (to, prefix) = route.destination;
                complain(format_args!("{}: add route to {to}/{prefix}", self.name), &e);
            }
        }
        any
    }

    /// Takes in packets and the time. Returns whether what it is told changed.
    pub fn advance(&mut self, kernel: &mut Requests, now: Duration) -> bool {
        let mut changed = self.v6.as_mut().is_some_and(|v6| v6.advance(kernel, now));
        let mut buffer = [0; 2048];
        for _ in 0..MAX_PACKETS {
            let (Some(client), Some(socket)) = (&mut self.client, &self.socket) else { break };
            match socket.receive(&mut buffer) {
                Ok(Some(packet)) => {
                    if let Some(payload) = udp::unwrap(packet, SERVER_PORT, CLIENT_PORT) {
                        let actions = client.step(now, Event::Received(payload));
                        changed |= self.act(actions, kernel);
                    }
                }
                // ENETDOWN is told once after the link went away; netlink tells that too.
                Ok(None) | Err(_) => break,
            }
        }
        if let Some(client) = &mut self.client {
            let actions = client.step(now, Event::Timer);
            let unanswered = client.is_unanswered();
            if unanswered && !self.said_unanswered {
                log::line(&format!("network: {}: no DHCP server answers", self.name));
            }
            self.said_unanswered = unanswered;
            changed |= self.act(actions, kernel);
        }
        changed
    }

    /// Does what the client says. Returns whether the lease changed.
    fn act(&mut self, actions: Vec<Action>, kernel: &mut Requests) -> bool {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Broadcast(payload) => {
                    let packet = udp::wrap(&payload, CLIENT_PORT, SERVER_PORT);
                    if let Some(socket) = &self.socket
                        && let Err(e) = socket.broadcast(&packet)
                    {
                        complain(format_args!("{}: ask for an address", self.name), &e);
                    }
                }
                Action::Unicast { from, to, payload } => {
                    // The answer comes in by the packet socket; this one is closed again at once.
                    let sent = UdpSocket::bind((from, CLIENT_PORT)).and_then(|socket| {
                        sys::packet::bind_to_link(&socket, &self.name)?;
                        socket.send_to(&payload, (to, SERVER_PORT))
                    });
                    if let Err(e) = sent {
                        complain(format_args!("{}: ask {to} to prolong {from}", self.name), &e);
                    }
                }
                Action::Configure(lease) => {
                    changed = true;
                    self.configure(&lease, kernel);
                }
                Action::Deconfigure(lease) => {
                    changed = true;
                    self.deconfigure(&lease, kernel);
                }
            }
        }
        changed
    }

    fn configure(&mut self, lease: &Lease, kernel: &mut Requests) {
        let Lease { address, prefix, .. } = lease;
        if self.settings.mtu.is_none()
            && let Some(mtu) = lease.mtu
            && let Err(e) = kernel.set_mtu(self.index, mtu)
        {
            complain(format_args!("{}: set MTU {mtu}", self.name), &e);
        }
        if let Err(e) = kernel.add_address(self.index, (*address).into(), *prefix) {
            complain(format_args!("{}: add {address}/{prefix}", self.name), &e);
            return;
        }
        for route in self.routes(lease) {
            if let Err(e) = kernel.add_route(&route) {
                let (to, prefix) = route.destination;
                complain(format_args!("{}: add route to {to}/{prefix}", self.name), &e);
            }
        }
        if self.said.replace(*address) != Some(*address) {
            let (server, seconds) = (lease.server, lease.duration.as_secs());
            let from = format!("{address}/{prefix} from {server} for {seconds} s");
            log::line(&format!("network: {}: {from}", self.name));
        }
    }

    fn deconfigure(&mut self, lease: &Lease, kernel: &mut Requests) {
        log::line(&format!("network: {}: lost {}", self.name, lease.address));
        self.said = None;
        // Routes first; those that went with the link are not missed.
        for route in self.routes(lease) {
            let _ = kernel.remove_route(&route);
        }
        let _ = kernel.remove_address(self.index, lease.address.into(), lease.prefix);
    }

    fn routes(&self, lease: &Lease) -> Vec<Route> {
        let metric = self.settings.metric(self.index);
        let route = |told: &super::dhcp::lease::Route| Route {
            destination: (told.network.into(), told.prefix),
            gateway: (!told.router.is_unspecified()).then(|| told.router.into()),
            link: self.index,
            metric,
            protocol: netlink::PROTOCOL_DHCP,
        };
        let mut routes: Vec<Route> = lease.routes.iter().map(route).collect();
        // Those on the link itself first: others may lead through them.
        routes.sort_by_key(|route| route.gateway.is_some());
        routes
    }
}
