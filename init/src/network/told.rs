//! What the network tells the host on one link, by DHCP and by routers.

use super::dhcp::lease::Lease;
use std::net::IpAddr;

/// Most servers of one kind that an answer may name: resolvers read three.
pub const MAX_SERVERS: usize = 3;

/// What it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its name, which belongs to addresses that hold on one link only.
    pub link: String,
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Time servers.
    pub time_servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// The domain of this host.
    pub domain: Option<String>,
    /// The name of this host.
    pub hostname: Option<String>,
}

impl From<&Lease> for Told {
    fn from(lease: &Lease) -> Told {
        // RFC 3397: a search list counts instead of the domain, which is the host's own.
        let search = match lease.search.is_empty() {
            true => lease.domain.iter().cloned().collect(),
            false => lease.search.clone(),
        };
        Told {
            link: String::new(),
            servers: lease.name_servers.iter().map(|server| IpAddr::V4(*server)).collect(),
            time_servers: lease.time_servers.iter().map(|server| IpAddr::V4(*server)).collect(),
            search,
            domain: lease.domain.clone(),
            hostname: lease.hostname.clone(),
        }
    }
}
