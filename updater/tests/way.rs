//! The way to a web server: TLS, a proxy, a bandwidth limit.

mod server;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use server::{Fault, Server};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// A proxy that counts what it connects.
fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || drop(connect(stream)));
        }
    });
    (address.to_string(), count)
}

fn connect(mut client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut to, mut password) = (String::new(), false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(rest) = line.strip_prefix("CONNECT ") {
            rest.split(' ').next().unwrap_or_default().clone_into(&mut to);
        }
        password |=
            line.to_ascii_lowercase().starts_with("proxy-authorization: basic bwu6c2vjcmv0");
        if line.trim_end().is_empty() {
            break;
        }
    }
    if !password {
        return client.write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(to)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut from, mut back) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut back));
    std::io::copy(&mut client, &mut server).map(drop)
}

#[test]
fn a_proxy_is_used_but_for_the_hosts_that_are_excepted() {
    let server = Server::start();
    server.put("x", "content");
    let (address, count) = proxy();
    let through = Settings { proxy: Some(format!("http://me:secret@{address}")), ..settings() };
    assert_eq!(get(&through, &server.url(), "x").expect("a way"), Some(b"content".to_vec()));
    assert_eq!(count.load(Ordering::Relaxed), 1);

    let around = Settings { no_proxy: vec!["127.0.0.1".to_owned()], ..through.clone() };
    assert_eq!(get(&around, &server.url(), "x").expect("a way"), Some(b"content".to_vec()));
    assert_eq!(count.load(Ordering::Relaxed), 1);

    let nobody = Settings { proxy: Some(format!("http://{address}")), ..settings() };
    let error = get(&nobody, &server.url(), "x").expect_err("a password is needed").to_string();
    assert!(error.contains("407") && !error.contains("secret"), "{error}");
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
