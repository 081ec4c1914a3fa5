//! The IPv6 side of one link: what routers say, and a DHCPv6 client where they, or the host
//! configuration, want one. Addresses out of advertisements and routes are the kernel's work.

use super::advertisement::{self, Heard};
use super::dhcp6::message::{CLIENT_PORT, SERVER_PORT};
use super::dhcp6::{Action, Client, Event, Need};
use super::{MAX_PACKETS, complain};
use crate::log;
use crate::random::Random;
use crate::sysctl;
use contract::host_config::Ipv6;
use sha2::{Digest, Sha256};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use sys::netlink::Requests;

/// All DHCPv6 servers and relays of a link (RFC 8415, section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// DUID-UUID (RFC 6355).
const DUID_UUID: [u8; 2] = [0, 4];

/// What is known and done of IPv6 on one link.
#[derive(Debug)]
pub struct LinkV6 {
    index: i32,
    name: String,
    mode: Ipv6,
    heard: Heard,
    client: Option<Client>,
    socket: Option<UdpSocket>,
    local: Option<Ipv6Addr>,
    carrier: bool,
    /// The addresses that were said on the console: renewals are not.
    said: Vec<Ipv6Addr>,
}

/// Has the kernel do on a link what is asked of IPv6. Advertisements are listened to even though the
/// host forwards packets itself once Docker asks for IPv6.
pub fn tell_kernel(link: &str, mode: Ipv6) {
    let (listen, off) = match mode {
        Ipv6::Auto | Ipv6::Dhcp => ("2", "0"),
        Ipv6::Static => ("0", "0"),
        Ipv6::Off => ("0", "1"),
    };
    let autoconf = if listen == "2" { "1" } else { "0" };
    for (name, value) in [("accept_ra", listen), ("autoconf", autoconf), ("disable_ipv6", off)] {
        // A kernel without IPv6 has no such files, and nothing to configure.
        let _ = sysctl::set(&format!("net/ipv6/conf/{link}/{name}"), value);
    }
}

impl LinkV6 {
    /// A link that was just switched on. `mac` tells it from the host's others.
    pub fn new(index: i32, name: &str, mode: Ipv6, mac: Option<[u8; 6]>) -> LinkV6 {
        let client = match (mode, mac) {
            (Ipv6::Auto | Ipv6::Dhcp, Some(mac)) => {
                let iaid = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
                Some(Client::new(host_id(), iaid, Random::new()))
            }
            _ => None,
        };
        let mut link = LinkV6 {
            index,
            name: name.to_owned(),
            mode,
            heard: Heard::default(),
            client,
            socket: None,
            local: None,
            carrier: false,
            said: Vec::new(),
        };
        if mode == Ipv6::Dhcp
            && let Some(client) = &mut link.client
        {
            // Its link is down: there is nothing to do yet.
            client.step(Duration::ZERO, Event::Need(Need::Addresses));
        }
        link
    }

