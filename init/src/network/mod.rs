//! The network of the host: loopback, links, addresses, routes and names.
//!
//! Links come and go; the kernel tells by netlink, and each time it is decided again what is to be
//! made of them ([`plan`]). Hardware that speaks Ethernet over a wire is used, and what the host
//! configuration makes out of it: other bridges, container ends and wireless cards are left alone.

pub mod advertisement;
pub mod dhcp;
pub mod dhcp6;
pub mod dns;
pub mod domains;
mod link;
mod plan;
pub mod resolver;
mod told;
mod udp;
mod v6;

use contract::host_config::{HostConfig, Ipv6};
use link::UsedLink;
use plan::{Role, Seen, Step};
use resolver::Names;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};
use sys::netlink::{self, Event, Events, Requests};
use told::Told;

use crate::error::{Error, On, chain};
use crate::{log, modules};

/// A boot waits this long for an address, and then goes on without.
const UP_WITHIN: Duration = Duration::from_secs(20);
/// An IPv6 address may come before IPv4's; this much longer is waited for the latter.
const IPV4_AFTER_IPV6: Duration = Duration::from_secs(5);
/// Packets of one link taken in one go, so that a flood cannot keep PID 1 busy.
const MAX_PACKETS: usize = 32;
/// Attempts at something that the kernel refuses; another link brings another attempt.
const MAX_ATTEMPTS: u32 = 3;

/// Whether the rest of the boot may use the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet, but it may still come in time.
    Waiting,
    /// A link has an address.
    Up,
    /// None has, and there was time enough.
    Late,
}

/// The host's network.
#[derive(Debug)]
pub struct Network {
    config: HostConfig,
    events: Events,
    requests: Requests,
    /// Every link but loopback.
    seen: BTreeMap<i32, Seen>,
    /// Those that have addresses.
    links: BTreeMap<i32, UsedLink>,
    /// What was attempted to be made, and how often; what was done is not attempted again.
    attempts: Vec<(Step, u32)>,
    names: Names,
    time_servers: Vec<IpAddr>,
    started: Duration,
    said: Option<Status>,
}

impl Network {
    /// Applies names, switches on loopback and every link that is there, and
    /// listens for more. `now` is the time since the kernel's start, here and below.
    pub fn start(config: &HostConfig, now: Duration) -> Result<Network, Error> {
        let needed = plan::modules(config);
        if !needed.is_empty() {
            modules::load_named(&needed);
        }
        let mut network = Network {
            config: config.clone(),
            events: Events::open().on("listen to", "links")?,
            requests: Requests::open().on("open", "rtnetlink")?,
            seen: BTreeMap::new(),
            links: BTreeMap::new(),
            attempts: Vec::new(),
            names: Names::default(),
            time_servers: Vec::new(),
            started: now,
            said: None,
        };
        network.publish();
        network.look_at_all_links(now).on("list", "links")?;
        network.build();
        Ok(network)
    }

