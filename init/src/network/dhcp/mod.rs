//! A DHCPv4 client (RFC 2131) as a pure state machine: events and the time go in, actions come out.
//!
//! Not done here: sockets, addresses, files. Also not done: INFORM, DECLINE and RELEASE. The
//! address that was offered is not probed by ARP; servers that matter do that themselves.

pub mod lease;
pub mod message;

use crate::random::Random;
use lease::Lease;
use message::{Kind, Message, option};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// First wait for an answer; each further one is twice as long. RFC 2131, section 4.1 proposes 4 s;
/// a boot waits for this, and today's servers answer in milliseconds.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for an answer while there is no lease.
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// Requests for an offered address before the search begins anew.
const REQUEST_TRIES: u32 = 4;
/// Requests for the former address before the search begins anew.
const REBOOT_TRIES: u32 = 3;
/// Between two requests to prolong a lease, at least.
const SHORTEST_RENEWAL_WAIT: Duration = Duration::from_secs(60);
/// A server that refuses is asked again after this long at the earliest.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// When that many questions were asked, and none was answered, a person is told: after some 15 s.
const UNANSWERED: u32 = 5;
/// What is asked for: RFC 3442 wants classless routes before the router.
const PARAMETERS: [u8; 11] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::NAME_SERVER,
    option::DOMAIN_NAME,
    option::DOMAIN_SEARCH,
    option::HOST_NAME,
    option::MTU,
    option::TIME_SERVER,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
];
/// Largest message that is taken: what fits a packet on any link.
const MAX_SIZE: u16 = 1472;

/// Something happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The link can carry packets.
    LinkUp,
    /// It no longer can.
    LinkDown,
    /// A UDP payload to port 68 arrived. Anyone may have sent it.
    Received(&'a [u8]),
    /// [`Client::deadline`] has passed.
    Timer,
}

/// Something to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this UDP payload from port 68 to port 67 of everyone.
    Broadcast(Vec<u8>),
    /// Send it from the leased address to a server.
    Unicast {
        /// From here.
        from: Ipv4Addr,
        /// To there.
        to: Ipv4Addr,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Use this lease, in place of one that was used before.
    Configure(Lease),
    /// Stop using the lease that was used before.
    Deconfigure(Lease),
}

/// Where the client is. Times are since the kernel's start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to do until the link is up.
    Idle,
    /// The link is down; the lease may still hold when it comes back.
    Held { lease: Lease, expires: Duration },
    /// A server refused; wait, then search.
    Refused,
    /// Asking who offers an address.
    Selecting { tries: u32 },
    /// Asking for the one that was offered.
    Requesting { offer: Lease, tries: u32 },
    /// Asking whether the lease that was used before still holds.
    Rebooting { lease: Lease, expires: Duration, tries: u32 },
    /// Using a lease.
    Bound { lease: Lease, since: Duration },
    /// Using it, and asking its server to prolong it.
    Renewing { lease: Lease, since: Duration },
    /// Using it, and asking any server to prolong it.
    Rebinding { lease: Lease, since: Duration },
}

/// The client of one link.
#[derive(Clone, Debug)]
pub struct Client {
    mac: [u8; 6],
    hostname: Option<String>,
    random: Random,
    state: State,
    /// Of the transaction under way.
    xid: u32,
    /// When it began.
    began: Duration,
    deadline: Option<Duration>,
}

