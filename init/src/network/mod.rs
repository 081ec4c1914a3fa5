//! The network of the host: loopback, wired links, addresses, routes and names.
//!
//! Links come and go; the kernel tells by netlink. A wired link is an Ethernet device with hardware
//! behind it: bridges, container ends and wireless cards are left alone. IPv6 is the kernel's own
//! autoconfiguration; it only has to be let.

pub mod dhcp;
pub mod dns;
pub mod link;
pub mod resolver;
pub mod sysctl;
pub mod udp;

use contract::host_config::{HostConfig, Link as LinkName};
use link::WiredLink;
use resolver::Names;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};
use sys::netlink::{self, Event, Events, Requests};

use crate::error::{Error, On, chain};
use crate::log;

/// A boot waits this long for an address, and then goes on without.
const UP_WITHIN: Duration = Duration::from_secs(20);
/// An IPv6 address may come before IPv4's; this much longer is waited for the latter.
const IPV4_AFTER_IPV6: Duration = Duration::from_secs(5);

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
    links: BTreeMap<i32, WiredLink>,
    names: Names,
    started: Duration,
    said: Option<Status>,
}

impl Network {
    /// Applies kernel settings and names, switches on loopback and every wired link that is there,
    /// and listens for more. `now` is the time since the kernel's start, here and below.
    pub fn start(config: &HostConfig, now: Duration) -> Result<Network, Error> {
        let missing = sysctl::apply();
        if !missing.is_empty() {
            log::line(&format!("network: kernel without {}", missing.join(", ")));
        }
        let mut network = Network {
            config: config.clone(),
            events: Events::open().on("listen to", "links")?,
            requests: Requests::open().on("open", "rtnetlink")?,
            links: BTreeMap::new(),
            names: Names::default(),
            started: now,
            said: None,
        };
        network.publish_names();
        network.look_at_all_links(now).on("list", "links")?;
        Ok(network)
    }

    /// What to wait for, besides [`Network::deadline`].
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        let sockets = self.links.values().filter_map(WiredLink::file);
        std::iter::once(self.events.as_fd()).chain(sockets).collect()
    }

    /// When [`Network::advance`] is to be called even if nothing arrives.
    pub fn deadline(&self) -> Option<Duration> {
        let late = self.started + UP_WITHIN;
        let waiting = (self.said.is_none()).then_some(late);
        let v6 = self.links.values().filter_map(|link| link.ipv6_since);
        let v6 = v6.map(|at| at + IPV4_AFTER_IPV6).min().filter(|_| self.said.is_none());
        self.links.values().filter_map(WiredLink::deadline).chain(waiting).chain(v6).min()
    }

    /// Takes in whatever has arrived, and does what is due. Failures are said on the console and
    /// tried again: a host without network can still run containers.
    pub fn advance(&mut self, now: Duration) {
        match self.events.read() {
            Ok(Some(events)) => events.into_iter().for_each(|event| self.event(event, now)),
            Ok(None) => {
                if let Err(e) = self.look_at_all_links(now) {
                    complain("list links", &e);
                }
            }
            Err(e) => complain("listen for links", &e),
        }
        let mut changed = false;
        for link in self.links.values_mut() {
            changed |= link.advance(&mut self.requests, now);
        }
        if changed {
            self.publish_names();
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

    fn look_at_all_links(&mut self, now: Duration) -> io::Result<()> {
        for link in self.requests.links()? {
            self.event(Event::Link(link), now);
        }
        Ok(())
    }

    fn event(&mut self, event: Event, now: Duration) {
        match event {
            Event::Link(link) if link.name == "lo" => {
                if !link.up
                    && let Err(e) = self.requests.set_up(link.index)
                {
                    complain("switch on lo", &e);
                }
            }
            Event::Link(link) => {
                if !self.links.contains_key(&link.index) && is_wired(&link) {
                    let settings = self.config.interfaces.iter().find(|i| names(&i.link, &link));
                    let settings = link::Settings::of(settings, self.config.hostname.as_deref());
                    log::line(&format!("network: {}: {settings}", link.name));
                    self.links.insert(link.index, WiredLink::new(&link, settings));
                }
                if let Some(wired) = self.links.get_mut(&link.index)
                    && wired.changed(&link, &mut self.requests, now)
                {
                    self.publish_names();
                }
            }
            Event::Gone(index) => {
                if let Some(link) = self.links.remove(&index) {
                    log::line(&format!("network: {}: gone", link.name));
                    self.publish_names();
                }
            }
            Event::GlobalIpv6(index) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.ipv6_since.get_or_insert(now);
                }
            }
        }
    }

    fn publish_names(&mut self) {
        let names = resolver::names(&self.config, self.links.values().filter_map(WiredLink::lease));
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
            log::line(&format!("network: no address after {waited} s, going on without"));
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

/// Whether the link is Ethernet with hardware behind it, and nobody else's part.
fn is_wired(link: &netlink::Link) -> bool {
    let sysfs = Path::new("/sys/class/net").join(&link.name);
    let wireless = ["wireless", "phy80211"].iter().any(|name| sysfs.join(name).exists());
    link.ethernet && link.master.is_none() && sysfs.join("device").exists() && !wireless
}

fn names(name: &LinkName, link: &netlink::Link) -> bool {
    match name {
        LinkName::Name(name) => *name == link.name,
        LinkName::Mac(mac) => link.mac == Some(*mac),
    }
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
