//! The host configuration: what one machine is told, as opposed to its image.
//!
//! Three layers are read, later ones over earlier ones: the image's defaults, `berth/host.toml`
//! on the ESP, and the firmware configuration. Each layer is a [`Raw`]; [`Raw::over`] merges two;
//! [`Raw::validate`] turns the result into a [`HostConfig`] or says what is wrong. Nothing uses a
//! layer that was not validated.

use crate::toml_input::{self, InputError};
use crate::update::{RawUpdate, Update};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Most bytes that a layer may have.
pub const MAX_LEN: usize = 1 << 20;

/// A layer as it was written. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Host name.
    pub hostname: Option<String>,
    /// `[network]`
    pub network: RawNetwork,
    /// `[time]`
    pub time: RawTime,
    /// `[update]`
    pub update: RawUpdate,
    /// `[[workload]]`
    pub workload: Vec<RawWorkload>,
}

/// `[network]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNetwork {
    /// Name servers used instead of those that DHCP tells.
    pub nameservers: Option<Vec<String>>,
    /// DNS search domains.
    pub search: Option<Vec<String>>,
    /// `[[network.interface]]`
    pub interface: Vec<RawInterface>,
}

/// `[[network.interface]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawInterface {
    /// Kernel name (`eth0`) or MAC address (`52:54:00:12:34:56`).
    pub name: String,
    /// Ask for an address by DHCPv4. Defaults to true unless `address` is given.
    pub dhcp: Option<bool>,
    /// Static addresses with prefix length: `192.0.2.10/24`.
    pub address: Option<Vec<String>>,
    /// Default gateway.
    pub gateway: Option<String>,
    /// Bytes; the link's own default otherwise.
    pub mtu: Option<u32>,
}

/// `[time]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTime {
    /// SNTP servers, names or addresses. An empty list asks nobody.
    pub servers: Option<Vec<String>>,
}

/// `[[workload]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorkload {
    /// Compose project name.
    pub name: String,
    /// The Compose file itself.
    pub compose: Option<String>,
    /// Or its path on the ESP, relative to the folder `berth`.
    pub file: Option<String>,
    /// Seconds within which it must be up and healthy.
    pub timeout: Option<u64>,
}

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// `None`: the name that DHCP gives, else `berth`.
    pub hostname: Option<String>,
    /// Used instead of DHCP's when not empty.
    pub nameservers: Vec<IpAddr>,
    /// DNS search domains.
    pub search: Vec<String>,
    /// Links with settings of their own. Other wired links use DHCPv4 and IPv6 autoconfiguration.
    pub interfaces: Vec<Interface>,
    /// SNTP servers. Empty: nobody is asked.
    pub time_servers: Vec<String>,
    /// Where updates come from and what they have to show.
    pub update: Update,
    /// Compose projects, in the order in which they start.
    pub workloads: Vec<Workload>,
}

/// Settings of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Which link.
    pub link: Link,
    /// Ask for an address by DHCPv4.
    pub dhcp: bool,
    /// Static addresses and prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default gateways, at most one of each family.
    pub gateway: Option<IpAddr>,
    /// In bytes.
    pub mtu: Option<u32>,
}

/// How a link is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// By the kernel.
    Name(String),
    /// By its hardware address.
    Mac([u8; 6]),
}

/// A Compose project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Compose project name.
    pub name: String,
    /// Where the Compose file is.
    pub source: WorkloadSource,
    /// Time within which it must be up and healthy.
    pub timeout: Duration,
}

/// Where a Compose file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadSource {
    /// In the host configuration.
    Inline(String),
    /// On the ESP, relative to the folder `berth`.
    EspFile(String),
}

/// Time servers when no layer names any.
const DEFAULT_TIME_SERVERS: [&str; 1] = ["pool.ntp.org"];
/// Time that a workload has, when it names none.
const DEFAULT_WORKLOAD_TIMEOUT: Duration = Duration::from_secs(300);

impl Raw {
    /// Reads one layer; `file` is its name for errors.
    pub fn parse(file: &str, text: &str) -> Result<Raw, InputError> {
        if text.len() > MAX_LEN {
            let message = format!("{} bytes; at most {MAX_LEN} are read", text.len());
            return Err(InputError::new(file, message));
        }
        toml_input::parse(file, text)
    }

    /// This layer over `below`: its keys win, interfaces and workloads are told apart by name.
    pub fn over(self, below: Raw) -> Raw {
        Raw {
            hostname: self.hostname.or(below.hostname),
            network: RawNetwork {
                nameservers: self.network.nameservers.or(below.network.nameservers),
                search: self.network.search.or(below.network.search),
                interface: merge(below.network.interface, self.network.interface, |i| &i.name),
            },
            time: RawTime { servers: self.time.servers.or(below.time.servers) },
            update: self.update.over(below.update),
            workload: merge(below.workload, self.workload, |w| &w.name),
        }
    }