impl Client {
    /// A client that waits for its link. `hostname` is told to the server.
    pub fn new(mac: [u8; 6], hostname: Option<String>, random: Random) -> Client {
        Client {
            mac,
            hostname,
            random,
            state: State::Idle,
            xid: 0,
            began: Duration::ZERO,
            deadline: None,
        }
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Held { lease, .. }
            | State::Rebooting { lease, .. }
            | State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. } => Some(lease),
            State::Idle | State::Refused | State::Selecting { .. } | State::Requesting { .. } => {
                None
            }
        }
    }

    /// Whether nobody answers.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.state, State::Selecting { tries } if tries >= UNANSWERED)
    }

    /// Takes in an event, at time `now`.
    pub fn step(&mut self, now: Duration, event: Event<'_>) -> Vec<Action> {
        match event {
            Event::LinkUp => self.link_up(now),
            Event::LinkDown => self.link_down(now),
            Event::Received(payload) => self.received(now, payload),
            Event::Timer if self.deadline.is_some_and(|at| at <= now) => self.timer(now),
            Event::Timer => Vec::new(),
        }
    }

    fn link_up(&mut self, now: Duration) -> Vec<Action> {
        match self.state.clone() {
            State::Idle => self.search(now),
            State::Held { lease, expires } if expires > now => {
                self.begin(now);
                self.state = State::Rebooting { lease, expires, tries: 0 };
                self.ask(now)
            }
            State::Held { lease, .. } => {
                let mut actions = vec![Action::Deconfigure(lease)];
                actions.extend(self.search(now));
                actions
            }
            _ => Vec::new(),
        }
    }

    fn link_down(&mut self, now: Duration) -> Vec<Action> {
        let expires = match &self.state {
            State::Bound { lease, since }
            | State::Renewing { lease, since }
            | State::Rebinding { lease, since } => Some(*since + lease.duration),
            State::Rebooting { expires, .. } | State::Held { expires, .. } => Some(*expires),
            _ => None,
        };
        self.state = match (self.lease().cloned(), expires) {
            (Some(lease), Some(expires)) if expires > now => State::Held { lease, expires },
            (Some(lease), _) => {
                self.state = State::Idle;
                self.deadline = None;
                return vec![Action::Deconfigure(lease)];
            }
            (None, _) => State::Idle,
        };
        self.deadline = expires;
        Vec::new()
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        match self.state.clone() {
            State::Idle => {
                self.deadline = None;
                Vec::new()
            }
            State::Held { lease, .. } => {
                self.state = State::Idle;
                self.deadline = None;
                vec![Action::Deconfigure(lease)]
            }
            State::Refused => self.search(now),
            State::Selecting { .. } => self.ask(now),
            State::Requesting { tries, .. } if tries < REQUEST_TRIES => self.ask(now),
            State::Requesting { .. } => self.search(now),
            State::Rebooting { tries, expires, .. } if tries < REBOOT_TRIES && expires > now => {
                self.ask(now)
            }
            // RFC 2131, section 3.2: nobody answered, so the lease may still be used; but the link
            // was away, and it may be another one. Asking anew is the safe way.
            State::Rebooting { lease, .. } => self.lose(now, lease),
            State::Bound { lease, since } => {
                self.begin(now);
                self.state = State::Renewing { lease, since };
                self.ask(now)
            }
            State::Renewing { lease, since } if now >= since + lease.rebind => {
                self.state = State::Rebinding { lease, since };
                self.ask(now)
            }
            State::Rebinding { lease, since } if now >= since + lease.duration => {
                self.lose(now, lease)
            }
            State::Renewing { .. } | State::Rebinding { .. } => self.ask(now),
        }
    }

    fn received(&mut self, now: Duration, payload: &[u8]) -> Vec<Action> {
        let Some(message) = Message::decode(payload) else { return Vec::new() };
        if !message.reply || message.xid != self.xid || message.mac != self.mac {
            return Vec::new();
        }
        let granted = Lease::from_message(&message);
        match (self.state.clone(), message.kind, granted) {
            (State::Selecting { .. }, Kind::Offer, Ok(offer)) => {
                self.state = State::Requesting { offer, tries: 0 };
                self.ask(now)
            }
            (State::Requesting { offer, .. }, Kind::Ack, Ok(lease))
                if lease.server == offer.server =>
            {
                self.bind(now, lease)
            }
            (State::Requesting { offer, .. }, Kind::Nak, _)
                if message.address(option::SERVER_ID) == Some(offer.server) =>
            {
                self.refused(now)
            }
            (
                State::Rebooting { lease: old, .. }
                | State::Renewing { lease: old, .. }
                | State::Rebinding { lease: old, .. },
                Kind::Ack,
                Ok(lease),
            ) => {
                let same = (old.address, old.prefix, &old.routes)
                    == (lease.address, lease.prefix, &lease.routes);
                let mut actions = Vec::new();
                if !same {
                    actions.push(Action::Deconfigure(old));
                }
                actions.extend(self.bind(now, lease));
                actions
            }
            (
                State::Rebooting { lease, .. }
                | State::Renewing { lease, .. }
                | State::Rebinding { lease, .. },
                Kind::Nak,
                _,
            ) => {
                let mut actions = vec![Action::Deconfigure(lease)];
                actions.extend(self.refused(now));
                actions
            }
            _ => Vec::new(),
        }
    }

    /// A new transaction.
    fn begin(&mut self, now: Duration) {
        self.xid = self.random.next_u32();
        self.began = now;
    }

    fn search(&mut self, now: Duration) -> Vec<Action> {
        self.begin(now);
        self.state = State::Selecting { tries: 0 };
        self.ask(now)
    }

    fn refused(&mut self, now: Duration) -> Vec<Action> {
        self.state = State::Refused;
        self.deadline = Some(now + self.random.around(AFTER_REFUSAL));
        Vec::new()
    }

    fn lose(&mut self, now: Duration, lease: Lease) -> Vec<Action> {
        let mut actions = vec![Action::Deconfigure(lease)];
        actions.extend(self.search(now));
        actions
    }

    fn bind(&mut self, now: Duration, lease: Lease) -> Vec<Action> {
        // The lease counts from when it was asked for (RFC 2131, section 4.4.1), which may be
        // tries ago; a server that took that long must not give us a lease that is over.
        let since = self.began.max(now.saturating_sub(lease.renew / 2));
        self.deadline = Some(since + lease.renew);
        self.state = State::Bound { lease: lease.clone(), since };
        vec![Action::Configure(lease)]
    }

    /// Sends what the state asks for, and sets the time of the next try.
    fn ask(&mut self, now: Duration) -> Vec<Action> {
        let (wait, kind, options, unicast) = match &mut self.state {
            State::Selecting { tries } => {
                *tries += 1;
                (back_off(*tries, FIRST_WAIT, LONGEST_WAIT), Kind::Discover, Vec::new(), None)
            }
            State::Requesting { offer, tries } => {
                *tries += 1;
                let options = vec![
                    (option::REQUESTED_ADDRESS, offer.address.octets().to_vec()),
                    (option::SERVER_ID, offer.server.octets().to_vec()),
                ];
                (back_off(*tries, FIRST_WAIT, LONGEST_WAIT), Kind::Request, options, None)
            }
            State::Rebooting { lease, tries, .. } => {
                *tries += 1;
                let options = vec![(option::REQUESTED_ADDRESS, lease.address.octets().to_vec())];
                (back_off(*tries, FIRST_WAIT, LONGEST_WAIT), Kind::Request, options, None)
            }
            State::Renewing { lease, since } => {
                let left = (*since + lease.rebind).saturating_sub(now);
                let wait = left.min((left / 2).max(SHORTEST_RENEWAL_WAIT));
                let way = Some((lease.address, Some(lease.server)));
                (wait, Kind::Request, Vec::new(), way)
            }
            State::Rebinding { lease, since } => {
                let left = (*since + lease.duration).saturating_sub(now);
                let wait = left.min((left / 2).max(SHORTEST_RENEWAL_WAIT));
                (wait, Kind::Request, Vec::new(), Some((lease.address, None)))
            }
            State::Idle | State::Held { .. } | State::Refused | State::Bound { .. } => {
                return Vec::new();
            }
        };
        // Renewals end exactly when the next state begins; only the others are spread.
        let wait = if unicast.is_some() { wait } else { self.random.around(wait) };
        self.deadline = Some(now + wait);
        let client = unicast.map(|(address, _)| address);
        let payload = self.message(now, kind, client, options).encode();
        match unicast {
            Some((from, Some(to))) => vec![Action::Unicast { from, to, payload }],
            _ => vec![Action::Broadcast(payload)],
        }
    }

    fn message(
        &self,
        now: Duration,
        kind: Kind,
        client: Option<Ipv4Addr>,
        options: Vec<(u8, Vec<u8>)>,
    ) -> Message {
        let mut all = BTreeMap::from([
            (option::CLIENT_ID, [&[1], &self.mac[..]].concat()),
            (option::PARAMETERS, PARAMETERS.to_vec()),
            (option::MAX_SIZE, MAX_SIZE.to_be_bytes().to_vec()),
        ]);
        if let Some(name) = &self.hostname {
            all.insert(option::HOST_NAME, name.as_bytes().to_vec());
        }
        all.extend(options);
        Message {
            kind,
            reply: false,
            xid: self.xid,
            seconds: u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX),
            // The packet socket receives answers to the new address too, and some clouds drop
            // broadcasts.
            broadcast: false,
            client: client.unwrap_or(Ipv4Addr::UNSPECIFIED),
            yours: Ipv4Addr::UNSPECIFIED,
            mac: self.mac,
            options: all,
        }
    }
}

/// The wait after the `tries`-th question, before jitter.
pub fn back_off(tries: u32, first: Duration, longest: Duration) -> Duration {
    let factor = 1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests;