    /// What to wait for, besides [`Network::deadline`].
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        let sockets = self.links.values().flat_map(UsedLink::files);
        std::iter::once(self.events.as_fd()).chain(sockets).collect()
    }

    /// When [`Network::advance`] is to be called even if nothing arrives.
    pub fn deadline(&self) -> Option<Duration> {
        let late = self.started + UP_WITHIN;
        let waiting = (self.said.is_none()).then_some(late);
        let v6 = self.links.values().filter_map(|link| link.ipv6_since);
        let v6 = v6.map(|at| at + IPV4_AFTER_IPV6).min().filter(|_| self.said.is_none());
        self.links.values().filter_map(UsedLink::deadline).chain(waiting).chain(v6).min()
    }

    /// Takes in whatever has arrived, and does what is due. Failures are said on the console and
    /// tried again: a host without network can still run containers.
    pub fn advance(&mut self, now: Duration) {
        let mut changed = false;
        match self.events.read() {
            Ok(Some(events)) => {
                let any = !events.is_empty();
                for event in events {
                    changed |= self.event(event, now);
                }
                if any {
                    self.build();
                }
            }
            Ok(None) => match self.look_at_all_links(now) {
                Ok(()) => self.build(),
                Err(e) => complain("list links", &e),
            },
            Err(e) => complain("listen for links", &e),
        }
        for link in self.links.values_mut() {
            changed |= link.advance(&mut self.requests, now);
        }
        if changed {
            self.publish();
        }
        self.say_once(now);
    }

    /// Whether the rest of the boot may go on.
    pub fn status(&self, now: Duration) -> Status {
        let links = self.links.values().map(|link| (link.has_ipv4(), link.ipv6_since));
        status(links, now, now.saturating_sub(self.started))
    }

    /// The host's name.
    pub fn hostname(&self) -> &str {
        &self.names.hostname
    }

    /// Time servers that DHCP told.
    pub fn time_servers(&self) -> &[IpAddr] {
        &self.time_servers
    }

    /// Each link with its addresses, or with what is wrong, in words.
    pub fn addresses(&mut self) -> Vec<String> {
        let addresses = self.requests.addresses().unwrap_or_default();
        let of_link = |(index, link): (&i32, &UsedLink)| -> Vec<String> {
            let found = addresses.iter().filter(|a| a.link == *index);
            let found = found.map(|a| format!("{}  {}/{}", link.name, a.address, a.prefix));
            let found: Vec<String> = found.collect();
            if found.is_empty() { link.problem().into_iter().collect() } else { found }
        };
        self.links.iter().flat_map(of_link).collect()
    }

    fn look_at_all_links(&mut self, now: Duration) -> io::Result<()> {
        let links = self.requests.links()?;
        let gone = |index: &i32| !links.iter().any(|link| link.index == *index);
        let gone: Vec<i32> = self.seen.keys().copied().filter(gone).collect();
        let gone = gone.into_iter().map(Event::Gone);
        let mut changed = false;
        for event in gone.chain(links.into_iter().map(Event::Link)) {
            changed |= self.event(event, now);
        }
        if changed {
            self.publish();
        }
        Ok(())
    }

    /// Takes in one event. Returns whether what a link is told of names changed.
    fn event(&mut self, event: Event, now: Duration) -> bool {
        let kernel = &mut self.requests;
        match event {
            Event::Link(link) if link.name == "lo" => {
                if !link.up
                    && let Err(e) = kernel.set_up(link.index)
                {
                    complain("switch on lo", &e);
                }
                false
            }
            Event::Link(link) => self.link(link, now),
            Event::Gone(index) => {
                self.seen.remove(&index);
                match self.links.remove(&index) {
                    Some(link) => {
                        log::line(&format!("network: {}: gone", link.name));
                        true
                    }
                    None => false,
                }
            }
            Event::GlobalIpv6(index) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.ipv6_since.get_or_insert(now);
                }
                false
            }
            Event::LinkLocal(index, address) => self
                .links
                .get_mut(&index)
                .and_then(UsedLink::v6)
                .is_some_and(|link| link.set_local(address, kernel, now)),
            Event::Router { link, managed, other } => self
                .links
                .get_mut(&link)
                .and_then(UsedLink::v6)
                .is_some_and(|link| link.routed(managed, other, kernel, now)),
            Event::RouterOptions(index, options) => self
                .links
                .get_mut(&index)
                .and_then(UsedLink::v6)
                .is_some_and(|link| link.heard(&options, now)),
        }
    }

    /// A link that appeared or changed.
    fn link(&mut self, link: netlink::Link, now: Duration) -> bool {
        let known = self.seen.get(&link.index);
        let wired = known.map_or_else(|| is_wired(&link), |seen| seen.wired);
        let index = link.index;
        let seen = Seen { link, wired };
        if !self.links.contains_key(&index)
            && seen.link.master.is_none()
            && let Role::Used(settings) = plan::role(&self.config, &seen)
        {
            log::line(&format!("network: {}: {settings}", seen.link.name));
            self.links.insert(index, UsedLink::new(&seen.link, settings));
        }
        let changed = match self.links.get_mut(&index) {
            Some(used) => used.changed(&seen.link, &mut self.requests, now),
            None => false,
        };
        self.seen.insert(index, seen);
        changed
    }

    /// Makes and joins what is still to be. What it does comes back as events.
    fn build(&mut self) {
        for step in plan::steps(&self.config, self.seen.values()) {
            let known = self.attempts.iter().position(|(known, _)| *known == step);
            let number = known.unwrap_or(self.attempts.len());
            if known.is_none() {
                self.attempts.push((step.clone(), 0));
            }
            let attempts = &mut self.attempts[number].1;
            if *attempts >= MAX_ATTEMPTS {
                continue;
            }
            match take(&step, &mut self.requests) {
                Ok(()) => {
                    *attempts = MAX_ATTEMPTS;
                    log::line(&format!("network: {step}"));
                }
                Err(e) => {
                    *attempts += 1;
                    complain(&step, &e);
                }
            }
        }
        // Those of links that have gone, and whose numbers never come back.
        let current = plan::steps(&self.config, self.seen.values());
        self.attempts.retain(|(step, _)| current.contains(step));
    }

    fn publish(&mut self) {
        let told: Vec<Told> = self.links.values().map(UsedLink::told).collect();
        self.time_servers = told.iter().flat_map(|told| told.time_servers.clone()).collect();
        let names = resolver::names(&self.config, told);
        if names != self.names {
            match names.publish() {
                Ok(()) => self.names = names,
                Err(e) => log::warning(&chain(&e)),
            }
        }
    }

    fn say_once(&mut self, now: Duration) {
        let status = self.status(now);
        if status == Status::Waiting || self.said == Some(status) {
            return;
        }
        // A link that loses its address later says so itself.
        if status == Status::Late && self.said.is_none() {
            let waited = UP_WITHIN.as_secs();
            let why: Vec<String> = self.links.values().filter_map(UsedLink::problem).collect();
            let why = match (why.is_empty(), self.links.is_empty()) {
                (false, _) => format!(" ({})", why.join("; ")),
                (true, true) => " (there is no link with a driver)".to_owned(),
                (true, false) => String::new(),
            };
            log::line(&format!("network: no address after {waited} s, going on without{why}"));
        }
        if status == Status::Up {
            log::line("network: up");
        }
        self.said = Some(status);
    }
}

