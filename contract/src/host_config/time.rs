//! `[time]`: who is asked for the time.

use super::{Wrong, bounded, is_domain};
use serde::Deserialize;
use std::net::IpAddr;

/// `[time]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTime {
    /// SNTP servers, names or addresses, with a port where it is not 123. An empty list asks
    /// nobody.
    pub servers: Option<Vec<String>>,
}

/// Somebody who is asked for the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeServer {
    /// Its name or address.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

/// The port of SNTP.
const PORT: u16 = 123;

impl TimeServer {
    /// An address on the usual port.
    pub fn at(address: IpAddr) -> TimeServer {
        TimeServer { host: address.to_string(), port: PORT }
    }

    /// Asked when no layer names any, and after those of the network.
    pub fn public() -> TimeServer {
        TimeServer { host: "pool.ntp.org".to_owned(), port: PORT }
    }
}

impl RawTime {
    /// This layer over `below`: its keys win.
    pub(super) fn over(self, below: RawTime) -> RawTime {
        RawTime { servers: self.servers.or(below.servers) }
    }

    pub(super) fn validate(self) -> Result<Option<Vec<TimeServer>>, Wrong> {
        let Some(servers) = self.servers else { return Ok(None) };
        bounded("servers", servers.len())?;
        let servers = servers.into_iter().enumerate().map(|(i, text)| {
            server(&text).ok_or_else(|| {
                let why = format!("`{text}` is not a name or an address, with a port or without");
                Wrong(format!("servers.{i}"), why)
            })
        });
        servers.collect::<Result<_, _>>().map(Some)
    }
}

/// `host`, `host:port`, `2001:db8::1` or `[2001:db8::1]:port`.
fn server(text: &str) -> Option<TimeServer> {
    let known = |host: &str, port| {
        let good = host.parse::<IpAddr>().is_ok() || is_domain(host);
        (good && port != 0).then(|| TimeServer { host: host.to_owned(), port })
    };
    if let Some(found) = known(text, PORT) {
        return Some(found);
    }
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) => bare.contains(':').then(|| known(bare, port.parse().ok()?)).flatten(),
        None => (!host.contains(':')).then(|| known(host, port.parse().ok()?)).flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_or_addresses_and_may_have_a_port() {
        let cases = [
            ("pool.ntp.org", Some(("pool.ntp.org", 123))),
            ("192.0.2.1", Some(("192.0.2.1", 123))),
            ("192.0.2.1:1123", Some(("192.0.2.1", 1123))),
            ("time.example.org:1123", Some(("time.example.org", 1123))),
            ("2001:db8::1", Some(("2001:db8::1", 123))),
            ("[2001:db8::1]:1123", Some(("2001:db8::1", 1123))),
            ("2001:db8::1::", None),
            ("[192.0.2.1]:1123", None),
            ("host:0", None),
            ("host:port", None),
            ("-a", None),
            ("a b", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = server(text).map(|found| (found.host, found.port));
            assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
        }
    }
}
