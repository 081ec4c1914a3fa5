//! Just enough DNS (RFC 1035) to find a time server. The C library's resolver cannot be used: in a
//! static program it would load plugins.

use super::resolver;
use crate::random::Random;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Longest wait for one server's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Datagrams read while waiting for the right one.
const MAX_DATAGRAMS: usize = 8;
/// Most addresses taken from an answer.
const MAX_ADDRESSES: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
}

/// The addresses of `name`: itself when it is one, else what the name servers say.
pub fn resolve(name: &str, random: &mut Random) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let servers = resolver::current_servers();
    let why = match servers.is_empty() {
        true => "no name server is known",
        false => "the name servers know no address",
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, why);
    for server in servers {
        let mut addresses = Vec::new();
        for kind in [Kind::A, Kind::Aaaa] {
            match ask(server, name, kind, random) {
                Ok(found) => addresses.extend(found),
                Err(e) => last = e,
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
    }
    Err(last)
}

fn ask(server: SocketAddr, name: &str, kind: Kind, random: &mut Random) -> io::Result<Vec<IpAddr>> {
    let id = random.next_u32() as u16;
    let query = encode(id, name, kind)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a domain name"))?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.send(&query)?;
    let mut buffer = [0; 1232];
    for _ in 0..MAX_DATAGRAMS {
        let n = socket.recv(&mut buffer).map_err(no_answer)?;
        if let Some(answer) = decode(&buffer[..n], id, &query, kind) {
            return Ok(answer);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Says in words what the kernel calls "Resource temporarily unavailable".
pub fn no_answer(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        _ => e,
    }
}

/// A question. `None`: the name cannot be one.
pub fn encode(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut out = id.to_be_bytes().to_vec();
    // A standard query, recursion desired; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        if !(1..=63).contains(&label.len()) {
            return None;
        }
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend((kind as u16).to_be_bytes());
    out.extend([0, 1]);
    Some(out)
}

/// The addresses in the answer to `query`; `None` when it is the answer to something else, or
/// malformed. Aliases are not followed: the server that was asked has done so, and what it lists
/// belongs to the question.
pub fn decode(answer: &[u8], id: u16, query: &[u8], kind: Kind) -> Option<Vec<IpAddr>> {
    let question = query.get(12..)?;
    let is_answer = u16_at(answer, 0)? == id
        && answer.get(2)? & 0x80 != 0
        && u16_at(answer, 4)? == 1
        && answer.get(12..12 + question.len())?.eq_ignore_ascii_case(question);
    if !is_answer {
        return None;
    }
    let mut at = 12 + question.len();
    let mut addresses = Vec::new();
    for _ in 0..u16_at(answer, 6)? {
        at = skip_name(answer, at)?;
        let (record, class) = (u16_at(answer, at)?, u16_at(answer, at + 2)?);
        let len = usize::from(u16_at(answer, at + 8)?);
        let data = answer.get(at + 10..at + 10 + len)?;
        at += 10 + len;
        if record == kind as u16 && class == 1 && addresses.len() < MAX_ADDRESSES {
            addresses.push(match kind {
                Kind::A => IpAddr::from(<[u8; 4]>::try_from(data).ok()?),
                Kind::Aaaa => IpAddr::from(<[u8; 16]>::try_from(data).ok()?),
            });
        }
    }
    Some(addresses)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The offset behind the name at `at`. Pointers end a name, and are not followed.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "time.example.org";

    /// The answer that `query` gets: an alias, then these addresses.
    fn answer(query: &[u8], addresses: &[&[u8]]) -> Vec<u8> {
        let mut out = query.to_vec();
        out[2..4].copy_from_slice(&[0x81, 0x80]);
        out[7] = addresses.len() as u8 + 1;
        out.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'x', 0xc0, 17]);
        for address in addresses {
            out.extend([0xc0, 45, 0, if address.len() == 4 { 1 } else { 28 }, 0, 1, 0, 0, 0, 60]);
            out.extend([0, address.len() as u8]);
            out.extend(*address);
        }
        out
    }

    #[test]
    fn a_question_has_its_known_bytes() {
        let query = encode(0x1234, "a.bc.", Kind::Aaaa).expect("a query");
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01";
        assert_eq!(query, expected);
        for bad in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(200)] {
            assert_eq!(encode(1, bad, Kind::A), None, "{bad}");
        }
    }

    #[test]
    fn addresses_behind_an_alias_are_found() {
        let query = encode(7, NAME, Kind::A).expect("a query");
        let answer = answer(&query, &[&[192, 0, 2, 1], &[192, 0, 2, 2]]);
        let expected = [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into()];
        assert_eq!(decode(&answer, 7, &query, Kind::A).as_deref(), Some(&expected[..]));
    }

    #[test]
    fn answers_to_other_questions_are_refused() {
        let query = encode(7, NAME, Kind::A).expect("a query");
        let good = answer(&query, &[&[192, 0, 2, 1]]);
        assert_eq!(decode(&good, 8, &query, Kind::A), None);
        let other = encode(7, "time.example.com", Kind::A).expect("a query");
        assert_eq!(decode(&good, 7, &other, Kind::A), None);
        assert_eq!(decode(&query, 7, &query, Kind::A), None);
    }

    proptest! {
        #[test]
        fn noise_does_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..80), cut in 0..100usize) {
            let query = encode(7, NAME, Kind::A).expect("a query");
            let mut bytes = answer(&query, &[&[192, 0, 2, 1]]);
            bytes.truncate(cut);
            bytes.extend(noise);
            decode(&bytes, 7, &query, Kind::A);
        }
    }
}
