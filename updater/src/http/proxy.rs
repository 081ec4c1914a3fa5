//! The way through a proxy. For https it is asked to `CONNECT`, which `ureq` does; for plain http
//! it is asked for the whole address (RFC 9112, section 3.2.2), as proxies that let nobody connect
//! to other ports than 443 expect.

use super::{Settings, SetupError};
use contract::text::without_credentials;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::typestate::WithoutBody;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, Error, Proxy, ProxyProtocol, RequestBuilder};

/// What is configured.
pub(super) fn configured(settings: &Settings) -> Result<Option<Proxy>, SetupError> {
    let Some(address) = &settings.proxy else { return Ok(None) };
    let refuse = |_| SetupError::Proxy(without_credentials(address));
    let plain = Proxy::new(address).map_err(refuse)?;
    if !matches!(plain.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(SetupError::Proxy(without_credentials(address)));
    }
    let mut proxy = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(name) = plain.username() {
        proxy = proxy.username(name);
    }
    if let Some(password) = plain.password() {
        proxy = proxy.password(password);
    }
    for host in &settings.no_proxy {
        proxy = proxy.no_proxy(host);
    }
    proxy.build().map(Some).map_err(refuse)
}

/// A proxy that fetches.
pub(super) struct Forward {
    agent: Agent,
    proxy: Proxy,
    authorization: Option<String>,
}

impl Forward {
    /// `None` for a proxy that is spoken to by TLS: that one is always asked to connect.
    pub(super) fn new(proxy: Proxy, config: Config) -> Option<Forward> {
        if proxy.protocol() != ProxyProtocol::Http {
            return None;
        }
        let address = format!("http://{}:{}/", proxy.host(), proxy.port()).parse().ok()?;
        let connector = ().chain(TcpConnector::default()).chain(WholeAddress);
        let agent = Agent::with_parts(config, connector, Always(address));
        let authorization = proxy.username().map(|name| {
            let password = proxy.password().unwrap_or_default();
            format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))
        });
        Some(Forward { agent, proxy, authorization })
    }

    /// The request for `uri`, when that goes through the proxy in plain.
    pub(super) fn get(&self, uri: &Uri) -> Option<RequestBuilder<WithoutBody>> {
        if uri.scheme_str() != Some("http") || self.proxy.is_no_proxy(uri) {
            return None;
        }
        let mut request = self.agent.get(uri);
        if let Some(authorization) = &self.authorization {
            request = request.header("proxy-authorization", authorization);
        }
        Some(request)
    }
}

/// Finds the proxy, whichever server is meant.
#[derive(Debug)]
struct Always(Uri);

impl Resolver for Always {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

/// Lets requests name the server that they are for. A connection serves one server.
#[derive(Debug)]
struct WholeAddress;

impl<In: Transport> Connector<In> for WholeAddress {
    type Out = Naming<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        connection: Option<In>,
    ) -> Result<Option<Naming<In>>, Error> {
        let authority = details.uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let server = format!("http://{host}");
        Ok(connection.map(|connection| Naming { connection, server }))
    }
}

#[derive(Debug)]
struct Naming<T> {
    connection: T,
    server: String,
}

/// Begins every request: nothing else is sent, as a request has no body.
const GET: &[u8] = b"GET ";

impl<T: Transport> Transport for Naming<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let (head, server) = (GET.len(), self.server.as_bytes());
        let output = self.connection.buffers().output();
        let whole = amount + server.len();
        if output.starts_with(GET) && amount > head {
            if whole > output.len() {
                return Err(Error::BadUri("an address that is too long".to_owned()));
            }
            output.copy_within(head..amount, head + server.len());
            output[head..head + server.len()].copy_from_slice(server);
            return self.connection.transmit_output(whole, timeout);
        }
        self.connection.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.connection.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.connection.is_open()
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
