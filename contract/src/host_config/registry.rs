//! `[[registry]]`: how a host trusts and finds the registries that images come from.

use super::{Wrong, bounded, is_domain};
use serde::Deserialize;
use std::net::Ipv6Addr;

/// `[[registry]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawRegistry {
    /// `HOST` or `HOST:PORT`, as in the names of its images; `docker.io` for Docker Hub.
    pub name: String,
    /// Certificates of who may sign its own, in PEM.
    pub ca: Option<String>,
    /// Or the path of such a file on the ESP, relative to the folder `berth`.
    pub ca_file: Option<String>,
    /// Where its images are looked for first.
    pub mirrors: Vec<String>,
}

/// A registry that differs from what a host believes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// `HOST` or `HOST:PORT`.
    pub name: String,
    /// Whom it is trusted by, beside the public authorities.
    pub ca: Option<Authority>,
    /// Addresses, the first is asked first.
    pub mirrors: Vec<String>,
}

/// Where the certificate of an authority is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// In the host configuration, in PEM.
    Inline(String),
    /// On the ESP, relative to the folder `berth`.
    EspFile(String),
}

impl RawRegistry {
    pub(super) fn validate(self) -> Result<Registry, Wrong> {
        if !is_place(&self.name) {
            let why = "is no registry as in registry.example.org:5000";
            return Err(Wrong::new("name", format!("`{}` {why}", self.name)));
        }
        let ca = match (self.ca, self.ca_file) {
            (Some(_), Some(_)) => {
                return Err(Wrong::new("ca-file", "there is `ca` already: give one of them"));
            }
            (Some(text), None) if is_pem(&text) => Some(Authority::Inline(text)),
            (Some(_), None) => {
                let why = "is no certificate in PEM: -----BEGIN CERTIFICATE----- and so on";
                return Err(Wrong::new("ca", why));
            }
            (None, Some(file)) if super::stays_on_esp(&file) => Some(Authority::EspFile(file)),
            (None, Some(file)) => {
                return Err(Wrong::new("ca-file", format!("`{file}` leaves the ESP")));
            }
            (None, None) => None,
        };
        bounded("mirrors", self.mirrors.len())?;
        if let Some(i) = self.mirrors.iter().position(|mirror| !is_address(mirror)) {
            let why = "is no address as in https://mirror.example.org:5000";
            let shown = crate::text::without_credentials(&self.mirrors[i]);
            return Err(Wrong(format!("mirrors.{i}"), format!("`{shown}` {why}")));
        }
        if ca.is_none() && self.mirrors.is_empty() {
            let why = format!("`{}` needs one of `ca`, `ca-file` and `mirrors`", self.name);
            return Err(Wrong::new("name", why));
        }
        Ok(Registry { name: self.name, ca, mirrors: self.mirrors })
    }
}

/// A name or an address, with a port or without. It becomes the name of a folder.
fn is_place(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            if !port.parse::<u16>().is_ok_and(|port| port != 0) {
                return false;
            }
            host
        }
        _ => text,
    };
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => is_domain(host),
    }
}

/// `http://` or `https://`, a place, and perhaps a path. Neither runtime takes a password here.
fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return false };
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    is_place(place) && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
}

/// Whether a text looks like certificates in PEM (RFC 7468).
pub fn is_pem(text: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut blocks = text.split(BEGIN).skip(1).peekable();
    blocks.peek().is_some()
        && blocks.all(|block| {
            block.split_once(END).is_some_and(|(body, _)| {
                let known = |c: char| c.is_ascii_alphanumeric() || "+/=\r\n \t".contains(c);
                body.contains(|c: char| c.is_ascii_alphanumeric()) && body.chars().all(known)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_addresses() {
        let cases = [
            ("registry.example.org", true),
            ("registry.example.org:5000", true),
            ("localhost:5000", true),
            ("10.0.2.2:5000", true),
            ("[2001:db8::1]:5000", true),
            ("[2001:db8::1]", true),
            ("2001:db8::1", false),
            ("..", false),
            ("a/b", false),
            ("a:b", false),
            ("a:0", false),
            ("", false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_place(text), expected, "{text}");
            let url = format!("https://{text}");
            assert_eq!(is_address(&url), expected || text == "a/b", "{url}");
        }
        for (text, expected) in [
            ("http://mirror.example.org:5000/v2/cache", true),
            ("https://user:word@mirror.example.org", false),
            ("https://mirror.example.org/?x", false),
            ("mirror.example.org", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
    }

    #[test]
    fn certificates_look_like_some() {
        let one = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n";
        for (text, expected) in [
            (one.to_owned(), true),
            (format!("the first\n{one}{one}"), true),
            (one.replace("MIIB", "M\u{e4}"), false),
            (one.replace("END", "FIN"), false),
            (one.replace("CERTIFICATE", "PRIVATE KEY"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_pem(&text), expected, "{text}");
        }
    }
}