/// `links`: whether each has an IPv4 address, and since when an IPv6 address.
fn status(
    links: impl Iterator<Item = (bool, Option<Duration>)>,
    now: Duration,
    waited: Duration,
) -> Status {
    let mut up = false;
    for (ipv4, ipv6) in links {
        up |= ipv4 || ipv6.is_some_and(|since| since + IPV4_AFTER_IPV6 <= now);
    }
    match up {
        true => Status::Up,
        false if waited >= UP_WITHIN => Status::Late,
        false => Status::Waiting,
    }
}

/// Does one step.
fn take(step: &Step, kernel: &mut Requests) -> io::Result<()> {
    match step {
        Step::Create { name, device } => match kernel.create(name, device) {
            // It was made a moment ago, and its event is still to come.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
        Step::Join { member, name, mtu, whole, bond, mac, .. } => {
            v6::tell_kernel(name, Ipv6::Off);
            if let Some(mtu) = mtu {
                kernel.set_mtu(*member, *mtu)?;
            }
            if let Some(mac) = mac {
                kernel.set_mac(*whole, *mac)?;
            }
            if *bond {
                kernel.set_down(*member)?;
            }
            kernel.set_master(*member, *whole)?;
            kernel.set_up(*member)
        }
    }
}

/// Whether the link is Ethernet with hardware behind it, and not wireless.
fn is_wired(link: &netlink::Link) -> bool {
    let sysfs = Path::new("/sys/class/net").join(&link.name);
    let wireless = ["wireless", "phy80211"].iter().any(|name| sysfs.join(name).exists());
    link.ethernet && sysfs.join("device").exists() && !wireless
}

fn complain(what: impl fmt::Display, e: &io::Error) {
    log::line(&format!("network: {what}: {e}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_waits_for_ipv4_but_not_for_ever() {
        let s = Duration::from_secs;
        let cases = [
            // now, links, expected
            (0, vec![], Status::Waiting),
            (19, vec![(false, None)], Status::Waiting),
            (20, vec![(false, None)], Status::Late),
            (20, vec![], Status::Late),
            (1, vec![(false, None), (true, None)], Status::Up),
            (60, vec![(true, None)], Status::Up),
            (6, vec![(false, Some(s(2)))], Status::Waiting),
            (7, vec![(false, Some(s(2)))], Status::Up),
        ];
        for (now, links, expected) in cases {
            let found = status(links.clone().into_iter(), s(now), s(now));
            assert_eq!(found, expected, "{now} {links:?}");
        }
    }
}
