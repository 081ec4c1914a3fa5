//! The way to a web server: TLS, a proxy, a bandwidth limit.

use crate::server::{Fault, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use updater::http::{Base, Client, Mirrors, Patience, Settings};
use updater::source::SourceError;

fn settings() -> Settings {
    let patience = Patience {
        rounds: 1,
        slowest: 10_000,
        window: Duration::from_millis(100),
        ..Patience::default()
    };
    // The authorities of the machine that tests run on do not matter.
    Settings { patience, authorities: "/nowhere".into(), ..Settings::default() }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn get(settings: &Settings, url: &str, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    let base = Base::parse(url).expect("an address");
    Client::new(settings).expect("a client").get(&base, path, 1 << 20)
}

/// Answers every request with `content`, over TLS.
fn tls_server() -> String {
    let certificate =
        CertificateDer::from_pem_file(fixture("loopback.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("loopback-key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate of that key");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            // A client that does not trust us hangs up.
            drop(answer(StreamOwned::new(session, stream)));
        }
    });
    format!("https://{address}")
}

fn answer(mut stream: impl Read + Write) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\ncontent")?;
    stream.flush()
}

#[test]
fn only_authorities_that_count_vouch_for_a_server() {
    let url = tls_server();
    let error = get(&settings(), &url, "x").expect_err("nobody vouches for it").to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");

    let own = Settings { authority: Some(fixture("authority.pem")), ..settings() };
    assert_eq!(get(&own, &url, "x").expect("it is vouched for"), Some(b"content".to_vec()));
    let bundle = Settings { authorities: fixture("authority.pem"), ..settings() };
    assert_eq!(get(&bundle, &url, "x").expect("it is vouched for"), Some(b"content".to_vec()));
    // The certificate is for 127.0.0.1.
    let error = get(&own, &url.replace("127.0.0.1", "localhost"), "x").expect_err("another name");
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

/// A proxy as strict as they come: it fetches what is plain, connects for TLS alone, asks for a
/// password, and remembers the first lines of requests.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let log = Arc::clone(&log);
            std::thread::spawn(move || drop(pass_on(stream, &log)));
        }
    });
    (address.to_string(), asked)
}

fn pass_on(mut client: TcpStream, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.is_empty()) {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        lines.push(line.trim_end().to_owned());
    }
    let first = lines.remove(0);
    log.lock().expect("not poisoned").push(first.clone());
    let is_mine = |line: &str| line.to_ascii_lowercase().starts_with("proxy-");
    let password = "proxy-authorization: basic bwu6c2vjcmv0";
    if !lines.iter().any(|line| line.to_ascii_lowercase() == password) {
        return client.write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n");
    }
    let bad = b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n";
    let mut server;
    if let Some(rest) = first.strip_prefix("GET http://") {
        let Some((host, path)) = rest.split_once('/') else { return client.write_all(bad) };
        if !lines.iter().any(|line| line.eq_ignore_ascii_case(&format!("host: {host}"))) {
            return client.write_all(bad);
        }
        server = TcpStream::connect(host)?;
        let rest: Vec<String> = lines.into_iter().filter(|line| !is_mine(line)).collect();
        write!(server, "GET /{path}\r\n{}\r\n", rest.join("\r\n"))?;
    } else {
        let to = first.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
        server = TcpStream::connect(to.unwrap_or_default())?;
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    }
    let (mut from, mut back) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut from, &mut back);
        back.shutdown(std::net::Shutdown::Both).and(copied)
    });
    std::io::copy(&mut reader, &mut server).map(drop)
}

#[test]
fn a_proxy_is_used_but_for_the_hosts_that_are_excepted() {
    let server = Server::start();
    server.put("p/x", "content");
    let (address, asked) = proxy();
    let asked = || std::mem::take(&mut *asked.lock().expect("not poisoned"));
    let through = Settings { proxy: Some(format!("http://me:secret@{address}")), ..settings() };
    let whole = format!("GET {}/p/x HTTP/1.1", server.url());
    assert_eq!(get(&through, &server.url(), "p/x").expect("a way"), Some(b"content".to_vec()));
    assert_eq!(asked(), [whole]);

    let around = Settings { no_proxy: vec!["127.0.0.1".to_owned()], ..through.clone() };
    assert_eq!(get(&around, &server.url(), "p/x").expect("a way"), Some(b"content".to_vec()));
    assert_eq!(asked(), [""; 0]);

    let nobody = Settings { proxy: Some(format!("http://{address}")), ..settings() };
    let error = get(&nobody, &server.url(), "p/x").expect_err("a password is needed").to_string();
    assert!(error.contains("407") && !error.contains("secret"), "{error}");
}

#[test]
fn a_redirect_goes_through_the_proxy_too() {
    let (server, elsewhere) = (Server::start(), Server::start());
    server.fail("x", Fault::Elsewhere(elsewhere.port()));
    elsewhere.put("x", "content");
    let (address, asked) = proxy();
    let through = Settings { proxy: Some(format!("http://me:secret@{address}")), ..settings() };
    assert_eq!(get(&through, &server.url(), "x").expect("a way"), Some(b"content".to_vec()));
    let asked = asked.lock().expect("not poisoned");
    let expected = [&server, &elsewhere].map(|server| format!("GET {}/x HTTP/1.1", server.url()));
    assert_eq!(*asked, expected);
}

#[test]
fn tls_is_connected_through_a_proxy() {
    let url = tls_server();
    let (address, asked) = proxy();
    let proxy = Some(format!("http://me:secret@{address}"));
    let authority = Some(fixture("authority.pem"));
    let through = Settings { proxy, authority, ..settings() };
    assert_eq!(get(&through, &url, "x").expect("a way"), Some(b"content".to_vec()));
    let to = url.trim_start_matches("https://");
    assert_eq!(*asked.lock().expect("not poisoned"), [format!("CONNECT {to} HTTP/1.1")]);
}

#[test]
fn a_bandwidth_limit_is_not_the_servers_fault() {
    let server = Server::start();
    let content = vec![7; 3000];
    server.put("x", content.clone());
    // Slower than what a server has to give, and for longer than the window.
    let limited = Settings { bandwidth: Some(5_000), ..settings() };
    let mut client = Client::new(&limited).expect("a client");
    let mut mirrors = Mirrors::new(vec![Base::parse(&server.url()).expect("an address")]);
    let mirrors = mirrors.as_mut().expect("a mirror");
    let mut got = Vec::new();
    let result = client.stream(mirrors, "x", 3000, 0..3000, &mut |piece| {
        got.extend_from_slice(piece);
        Ok(())
    });
    result.expect("it arrives");
    assert_eq!(got, content);
    assert_eq!(server.requests().len(), 1);

    server.fail("x", Fault::Trickle);
    let error = client.stream(mirrors, "x", 3000, 0..3000, &mut |_| Ok(()));
    assert!(matches!(error, Err(SourceError::Unreachable(why)) if why.contains("bytes a second")));
}
