//! `[proxy]`: how a host reaches HTTP servers when it may not do so itself.

use super::{Wrong, bounded};
use serde::Deserialize;

/// `[proxy]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawProxy {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`; the same as `http` unless given.
    pub https: Option<String>,
    /// What is reached without a proxy.
    pub exclude: Option<Vec<String>>,
}

/// The way to HTTP servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// Names, domains with a dot before them, addresses and networks that are reached without it.
    pub exclude: Vec<String>,
}

/// What nobody ever wants to reach through a proxy.
const ALWAYS_EXCLUDED: [&str; 3] = ["localhost", "127.0.0.0/8", "::1"];

impl Proxy {
    /// Variables of the environment, as programs of all kinds read them: in upper case, since curl
    /// and its like read `http_proxy` in lower case only, and Go either.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for (name, value) in [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https)] {
            variables.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
        }
        if !variables.is_empty() {
            let excluded = ALWAYS_EXCLUDED.iter().map(|text| (*text).to_owned());
            let excluded: Vec<String> = excluded.chain(self.exclude.iter().cloned()).collect();
            variables.push(("NO_PROXY".to_owned(), excluded.join(",")));
        }
        variables
    }
}

impl RawProxy {
    /// This layer over `below`: its keys win.
    pub(super) fn over(self, below: RawProxy) -> RawProxy {
        RawProxy {
            http: self.http.or(below.http),
            https: self.https.or(below.https),
            exclude: self.exclude.or(below.exclude),
        }
    }

    pub(super) fn validate(self) -> Result<Proxy, Wrong> {
        let exclude = self.exclude.unwrap_or_default();
        bounded("exclude", exclude.len())?;
        for (i, text) in exclude.iter().enumerate() {
            let known = |c: char| c.is_ascii_alphanumeric() || ".-_:/*".contains(c);
            if text.is_empty() || !text.chars().all(known) {
                let why = format!("`{text}` is not a name, a domain, an address or a network");
                return Err(Wrong(format!("exclude.{i}"), why));
            }
        }
        let http = self.http.map(|text| checked("http", text)).transpose()?;
        let https = self.https.map(|text| checked("https", text)).transpose()?;
        Ok(Proxy { https: https.or_else(|| http.clone()), http, exclude })
    }
}

/// `http://[USER:PASSWORD@]HOST:PORT`. The answer never has a password in it.
fn checked(key: &str, text: String) -> Result<String, Wrong> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let place = rest.map(|rest| rest.rsplit_once('@').map_or(rest, |(_, place)| place));
    let good = place.is_some_and(|place| match place.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0),
        None => false,
    });
    let plain = |c: char| c.is_ascii_graphic() && !"/?#\"'\\".contains(c);
    match good && rest.is_some_and(|rest| rest.chars().all(plain)) {
        true => Ok(text),
        false => {
            let shown = crate::text::without_credentials(&text);
            let why = format!("`{shown}` is not a proxy as in http://proxy.example.org:3128");
            Err(Wrong::new(key, why))
        }
    }
}
