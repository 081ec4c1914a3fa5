//! What `/etc/resolv.conf`, `/etc/hostname` and `/etc/hosts` say, from the host configuration, from
//! DHCP and from routers.

use super::told::Told;
use crate::error::{Error, On};
use crate::identity::{DEFAULT_HOSTNAME, etc_file, write_etc};
use contract::host_config::HostConfig;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// More are not read by anyone.
const MAX_NAME_SERVERS: usize = 3;
/// Each short name is looked up in each of them.
const MAX_DOMAINS: usize = 16;

/// Names of this host and of those who know others.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Names {
    /// Name of this host.
    pub hostname: String,
    /// Name servers as resolv.conf(5) names them.
    pub servers: Vec<String>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// This host's own domain.
    pub domain: Option<String>,
}

/// What a person configured wins; links, the oldest first, fill in the rest. Of name servers those
/// of each link's own are the last: containers cannot ask them.
pub fn names(config: &HostConfig, told: Vec<Told>) -> Names {
    let mut servers: Vec<String> = config.nameservers.iter().map(IpAddr::to_string).collect();
    if servers.is_empty() {
        let all =
            told.iter().flat_map(|told| told.servers.iter().map(move |server| (server, told)));
        let (local, global): (Vec<_>, Vec<_>) = all.partition(|(server, _)| is_link_local(server));
        servers.extend(global.iter().map(|(server, _)| server.to_string()));
        servers.extend(local.iter().map(|(server, told)| format!("{server}%{}", told.link)));
    }
    let mut search = config.search.clone();
    if search.is_empty() {
        search = told.iter().flat_map(|told| told.search.iter().cloned()).collect();
    }
    let domain = config.search.is_empty().then(|| told.iter().find_map(|told| told.domain.clone()));
    let hostname = told.into_iter().find_map(|told| told.hostname);
    let mut hostname =
        config.hostname.clone().or(hostname).unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned());
    // The kernel's limit is 64 bytes.
    hostname.truncate(63);
    let servers = first_of(servers, MAX_NAME_SERVERS);
    let search = first_of(search, MAX_DOMAINS);
    let domain = domain.flatten().or_else(|| search.first().cloned());
    Names { hostname, servers, search, domain }
}

fn is_link_local(server: &IpAddr) -> bool {
    matches!(server, IpAddr::V6(server) if server.is_unicast_link_local())
}

/// Each once, at most so many.
fn first_of(items: Vec<String>, most: usize) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in items {
        if kept.len() < most && !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

impl Names {
    fn resolv_conf(&self) -> String {
        let mut text = String::from(
            "# Written by init from the host configuration and what the network tells.\n",
        );
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
        let full = match &self.domain {
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
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    servers.filter_map(|server| socket_address(server.trim())).collect()
}

/// `192.0.2.1`, or `fe80::1%eth0`.
fn socket_address(server: &str) -> Option<SocketAddr> {
    let Some((address, link)) = server.split_once('%') else {
        return Some(SocketAddr::new(server.parse().ok()?, 53));
    };
    let index = fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).ok()?;
    let scope = index.trim().parse().ok()?;
    Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::super::dhcp::lease::Lease;
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
            time_servers: vec![],
            domain: Some("example.org".into()),
            search: vec![],
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
        let names = names(&config(""), vec![Told::from(&lease()), Told::from(&lease())]);
        assert_eq!(names.hostname, "told");
        assert!(names.resolv_conf().ends_with("\nnameserver 192.0.2.53\nsearch example.org\n"));
        assert!(names.hosts().ends_with("127.0.1.1 told.example.org told\n"));
        let expected = ["192.0.2.53:53".parse().expect("an address")];
        assert_eq!(servers_in(&names.resolv_conf()), expected);
    }

    #[test]
    fn configuration_wins_key_by_key() {
        let text = "hostname = \"a\"\n[network]\nnameservers = [\"2001:db8::53\"]";
        let names = names(&config(text), vec![Told::from(&lease())]);
        assert_eq!(names.hostname, "a");
        assert!(names.resolv_conf().ends_with("\nnameserver 2001:db8::53\nsearch example.org\n"));
    }

    #[test]
    fn nobody_tells_anything() {
        let names = names(&config(""), vec![]);
        assert_eq!((names.hostname.as_str(), names.servers.len()), (DEFAULT_HOSTNAME, 0));
    }

    #[test]
    fn servers_that_containers_cannot_ask_come_last_and_name_their_link() {
        let search = vec!["eng.example.org".into(), "example.org".into()];
        let v4 = Told::from(&Lease { search, ..lease() });
        let router = "fe80::1".parse().expect("an address");
        let global = "2001:db8::53".parse().expect("an address");
        let v6 = Told {
            link: "eth1".into(),
            servers: vec![router, global],
            search: vec!["lan".into(), "example.org".into()],
            ..Told::default()
        };
        let names = names(&config(""), vec![v6, v4]);
        assert_eq!(names.servers, ["2001:db8::53", "192.0.2.53", "fe80::1%eth1"]);
        assert_eq!(names.search, ["lan", "example.org", "eng.example.org"]);
        assert!(names.hosts().ends_with("127.0.1.1 told.example.org told\n"), "{}", names.hosts());
    }

    #[test]
    fn a_server_of_one_link_is_asked_on_that_link() {
        let scope = std::fs::read_to_string("/sys/class/net/lo/ifindex").expect("loopback");
        let found = servers_in("nameserver fe80::1%lo\nnameserver fe80::1%gone\n");
        let [SocketAddr::V6(found)] = found[..] else { panic!("{found:?}") };
        assert_eq!(found.scope_id().to_string(), scope.trim());
    }
}