    /// Checks everything; `file` names the layers for errors.
    pub fn validate(self, file: &str) -> Result<HostConfig, InputError> {
        let wrong = |Wrong(key, message): Wrong| InputError::of_key(file, key, message);
        if let Some(name) = &self.hostname
            && !is_hostname(name)
        {
            return Err(wrong(Wrong::new("hostname", format!("`{name}` is not a host name")))
                .with_hint("letters, digits, hyphens and dots, at most 63 bytes"));
        }
        unique("workload", self.workload.iter().map(|w| &w.name)).map_err(wrong)?;
        let interfaces = &self.network.interface;
        unique("network.interface", interfaces.iter().map(|i| &i.name)).map_err(wrong)?;
        let nameservers = self.network.nameservers.unwrap_or_default();
        let nameservers = nameservers.iter().enumerate().map(|(i, text)| {
            address(text).map_err(|why| Wrong(format!("network.nameservers.{i}"), why))
        });
        let interfaces = self.network.interface.into_iter().enumerate().map(|(i, raw)| {
            interface(raw).map_err(|wrong| wrong.below(&format!("network.interface.{i}")))
        });
        let workloads =
            self.workload.into_iter().enumerate().map(|(i, raw)| {
                workload(raw).map_err(|wrong| wrong.below(&format!("workload.{i}")))
            });
        Ok(HostConfig {
            hostname: self.hostname,
            nameservers: nameservers.collect::<Result<_, _>>().map_err(wrong)?,
            search: self.network.search.unwrap_or_default(),
            interfaces: interfaces.collect::<Result<_, _>>().map_err(wrong)?,
            time_servers: self
                .time
                .servers
                .unwrap_or_else(|| DEFAULT_TIME_SERVERS.map(str::to_owned).to_vec()),
            update: self.update.validate().map_err(|(key, why)| wrong(Wrong(key, why)))?,
            workloads: workloads.collect::<Result<_, _>>().map_err(wrong)?,
        })
    }
}

/// Reads and checks one layer by itself; errors tell the place in it.
pub fn check(file: &str, text: &str) -> Result<HostConfig, InputError> {
    Raw::parse(file, text)?.validate(file).map_err(|e| e.placed(text))
}

/// The key that is wrong, and why.
struct Wrong(String, String);

impl Wrong {
    fn new(key: &str, why: impl Into<String>) -> Wrong {
        Wrong(key.to_owned(), why.into())
    }

    fn below(self, key: &str) -> Wrong {
        Wrong(format!("{key}.{}", self.0), self.1)
    }
}

fn merge<T>(below: Vec<T>, above: Vec<T>, name: impl Fn(&T) -> &String) -> Vec<T> {
    let replaced: BTreeSet<String> = above.iter().map(|item| name(item).clone()).collect();
    let kept = below.into_iter().filter(|item| !replaced.contains(name(item)));
    kept.collect::<Vec<_>>().into_iter().chain(above).collect()
}

fn unique<'a>(key: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Wrong> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(Wrong(format!("{key}.{i}.name"), format!("`{name}` is declared twice")));
        }
    }
    Ok(())
}

/// RFC 1123, section 2.1, with the kernel's limit of 64 bytes including the end.
fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 63 && name.split('.').all(label)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

fn link(name: &str) -> Result<Link, Wrong> {
    if name.contains(':') {
        let octets: Vec<u8> =
            name.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        return match <[u8; 6]>::try_from(octets) {
            Ok(mac) if name.split(':').count() == 6 => Ok(Link::Mac(mac)),
            _ => Err(Wrong::new("name", format!("`{name}` is not a MAC address"))),
        };
    }
    // IFNAMSIZ is 16 with the final NUL.
    match name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
        true => Err(Wrong::new("name", format!("`{name}` is not an interface name"))),
        false => Ok(Link::Name(name.to_owned())),
    }
}

fn interface(raw: RawInterface) -> Result<Interface, Wrong> {
    let link = link(&raw.name)?;
    let mut addresses = Vec::new();
    for (i, text) in raw.address.iter().flatten().enumerate() {
        let parsed = text.split_once('/').and_then(|(ip, prefix)| {
            let ip: IpAddr = ip.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            let most = if ip.is_ipv4() { 32 } else { 128 };
            (prefix <= most).then_some((ip, prefix))
        });
        addresses.push(parsed.ok_or_else(|| {
            let why =
                format!("`{text}` is not an address with a prefix length, as in 192.0.2.10/24");
            Wrong(format!("address.{i}"), why)
        })?);
    }
    let gateway = raw.gateway.as_deref().map(address).transpose();
    let gateway = gateway.map_err(|why| Wrong::new("gateway", why))?;
    if let Some(gateway) = gateway
        && !addresses.iter().any(|(ip, prefix)| same_net(*ip, gateway, *prefix))
        && !addresses.is_empty()
    {
        let why = format!("{gateway} is in no network of interface `{}`", raw.name);
        return Err(Wrong::new("gateway", why));
    }
    let dhcp = raw.dhcp.unwrap_or(addresses.is_empty());
    if let Some(mtu) = raw.mtu
        && !(576..=65535).contains(&mtu)
    {
        return Err(Wrong::new("mtu", format!("{mtu} is not in 576..65535")));
    }
    Ok(Interface { link, dhcp, addresses, gateway, mtu: raw.mtu })
}

