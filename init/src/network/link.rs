//! One wired link: static addresses, or a DHCP client and its sockets.

use super::dhcp::lease::Lease;
use super::dhcp::message::{CLIENT_PORT, SERVER_PORT};
use super::dhcp::{Action, Client, Event};
use super::{complain, sysctl, udp};
use crate::log;
use crate::random::Random;
use contract::host_config::Interface;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use sys::netlink::{self, Requests, Route};
use sys::packet::PacketSocket;

/// Routes of a link get this metric plus its number: the first link wins.
const METRIC: u32 = 100;
/// Packets taken in one go, so that a flood cannot keep PID 1 busy.
const MAX_PACKETS: usize = 32;

/// What is asked of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    dhcp: bool,
    addresses: Vec<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
    mtu: Option<u32>,
    hostname: Option<String>,
}

impl Settings {
    /// Those of the host configuration, or DHCP. `hostname` is told to the DHCP server.
    pub fn of(interface: Option<&Interface>, hostname: Option<&str>) -> Settings {
        let hostname = hostname.map(str::to_owned);
        match interface {
            Some(i) => Settings {
                dhcp: i.dhcp,
                addresses: i.addresses.clone(),
                gateway: i.gateway,
                mtu: i.mtu,
                hostname,
            },
            None => Settings { dhcp: true, addresses: vec![], gateway: None, mtu: None, hostname },
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.dhcp { "DHCP" } else { "static" })?;
        for (address, prefix) in &self.addresses {
            write!(f, " {address}/{prefix}")?;
        }
        Ok(())
    }
}

/// A wired link under our care.
#[derive(Debug)]
pub struct WiredLink {
    /// The kernel's name.
    pub name: String,
    /// Since when it has a global IPv6 address.
    pub ipv6_since: Option<Duration>,
    index: i32,
    mac: Option<[u8; 6]>,
    settings: Settings,
    client: Option<Client>,
    socket: Option<PacketSocket>,
    up: bool,
    carrier: bool,
    has_static: bool,
    /// The address that was said on the console: renewals are not.
    said: Option<Ipv4Addr>,
}

impl WiredLink {
    /// A link that was just seen for the first time. [`WiredLink::changed`] is to follow.
    pub fn new(link: &netlink::Link, settings: Settings) -> WiredLink {
        WiredLink {
            name: link.name.clone(),
            ipv6_since: None,
            index: link.index,
            mac: link.mac,
            settings,
            client: None,
            socket: None,
            up: false,
            carrier: false,
            has_static: false,
            said: None,
        }
    }

    /// The socket to wait for.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// When the DHCP client has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.client.as_ref().and_then(Client::deadline)
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        self.client.as_ref().and_then(Client::lease)
    }

    /// Whether there is an IPv4 address, or a static one of any family.
    pub fn has_ipv4(&self) -> bool {
        self.carrier && (self.has_static || self.lease().is_some())
    }

    /// Takes in what the kernel says of the link. Returns whether the lease changed.
    pub fn changed(&mut self, link: &netlink::Link, kernel: &mut Requests, now: Duration) -> bool {
        self.name.clone_from(&link.name);
        if !self.up {
            self.switch_on(kernel);
        }
        let carrier = link.up && link.carrier;
        if carrier == self.carrier {
            return false;
        }
        self.carrier = carrier;
        log::line(&format!(
            "network: {}: {}",
            self.name,
            if carrier { "connected" } else { "no carrier" }
        ));
        match &mut self.client {
            Some(client) => {
                let event = if carrier { Event::LinkUp } else { Event::LinkDown };
                let actions = client.step(now, event);
                self.act(actions, kernel)
            }
            None => false,
        }
    }

    fn switch_on(&mut self, kernel: &mut Requests) {
        self.up = true;
        sysctl::accept_advertisements(&self.name);
        if let Some(mtu) = self.settings.mtu
            && let Err(e) = kernel.set_mtu(self.index, mtu)
        {
            complain(format_args!("{}: set MTU {mtu}", self.name), &e);
        }
        if let Err(e) = kernel.set_up(self.index) {
            complain(format_args!("{}: switch on", self.name), &e);
        }
        self.has_static = self.configure_static(kernel);
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
    }

    fn configure_static(&self, kernel: &mut Requests) -> bool {
        let mut any = false;
        for (address, prefix) in &self.settings.addresses {
            match kernel.add_address(self.index, *address, *prefix) {
                Ok(()) => any = true,
                Err(e) => complain(format_args!("{}: add {address}/{prefix}", self.name), &e),
            }
        }
        if let Some(gateway) = self.settings.gateway {
            let everything = match gateway {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            };
            let route = Route {
                destination: (everything, 0),
                gateway: Some(gateway),
                link: self.index,
                metric: METRIC + self.index.unsigned_abs(),
                protocol: netlink::PROTOCOL_STATIC,
            };
            if let Err(e) = kernel.add_route(&route) {
                complain(format_args!("{}: add gateway {gateway}", self.name), &e);
            }
        }
        any
    }

    /// Takes in packets and the time. Returns whether the lease changed.
    pub fn advance(&mut self, kernel: &mut Requests, now: Duration) -> bool {
        let mut changed = false;
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
        let metric = METRIC + self.index.unsigned_abs();
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
