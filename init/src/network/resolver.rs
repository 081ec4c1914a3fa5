//! What `/etc/resolv.conf`, `/etc/hostname` and `/etc/hosts` say, from the host configuration and
//! from DHCP.

use super::dhcp::lease::Lease;
use crate::error::{Error, On};
use crate::identity::{DEFAULT_HOSTNAME, etc_file, write_etc};
use contract::host_config::HostConfig;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// More are not read by anyone.
const MAX_NAME_SERVERS: usize = 3;

/// Names of this host and of those who know others.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Names {
    /// Name of this host.
    pub hostname: String,
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains in which short names are looked up; the first is this host's own.
    pub search: Vec<String>,
}

/// What a person configured wins; leases, the oldest link's first, fill in the rest.
pub fn names<'a>(config: &HostConfig, leases: impl Iterator<Item = &'a Lease> + Clone) -> Names {
    let mut servers = config.nameservers.clone();
    if servers.is_empty() {
        servers = leases.clone().flat_map(|l| &l.name_servers).map(|s| IpAddr::V4(*s)).collect();
    }
    let mut search = config.search.clone();
    if search.is_empty() {
        search = leases.clone().filter_map(|lease| lease.domain.clone()).collect();
    }
    search.dedup();
    servers.dedup();
    servers.truncate(MAX_NAME_SERVERS);
    let told = || leases.clone().find_map(|lease| lease.hostname.clone());
    let mut hostname =
        config.hostname.clone().or_else(told).unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned());
    // The kernel's limit is 64 bytes.
    hostname.truncate(63);
    Names { hostname, servers, search }
}

impl Names {
    fn resolv_conf(&self) -> String {
        let mut text = String::from("# Written by init from the host configuration and DHCP.\n");
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        text
    }

    fn hosts(&self) -> String {
        let name = &self.hostname;
        let full = match self.search.first() {
            Some(domain) if !name.contains('.') => format!("{name}.{domain} "),
            _ => String::new(),
        };
        format!(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {full}{name}\n"
        )
    }

    /// Writes the three files and tells the kernel the host's name.
    pub fn publish(&self) -> Result<(), Error> {
        sys::process::set_hostname(&self.hostname).on("set the host name", &self.hostname)?;
        write_etc("resolv.conf", &self.resolv_conf())?;
        write_etc("hostname", &format!("{}\n", self.hostname))?;
        write_etc("hosts", &self.hosts())
    }
}

/// The name servers in use now.
pub fn current_servers() -> Vec<SocketAddr> {
    let text = fs::read_to_string(etc_file("resolv.conf")).unwrap_or_default();
    servers_in(&text)
}

fn servers_in(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn config(text: &str) -> HostConfig {
        let raw = contract::host_config::Raw::parse("host.toml", text).expect("toml");
        raw.validate("host.toml").expect("valid")
    }

    fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(192, 0, 2, 7),
            prefix: 24,
            routes: vec![],
            name_servers: vec![Ipv4Addr::new(192, 0, 2, 53)],
            domain: Some("example.org".into()),
            hostname: Some("told".into()),
            mtu: None,
            server: Ipv4Addr::new(192, 0, 2, 1),
            duration: Duration::from_secs(60),
            renew: Duration::from_secs(30),
            rebind: Duration::from_secs(50),
        }
    }

    #[test]
    fn without_configuration_dhcp_tells() {
        let names = names(&config(""), [lease(), lease()].iter());
        assert_eq!(names.hostname, "told");
        assert!(names.resolv_conf().ends_with("\nnameserver 192.0.2.53\nsearch example.org\n"));
        assert!(names.hosts().ends_with("127.0.1.1 told.example.org told\n"));
        let expected = ["192.0.2.53:53".parse().expect("an address")];
        assert_eq!(servers_in(&names.resolv_conf()), expected);
    }

    #[test]
    fn configuration_wins_key_by_key() {
        let text = "hostname = \"a\"\n[network]\nnameservers = [\"2001:db8::53\"]";
        let names = names(&config(text), [lease()].iter());
        assert_eq!(names.hostname, "a");
        assert!(names.resolv_conf().ends_with("\nnameserver 2001:db8::53\nsearch example.org\n"));
    }

    #[test]
    fn nobody_tells_anything() {
        let names = names(&config(""), [].iter());
        assert_eq!((names.hostname.as_str(), names.servers.len()), (DEFAULT_HOSTNAME, 0));
    }
}