    /// The socket to wait for.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        let client = self.client.as_ref().and_then(Client::deadline);
        client.into_iter().chain(self.heard.deadline()).min()
    }

    /// Whether routers are listened to at all.
    fn listens(&self) -> bool {
        matches!(self.mode, Ipv6::Auto | Ipv6::Dhcp)
    }

    /// Name servers, those of routers last.
    pub fn servers(&self) -> Vec<IpAddr> {
        let told = self.client.iter().flat_map(|client| client.facts().name_servers.clone());
        told.chain(self.heard.servers()).map(IpAddr::V6).collect()
    }

    /// Time servers.
    pub fn time_servers(&self) -> impl Iterator<Item = IpAddr> {
        let told = self.client.iter().flat_map(|client| &client.facts().time_servers);
        told.copied().map(IpAddr::V6)
    }

    /// Search domains.
    pub fn domains(&self) -> Vec<String> {
        let told = self.client.iter().flat_map(|client| client.facts().domains.clone());
        told.chain(self.heard.domains()).collect()
    }

    /// The cable was put in or taken out. Returns whether what is told changed.
    pub fn set_carrier(&mut self, carrier: bool, kernel: &mut Requests, now: Duration) -> bool {
        self.carrier = carrier;
        if !carrier {
            // The cable may be put in elsewhere.
            self.heard.clear();
        }
        self.follow(kernel, now) | !carrier
    }

    /// The link has an address of its own. Returns whether what is told changed.
    pub fn set_local(&mut self, address: Ipv6Addr, kernel: &mut Requests, now: Duration) -> bool {
        if self.local.replace(address) != Some(address) {
            self.socket = None;
        }
        self.follow(kernel, now)
    }

    /// A router says whether to ask by DHCPv6.
    pub fn routed(
        &mut self,
        managed: bool,
        other: bool,
        kernel: &mut Requests,
        now: Duration,
    ) -> bool {
        let need = match (self.mode, managed, other) {
            (Ipv6::Dhcp, ..) | (_, true, _) => Need::Addresses,
            (_, _, true) => Need::Facts,
            _ => Need::Nothing,
        };
        match &mut self.client {
            Some(client) => {
                let actions = client.step(now, Event::Need(need));
                self.act(actions, kernel)
            }
            None => false,
        }
    }

    /// What a router says that the kernel leaves to us.
    pub fn heard(&mut self, options: &[u8], now: Duration) -> bool {
        self.listens() && self.heard.hear(advertisement::read(options), now)
    }

    /// Takes in packets and the time. Returns whether what is told changed.
    pub fn advance(&mut self, kernel: &mut Requests, now: Duration) -> bool {
        let mut changed =
            self.heard.deadline().is_some_and(|at| at <= now) && self.heard.expire(now);
        let mut buffer = [0; 2048];
        for _ in 0..MAX_PACKETS {
            let (Some(client), Some(socket)) = (&mut self.client, &self.socket) else { break };
            let Ok((n, from)) = socket.recv_from(&mut buffer) else { break };
            if from.port() == SERVER_PORT {
                let before = client.facts().clone();
                let actions = client.step(now, Event::Received(&buffer[..n]));
                changed |= before != *client.facts();
                changed |= self.act(actions, kernel);
            }
        }
        if let Some(client) = &mut self.client {
            let actions = client.step(now, Event::Timer);
            changed |= self.act(actions, kernel);
        }
        changed
    }

    /// The client can speak when there are both a cable and an address.
    fn follow(&mut self, kernel: &mut Requests, now: Duration) -> bool {
        let Some(client) = &mut self.client else { return false };
        let actions = match (self.carrier, self.local) {
            (true, Some(_)) => client.step(now, Event::LinkUp),
            _ => client.step(now, Event::LinkDown),
        };
        self.act(actions, kernel)
    }

    fn act(&mut self, actions: Vec<Action>, kernel: &mut Requests) -> bool {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Send(payload) => {
                    if let Err(e) = self.send(&payload) {
                        complain(format_args!("{}: ask by DHCPv6", self.name), &e);
                    }
                }
                Action::Configure(lease) => {
                    changed = true;
                    for address in &lease.addresses {
                        // The network itself is told by routers, not by DHCPv6.
                        if let Err(e) = kernel.add_address(self.index, (*address).into(), 128) {
                            complain(format_args!("{}: add {address}/128", self.name), &e);
                        } else if !self.said.contains(address) {
                            let seconds = lease.duration.as_secs();
                            let text = format!("{address}/128 by DHCPv6 for {seconds} s");
                            log::line(&format!("network: {}: {text}", self.name));
                        }
                    }
                    self.said = lease.addresses;
                }
                Action::Deconfigure(lease) => {
                    changed = true;
                    self.said.clear();
                    for address in &lease.addresses {
                        log::line(&format!("network: {}: lost {address}", self.name));
                        // It may have gone with the link.
                        let _ = kernel.remove_address(self.index, (*address).into(), 128);
                    }
                }
            }
        }
        // Nobody else has a reason to send something to this port.
        if !self.client.as_ref().is_some_and(Client::awaits_an_answer) {
            self.socket = None;
        }
        changed
    }

    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some(local) = self.local else { return Ok(()) };
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(local, self.index)?,
        };
        let all = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.index.unsigned_abs());
        self.socket.insert(socket).send_to(payload, all).map(drop)
    }
}

fn open(local: Ipv6Addr, index: i32) -> io::Result<UdpSocket> {
    let scope = index.unsigned_abs();
    let socket = UdpSocket::bind(SocketAddrV6::new(local, CLIENT_PORT, 0, scope))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What names this host to DHCPv6 servers: always the same, whatever cards it has, and no help in
/// finding out its machine ID (machine-id(5)).
fn host_id() -> Vec<u8> {
    let machine = std::fs::read(crate::identity::etc_file("machine-id")).unwrap_or_default();
    let hash = Sha256::new().chain_update(b"berth DHCPv6").chain_update(machine.trim_ascii_end());
    [&DUID_UUID[..], &hash.finalize()[..16]].concat()
}
