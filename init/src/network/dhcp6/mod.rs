//! A DHCPv6 client (RFC 8415) as a pure state machine: events and the time go in, actions come out.
//! It asks for addresses (IA_NA), or only for what else there is to know.
//!
//! Not done here: sockets, addresses, files. Also not done: prefix delegation, temporary addresses,
//! RELEASE, DECLINE, reconfiguration by the server, and comparing several servers: the first that
//! has an address is taken.

pub mod answer;
pub mod message;

use super::dhcp::back_off;
use crate::random::Random;
use answer::{Facts, Lease};
use message::{Kind, Message, option};
use std::time::Duration;

/// Waits for an answer: the first, and the longest (RFC 8415, section 7.6). Each is twice as long
/// as the one before.
struct Waits {
    first: Duration,
    longest: Duration,
}

const SOLICIT: Waits = Waits { first: Duration::from_secs(1), longest: Duration::from_secs(600) };
const REQUEST: Waits = Waits { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
const RENEW: Waits = Waits { first: Duration::from_secs(10), longest: Duration::from_secs(600) };
/// Requests for an offered address before the search begins anew.
const REQUEST_TRIES: u32 = 5;
/// A lease ends, and the search begins anew, this much after a server refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// What is asked for.
const WANTED: [u16; 7] = [
    option::NAME_SERVERS,
    option::DOMAINS,
    option::SNTP_SERVERS,
    option::NTP_SERVER,
    option::REFRESH_TIME,
    option::SOLICIT_MAX_WAIT,
    option::INFORM_MAX_WAIT,
];

/// What is to be asked for, by the host configuration or by the routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Name servers and domains.
    Facts,
    /// Addresses besides.
    Addresses,
}

/// Something happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// This is to be asked for from now on.
    Need(Need),
    /// The link can carry packets, and has an address of its own to send them from.
    LinkUp,
    /// It no longer can.
    LinkDown,
    /// A UDP payload to port 546 arrived. Anyone may have sent it.
    Received(&'a [u8]),
    /// [`Client::deadline`] has passed.
    Timer,
}

/// Something to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this UDP payload from port 546 to port 547 of all servers.
    Send(Vec<u8>),
    /// Use this lease, in place of one that was used before.
    Configure(Lease),
    /// Stop using the lease that was used before.
    Deconfigure(Lease),
}

/// Where the client is. Times are since the kernel's start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to do.
    Idle,
    /// The link is down; the lease may still hold when it comes back.
    Held { lease: Lease, since: Duration },
    /// Asking for facts.
    Informing { tries: u32 },
    /// Having them.
    Informed,
    /// A server refused; wait, then search.
    Refused,
    /// Asking who offers addresses.
    Soliciting { tries: u32 },
    /// Asking for those that were offered.
    Requesting { offer: Lease, tries: u32 },
    /// Using a lease.
    Bound { lease: Lease, since: Duration },
    /// Using it, and asking its server to prolong it.
    Renewing { lease: Lease, since: Duration, tries: u32 },
    /// Using it, and asking any server to prolong it.
    Rebinding { lease: Lease, since: Duration, tries: u32 },
}

/// The client of one link.
#[derive(Clone, Debug)]
pub struct Client {
    id: Vec<u8>,
    iaid: u32,
    random: Random,
    need: Need,
    up: bool,
    state: State,
    facts: Facts,
    /// Of the transaction under way.
    xid: u32,
    /// When it began.
    began: Duration,
    deadline: Option<Duration>,
}