fn same_net(ip: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((a, width), (b, other_width)) = (bits(ip), bits(other));
    width == other_width && (prefix == 0 || (a ^ b) >> (128 - u32::from(prefix)) == 0)
}

fn workload(raw: RawWorkload) -> Result<Workload, Wrong> {
    // Compose's own rule for project names.
    let mut bytes = raw.name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest =
        bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !first || !rest || raw.name.len() > 63 {
        let why = "must be lower-case letters, digits, - and _, at most 63";
        return Err(Wrong::new("name", format!("`{}` {why}", raw.name)));
    }
    let source = match (raw.compose, raw.file) {
        (Some(text), None) => WorkloadSource::Inline(text),
        (None, Some(file)) if !file.split('/').any(|part| part.is_empty() || part == "..") => {
            WorkloadSource::EspFile(file)
        }
        (None, Some(file)) => {
            return Err(Wrong::new("file", format!("`{file}` leaves the ESP")));
        }
        _ => {
            return Err(Wrong::new(
                "name",
                format!("`{}` needs either `compose` or `file`", raw.name),
            ));
        }
    };
    let timeout = raw.timeout.map_or(DEFAULT_WORKLOAD_TIMEOUT, Duration::from_secs);
    Ok(Workload { name: raw.name, source, timeout })
}

/// The network mask of an IPv4 prefix length.
pub fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<HostConfig, String> {
        check("host.toml", text).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        let config = config("").expect("valid");
        assert_eq!(config.hostname, None);
        assert!(config.workloads.is_empty() && config.interfaces.is_empty());
        assert_eq!(config.time_servers, DEFAULT_TIME_SERVERS);
    }

    #[test]
    fn later_layers_win_by_key_and_by_name() {
        let below = "hostname = \"a\"\n[[workload]]\nname = \"x\"\ncompose = \"1\"\n\
                     [[workload]]\nname = \"y\"\ncompose = \"2\"";
        let above = "[time]\nservers = []\n[[workload]]\nname = \"x\"\nfile = \"x.yaml\"";
        let (below, above) = (Raw::parse("1", below), Raw::parse("2", above));
        let merged = above.expect("above").over(below.expect("below")).validate("both");
        let merged = merged.expect("valid");
        assert_eq!(merged.hostname.as_deref(), Some("a"));
        assert!(merged.time_servers.is_empty());
        let names: Vec<_> = merged.workloads.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["y", "x"]);
        assert_eq!(merged.workloads[1].source, WorkloadSource::EspFile("x.yaml".into()));
    }

    #[test]
    fn bad_values_are_named() {
        let cases = [
            ("hostname = \"-a\"", "1:1: hostname: `-a` is not a host name"),
            (
                "[network]\nnameservers = [\"1.1.1.1\",\n  \"dns\"]",
                "3:3: network.nameservers: `dns` is not an IP address",
            ),
            (
                "[[network.interface]]\nname = \"a:b\"",
                "2:1: network.interface.name: `a:b` is not a MAC address",
            ),
            (
                "[[network.interface]]\nname = \"eth0\"\naddress = [\"1.2.3.4\"]",
                "3:12: network.interface.address: `1.2.3.4` is not an address with a prefix \
                 length, as in 192.0.2.10/24",
            ),
            (
                "[[network.interface]]\nname = \"eth0\"\naddress = [\"192.0.2.1/24\"]\n\
                 gateway = \"198.51.100.1\"",
                "4:1: network.interface.gateway: 198.51.100.1 is in no network of interface `eth0`",
            ),
            (
                "[[network.interface]]\nname = \"eth0\"\nmtu = 1",
                "3:1: network.interface.mtu: 1 is not in 576..65535",
            ),
            (
                "[[workload]]\nname = \"a\"",
                "2:1: workload.name: `a` needs either `compose` or `file`",
            ),
            (
                "[[workload]]\nname = \"a\"\nfile = \"../x\"",
                "3:1: workload.file: `../x` leaves the ESP",
            ),
            (
                "[[workload]]\nname = \"a\"\nfile = \"x\"\n[[workload]]\nname = \"a\"\nfile = \"y\"",
                "5:1: workload.name: `a` is declared twice",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(config(text), Err(format!("host.toml:{expected}")), "{text}");
        }
    }

    #[test]
    fn static_addresses_switch_dhcp_off() {
        let config = config(
            "[[network.interface]]\nname = \"52:54:00:12:34:56\"\n\
             address = [\"192.0.2.10/24\", \"2001:db8::1/64\"]\ngateway = \"192.0.2.1\"",
        )
        .expect("valid");
        let interface = &config.interfaces[0];
        assert_eq!(interface.link, Link::Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert!(!interface.dhcp);
        assert_eq!(interface.addresses.len(), 2);
    }
}
