//! What routers advertise and the kernel leaves to others: name servers and search domains
//! (RFC 8106). Addresses and routes are the kernel's.

use super::domains;
use std::net::Ipv6Addr;
use std::time::Duration;

/// Most name servers of one link that are kept, of whatever number of routers.
const MAX_SERVERS: usize = 8;
/// Most domains of one link.
const MAX_DOMAINS: usize = 8;
/// RFC 8106: this one is for ever. A year is near enough, and adds up to no overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Recursive DNS server.
const RDNSS: u8 = 25;
/// DNS search list.
const DNSSL: u8 = 31;

/// What one advertisement says, and for how long it holds; zero takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A name server.
    Server(Ipv6Addr, Duration),
    /// A search domain.
    Domain(String, Duration),
}

/// Reads options as they were in the packet (RFC 4861, section 4.6). What is malformed ends them.
pub fn read(mut options: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        let Some((option, rest)) = options.split_at_checked(len).filter(|_| len > 0) else { break };
        options = rest;
        let Some((head, value)) = option.split_first_chunk::<8>() else { break };
        let seconds = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let lifetime = Duration::from_secs(seconds.into()).min(LONGEST);
        match kind {
            RDNSS => {
                let (addresses, _) = value.as_chunks::<16>();
                let servers = addresses.iter().map(|octets| Ipv6Addr::from(*octets));
                let servers = servers.filter(is_server).take(MAX_SERVERS);
                said.extend(servers.map(|server| Said::Server(server, lifetime)));
            }
            DNSSL => {
                let domains = domains::list(value);
                said.extend(domains.into_iter().map(|domain| Said::Domain(domain, lifetime)));
            }
            _ => {}
        }
    }
    said
}

/// Whether it is an address that somebody can answer at.
pub fn is_server(address: &Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

/// What holds now of what routers said.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    servers: Vec<(Ipv6Addr, Duration)>,
    domains: Vec<(String, Duration)>,
}

impl Heard {
    /// Takes in what was said at `now`. Returns whether something changed for those who use it.
    pub fn hear(&mut self, said: Vec<Said>, now: Duration) -> bool {
        let before = (self.servers(), self.domains());
        for said in said {
            match said {
                Said::Server(server, life) => {
                    note(&mut self.servers, server, now + life, MAX_SERVERS)
                }
                Said::Domain(domain, life) => {
                    note(&mut self.domains, domain, now + life, MAX_DOMAINS)
                }
            }
        }
        self.expire(now);
        before != (self.servers(), self.domains())
    }

    /// Forgets what no longer holds. Returns whether there was such.
    pub fn expire(&mut self, now: Duration) -> bool {
        let before = self.servers.len() + self.domains.len();
        self.servers.retain(|(_, until)| *until > now);
        self.domains.retain(|(_, until)| *until > now);
        before != self.servers.len() + self.domains.len()
    }

    /// Forgets everything, as when the cable was out.
    pub fn clear(&mut self) {
        *self = Heard::default();
    }

    /// When the next thing no longer holds.
    pub fn deadline(&self) -> Option<Duration> {
        let servers = self.servers.iter().map(|(_, until)| *until);
        servers.chain(self.domains.iter().map(|(_, until)| *until)).min()
    }

    /// Name servers, oldest first.
    pub fn servers(&self) -> Vec<Ipv6Addr> {
        self.servers.iter().map(|(server, _)| *server).collect()
    }

    /// Search domains, oldest first.
    pub fn domains(&self) -> Vec<String> {
        self.domains.iter().map(|(domain, _)| domain.clone()).collect()
    }
}

/// Notes until when `what` holds. A flood of new ones does not push out those that are known.
fn note<T: PartialEq>(known: &mut Vec<(T, Duration)>, what: T, until: Duration, most: usize) {
    let number = known.iter().position(|(old, _)| *old == what);
    match number {
        Some(number) => known[number].1 = until,
        None if known.len() < most => known.push((what, until)),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rdnss(seconds: u32, servers: &[Ipv6Addr]) -> Vec<u8> {
        let mut option = vec![RDNSS, 1 + 2 * servers.len() as u8, 0, 0];
        option.extend(seconds.to_be_bytes());
        servers.iter().for_each(|server| option.extend(server.octets()));
        option
    }

    fn server(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
    }

    #[test]
    fn servers_and_domains_are_read_and_the_rest_is_passed_over() {
        let mut options = vec![1, 1, 2, 0, 0, 0, 0, 1];
        options.extend(rdnss(60, &[server(1), Ipv6Addr::UNSPECIFIED, server(2)]));
        options.extend([DNSSL, 2, 0, 0, 0, 0, 0, 30, 3, b'l', b'a', b'n', 0, 0, 0, 0]);
        let s = Duration::from_secs;
        let expected = [
            Said::Server(server(1), s(60)),
            Said::Server(server(2), s(60)),
            Said::Domain("lan".into(), s(30)),
        ];
        assert_eq!(read(&options), expected);
        assert_eq!(read(&rdnss(u32::MAX, &[server(1)])), [Said::Server(server(1), LONGEST)]);
        // An option of no length would never end.
        assert_eq!(read(&[RDNSS, 0, 0, 0, 0, 0, 0, 1]), []);
        assert_eq!(read(&rdnss(60, &[server(1)])[..16]), []);
    }

    #[test]
    fn what_was_said_holds_for_its_time_and_can_be_taken_back() {
        let s = Duration::from_secs;
        let mut heard = Heard::default();
        assert!(heard.hear(read(&rdnss(60, &[server(1), server(2)])), s(0)));
        assert!(!heard.hear(read(&rdnss(60, &[server(1)])), s(30)));
        assert_eq!(heard.deadline(), Some(s(60)));
        assert!(heard.expire(s(60)));
        assert_eq!(heard.servers(), [server(1)]);
        assert!(heard.hear(read(&rdnss(0, &[server(1)])), s(61)));
        assert_eq!((heard.servers(), heard.deadline()), (vec![], None));
    }

    proptest! {
        #[test]
        fn a_flood_is_bounded(
            options in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..50),
        ) {
            let mut heard = Heard::default();
            for mut option in options {
                heard.hear(read(&option), Duration::ZERO);
                option.splice(0..0, [RDNSS, 5, 0, 0, 0, 0, 0, 9]);
                heard.hear(read(&option), Duration::ZERO);
            }
            prop_assert!(heard.servers().len() <= MAX_SERVERS);
            prop_assert!(heard.domains().len() <= MAX_DOMAINS);
        }
    }
}
