//! Just enough HTTP to ask a guest for a page.

use crate::{Error, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A larger answer is refused.
const RESPONSE_MAX: usize = 16 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks until a whole answer comes, whatever its status. QEMU accepts connections before anyone in
/// the guest listens and then closes them, so one that fails says nothing.
pub fn get(port: u16, path: &str, within: Duration) -> Result<Response> {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let failure = match attempt(port, path, left.max(Duration::from_millis(1))) {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Http { port, path: path.to_owned(), message: failure });
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

fn attempt(port: u16, path: &str, within: Duration) -> std::result::Result<Response, String> {
    let text = |error: std::io::Error| error.to_string();
    let end = Instant::now() + within;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, within).map_err(text)?;
    stream.set_write_timeout(Some(within)).map_err(text)?;
    // 1.0: the answer is not chunked and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).map_err(text)?;
        match stream.read(&mut buffer).map_err(text)? {
            0 => break,
            n => answer.extend(&buffer[..n]),
        }
        if answer.len() > RESPONSE_MAX {
            return Err("more than 16 MiB".into());
        }
    }
    parse(&answer).map_err(str::to_owned)
}

fn parse(answer: &[u8]) -> std::result::Result<Response, &'static str> {
    if answer.is_empty() {
        return Err("closed without an answer");
    }
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no whole header")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "a header that is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or("not HTTP")?;
    let body = answer[end + 4..].to_vec();
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    match length {
        Some(Ok(length)) if length != body.len() => Err("cut off in the middle"),
        Some(Err(_)) => Err("a Content-Length that is no number"),
        _ => Ok(Response { status, body }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not() {
        let ok = |status, body: &[u8]| Ok(Response { status, body: body.to_vec() });
        let cases: [(&[u8], std::result::Result<Response, &str>); 8] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ok(200, b"hi")),
            (b"HTTP/1.0 404 Not Found\r\n\r\n", ok(404, b"")),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", Err("cut off in the middle")),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                Err("a Content-Length that is no number"),
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Le", Err("no whole header")),
            (b"SSH-2.0-x\r\n\r\n", Err("not HTTP")),
            (b"\xff\xff\r\n\r\n", Err("a header that is not text")),
            (b"", Err("closed without an answer")),
        ];
        for (answer, expected) in cases {
            assert_eq!(parse(answer), expected);
        }
    }

    #[test]
    fn a_page_is_asked_for_until_it_comes() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = server.local_addr().expect("an address").port();
        let serving = std::thread::spawn(move || {
            // The first connection ends as QEMU's do while nobody listens in the guest.
            drop(server.accept());
            let (mut stream, _) = server.accept().expect("a connection");
            let mut request = [0; 256];
            let n = stream.read(&mut request).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage").expect("answer");
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let response = get(port, "/x", Duration::from_secs(60)).expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (200, "page"));
        assert!(serving.join().expect("server").starts_with("GET /x HTTP/1.0\r\n"));
    }
}