impl Client {
    /// A client that waits for its link and for a need. `id` names the host to servers (DUID),
    /// `iaid` the link.
    pub fn new(id: Vec<u8>, iaid: u32, random: Random) -> Client {
        Client {
            id,
            iaid,
            random,
            need: Need::Nothing,
            up: false,
            state: State::Idle,
            facts: Facts::default(),
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
            | State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Whether a question is under way.
    pub fn awaits_an_answer(&self) -> bool {
        match self.state {
            State::Idle
            | State::Held { .. }
            | State::Informed
            | State::Refused
            | State::Bound { .. } => false,
            State::Informing { .. }
            | State::Soliciting { .. }
            | State::Requesting { .. }
            | State::Renewing { .. }
            | State::Rebinding { .. } => true,
        }
    }

    /// What a server said besides addresses.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes in an event, at time `now`.
    pub fn step(&mut self, now: Duration, event: Event<'_>) -> Vec<Action> {
        match event {
            Event::Need(need) if need == self.need => Vec::new(),
            Event::Need(need) => {
                self.need = need;
                match (need, self.lease().is_some()) {
                    // What is held is kept until it ends: routers change their mind.
                    (_, true) => Vec::new(),
                    _ if self.up => self.begin(now),
                    _ => Vec::new(),
                }
            }
            Event::LinkUp if self.up => Vec::new(),
            Event::LinkUp => {
                self.up = true;
                self.begin(now)
            }
            Event::LinkDown => self.link_down(now),
            Event::Received(payload) if self.up => self.received(now, payload),
            Event::Timer if self.deadline.is_some_and(|at| at <= now) => self.timer(now),
            Event::Received(_) | Event::Timer => Vec::new(),
        }
    }

    /// The first question on a link that is up.
    fn begin(&mut self, now: Duration) -> Vec<Action> {
        self.new_transaction(now);
        self.deadline = None;
        self.state = match (self.state.clone(), self.need) {
            // The link may be another one: any server that knows the address may say so.
            (State::Held { lease, since }, _) if since + lease.duration > now => {
                State::Rebinding { lease, since, tries: 0 }
            }
            (State::Held { lease, .. }, _) => {
                self.state = State::Idle;
                let mut actions = vec![Action::Deconfigure(lease)];
                actions.extend(self.begin(now));
                return actions;
            }
            (_, Need::Nothing) => State::Idle,
            (_, Need::Facts) => State::Informing { tries: 0 },
            (_, Need::Addresses) => State::Soliciting { tries: 0 },
        };
        self.ask(now)
    }

    fn link_down(&mut self, now: Duration) -> Vec<Action> {
        self.up = false;
        self.facts = Facts::default();
        let (state, actions) = match self.state.clone() {
            State::Held { lease, since }
            | State::Bound { lease, since }
            | State::Renewing { lease, since, .. }
            | State::Rebinding { lease, since, .. } => match since + lease.duration > now {
                true => (State::Held { lease, since }, Vec::new()),
                false => (State::Idle, vec![Action::Deconfigure(lease)]),
            },
            _ => (State::Idle, Vec::new()),
        };
        self.deadline = match &state {
            State::Held { lease, since } => Some(*since + lease.duration),
            _ => None,
        };
        self.state = state;
        actions
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        match self.state.clone() {
            State::Idle => {
                self.deadline = None;
                Vec::new()
            }
            State::Held { lease, .. } => {
                (self.state, self.deadline) = (State::Idle, None);
                vec![Action::Deconfigure(lease)]
            }
            State::Informing { .. } | State::Soliciting { .. } => self.ask(now),
            State::Informed | State::Refused => self.begin(now),
            State::Requesting { tries, .. } if tries < REQUEST_TRIES => self.ask(now),
            State::Requesting { .. } => self.begin(now),
            State::Bound { lease, since } => {
                self.new_transaction(now);
                self.state = State::Renewing { lease, since, tries: 0 };
                self.ask(now)
            }
            State::Renewing { lease, since, .. } if now >= since + lease.rebind => {
                self.new_transaction(now);
                self.state = State::Rebinding { lease, since, tries: 0 };
                self.ask(now)
            }
            State::Rebinding { lease, since, .. } if now >= since + lease.duration => {
                self.state = State::Idle;
                let mut actions = vec![Action::Deconfigure(lease)];
                actions.extend(self.begin(now));
                actions
            }
            State::Renewing { .. } | State::Rebinding { .. } => self.ask(now),
        }
    }

    fn received(&mut self, now: Duration, payload: &[u8]) -> Vec<Action> {
        let Some(message) = Message::decode(payload) else { return Vec::new() };
        if message.xid != self.xid || message.option(option::CLIENT_ID) != Some(&self.id[..]) {
            return Vec::new();
        }
        let Some(server) = message.option(option::SERVER_ID) else { return Vec::new() };
        let granted = answer::lease(&message, self.iaid);
        match (self.state.clone(), message.kind, granted) {
            (State::Soliciting { .. }, Kind::Advertise, Ok(offer)) => {
                self.new_transaction(now);
                self.state = State::Requesting { offer, tries: 0 };
                self.ask(now)
            }
            (State::Requesting { offer, .. }, Kind::Reply, granted) if offer.server == server => {
                match granted {
                    Ok(lease) => self.bind(now, lease, None, &message),
                    Err(_) => self.refused(now),
                }
            }
            (State::Renewing { lease: old, .. }, Kind::Reply, granted) if old.server == server => {
                self.prolonged(now, old, granted, &message)
            }
            (State::Rebinding { lease: old, .. }, Kind::Reply, granted) => {
                self.prolonged(now, old, granted, &message)
            }
            (State::Informing { .. }, Kind::Reply, _) => {
                self.facts = answer::facts(&message);
                self.state = State::Informed;
                self.deadline = Some(now + self.random.around(answer::refresh(&message)));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn prolonged(
        &mut self,
        now: Duration,
        old: Lease,
        granted: Result<Lease, &'static str>,
        message: &Message,
    ) -> Vec<Action> {
        match granted {
            Ok(lease) => self.bind(now, lease, Some(old), message),
            Err(_) => {
                let mut actions = vec![Action::Deconfigure(old)];
                actions.extend(self.refused(now));
                actions
            }
        }
    }

    fn bind(
        &mut self,
        now: Duration,
        lease: Lease,
        old: Option<Lease>,
        message: &Message,
    ) -> Vec<Action> {
        self.facts = answer::facts(message);
        self.deadline = Some(now + lease.renew);
        self.state = State::Bound { lease: lease.clone(), since: now };
        let replaced = old.filter(|old| old.addresses != lease.addresses);
        let mut actions: Vec<Action> = replaced.into_iter().map(Action::Deconfigure).collect();
        actions.push(Action::Configure(lease));
        actions
    }

    fn refused(&mut self, now: Duration) -> Vec<Action> {
        self.state = State::Refused;
        self.deadline = Some(now + self.random.around(AFTER_REFUSAL));
        Vec::new()
    }

    fn new_transaction(&mut self, now: Duration) {
        self.xid = self.random.next_u32() & 0x00ff_ffff;
        self.began = now;
    }

    /// Sends what the state asks for, and sets the time of the next try.
    fn ask(&mut self, now: Duration) -> Vec<Action> {
        let wait = |tries: &mut u32, waits: &Waits| {
            *tries += 1;
            back_off(*tries, waits.first, waits.longest)
        };
        let (wait, latest, kind, lease, server) = match &mut self.state {
            State::Informing { tries } => {
                (wait(tries, &SOLICIT), None, Kind::InformationRequest, None, None)
            }
            State::Soliciting { tries } => (wait(tries, &SOLICIT), None, Kind::Solicit, None, None),
            State::Requesting { offer, tries } => {
                (wait(tries, &REQUEST), None, Kind::Request, Some(&*offer), Some(&offer.server))
            }
            State::Renewing { lease, since, tries } => {
                let latest = *since + lease.rebind;
                (wait(tries, &RENEW), Some(latest), Kind::Renew, Some(&*lease), Some(&lease.server))
            }
            State::Rebinding { lease, since, tries } => {
                let latest = *since + lease.duration;
                (wait(tries, &RENEW), Some(latest), Kind::Rebind, Some(&*lease), None)
            }
            _ => return Vec::new(),
        };
        let elapsed = now.saturating_sub(self.began).as_millis() / 10;
        let elapsed = u16::try_from(elapsed).unwrap_or(u16::MAX);
        let mut options = vec![(option::CLIENT_ID, self.id.clone())];
        options.extend(server.map(|id| (option::SERVER_ID, id.clone())));
        options.push((option::ELAPSED_TIME, elapsed.to_be_bytes().to_vec()));
        options
            .push((option::OPTION_REQUEST, WANTED.iter().flat_map(|c| c.to_be_bytes()).collect()));
        if kind != Kind::InformationRequest {
            options.push((option::IA_NA, association(self.iaid, lease)));
        }
        let payload = Message { kind, xid: self.xid, options }.encode();
        // The next state begins exactly when it has to; only what is not bounded by it is spread.
        let next = now + self.random.around(wait);
        self.deadline = Some(latest.map_or(next, |latest| next.min(latest)));
        vec![Action::Send(payload)]
    }
}

/// IA_NA as it is asked for: times are the server's to choose.
fn association(iaid: u32, lease: Option<&Lease>) -> Vec<u8> {
    let mut value = iaid.to_be_bytes().to_vec();
    value.extend([0; 8]);
    for address in lease.iter().flat_map(|lease| &lease.addresses) {
        value.extend(option::IA_ADDRESS.to_be_bytes());
        value.extend([0, 24]);
        value.extend(address.octets());
        value.extend([0; 8]);
    }
    value
}

#[cfg(test)]
mod tests;
