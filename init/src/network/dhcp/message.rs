//! DHCPv4 messages as they lie in a UDP packet (RFC 2131, section 2; options: RFC 2132, 3396,
//! 3442).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Fixed fields up to and with the magic number.
const FIXED: usize = 240;
/// Shorter messages are dropped by old relays (RFC 1542, section 2.1).
const SHORTEST: usize = 300;

/// Option codes that are used here.
pub mod option {
    #![allow(missing_docs)]
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const NAME_SERVER: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU: u8 = 26;
    pub const TIME_SERVER: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_ID: u8 = 61;
    pub const DOMAIN_SEARCH: u8 = 119;
    pub const CLASSLESS_ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// What a message is about: option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: who can give me an address?
    Discover = 1,
    /// Server: I can, this one.
    Offer = 2,
    /// Client: I take this one, or keep it.
    Request = 3,
    /// Server: it is yours for a time.
    Ack = 5,
    /// Server: no.
    Nak = 6,
}

impl Kind {
    fn from_code(code: u8) -> Option<Kind> {
        [Kind::Discover, Kind::Offer, Kind::Request, Kind::Ack, Kind::Nak]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Option 53.
    pub kind: Kind,
    /// Whether a server sent it.
    pub reply: bool,
    /// Transaction id: the client's choice, repeated by the server.
    pub xid: u32,
    /// Seconds since the client began to ask.
    pub seconds: u16,
    /// The client asks for answers to everyone, because it cannot receive others yet.
    pub broadcast: bool,
    /// The address that the client has already.
    pub client: Ipv4Addr,
    /// The address that the client is given.
    pub yours: Ipv4Addr,
    /// Hardware address of the client.
    pub mac: [u8; 6],
    /// Options but 53; one that came in several parts is joined.
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// The bytes of the message. Options longer than 255 bytes are cut.
    pub fn encode(&self) -> Vec<u8> {
        let op = if self.reply { BOOT_REPLY } else { BOOT_REQUEST };
        let mut out = vec![op, ETHERNET, 6, 0];
        out.extend(self.xid.to_be_bytes());
        out.extend(self.seconds.to_be_bytes());
        out.extend(if self.broadcast { [0x80, 0] } else { [0, 0] });
        out.extend(self.client.octets());
        out.extend(self.yours.octets());
        out.resize(28, 0);
        out.extend(self.mac);
        out.resize(FIXED - MAGIC.len(), 0);
        out.extend(MAGIC);
        out.extend([option::MESSAGE_TYPE, 1, self.kind as u8]);
        for (code, value) in &self.options {
            let value = &value[..value.len().min(255)];
            out.extend([*code, value.len() as u8]);
            out.extend(value);
        }
        out.push(option::END);
        if out.len() < SHORTEST {
            out.resize(SHORTEST, option::PAD);
        }
        out
    }

    /// Reads a message; `None` when it is not one. Whoever is on the link can have sent it.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        if bytes.len() < FIXED
            || bytes[1..3] != [ETHERNET, 6]
            || bytes[FIXED - MAGIC.len()..FIXED] != MAGIC
        {
            return None;
        }
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        let mut options = BTreeMap::new();
        read_options(&bytes[FIXED..], &mut options)?;
        // The fields `file` and `sname` may hold more options (RFC 2132, section 9.3).
        let overload = options.remove(&option::OVERLOAD).and_then(|v| v.first().copied());
        if matches!(overload, Some(1 | 3)) {
            read_options(&bytes[108..236], &mut options)?;
        }
        if matches!(overload, Some(2 | 3)) {
            read_options(&bytes[44..108], &mut options)?;
        }
        let kind = match options.remove(&option::MESSAGE_TYPE)?.as_slice() {
            [code] => Kind::from_code(*code)?,
            _ => return None,
        };
        Some(Message {
            kind,
            reply: match bytes[0] {
                BOOT_REQUEST => false,
                BOOT_REPLY => true,
                _ => return None,
            },
            xid: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            seconds: u16::from_be_bytes([bytes[8], bytes[9]]),
            broadcast: bytes[10] & 0x80 != 0,
            client: address(12),
            yours: address(16),
            mac: [bytes[28], bytes[29], bytes[30], bytes[31], bytes[32], bytes[33]],
            options,
        })
    }

    /// An option that is one address, or the first of several.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.addresses(code).next()
    }

    /// An option that is a list of addresses.
    pub fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> {
        let value = self.options.get(&code).map_or(&[][..], Vec::as_slice);
        value.chunks_exact(4).map(|b| Ipv4Addr::new(b[0], b[1], b[2], b[3]))
    }

    /// An option that is a number of 32 bits.
    pub fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.options.get(&code)?.as_slice().try_into().ok()?))
    }

    /// An option that is a text; servers may end it with NUL.
    pub fn text(&self, code: u8) -> Option<&str> {
        let text = std::str::from_utf8(self.options.get(&code)?).ok()?;
        Some(text.trim_end_matches('\0'))
    }
}

/// Adds the options in `bytes`. `None`: one reaches past the end.
fn read_options(mut bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Option<()> {
    loop {
        match *bytes {
            [] | [option::END, ..] => return Some(()),
            [option::PAD, ref rest @ ..] => bytes = rest,
            [code, len, ref rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(len))?;
                options.entry(code).or_default().extend_from_slice(value);
                bytes = rest;
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable, Encodable, v4};
    use proptest::prelude::*;

    fn sample() -> Message {
        Message {
            kind: Kind::Request,
            reply: false,
            xid: 0x0102_0304,
            seconds: 7,
            broadcast: true,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::UNSPECIFIED,
            mac: [2, 0, 0, 0, 0, 9],
            options: BTreeMap::from([
                (option::HOST_NAME, b"node".to_vec()),
                (option::REQUESTED_ADDRESS, vec![10, 0, 2, 15]),
            ]),
        }
    }

    #[test]
    fn another_implementation_reads_what_is_written_here() {
        let theirs = v4::Message::from_bytes(&sample().encode()).expect("a message");
        assert_eq!(theirs.xid(), 0x0102_0304);
        assert_eq!(theirs.secs(), 7);
        assert!(theirs.flags().broadcast());
        assert_eq!(theirs.chaddr(), [2, 0, 0, 0, 0, 9]);
        assert_eq!(theirs.opts().msg_type(), Some(v4::MessageType::Request));
        assert_eq!(
            theirs.opts().get(v4::OptionCode::Hostname),
            Some(&v4::DhcpOption::Hostname("node".into()))
        );
    }

    #[test]
    fn what_another_implementation_writes_is_read_here() {
        let mut theirs = v4::Message::default();
        theirs.set_opcode(v4::Opcode::BootReply).set_xid(5).set_yiaddr([192, 0, 2, 7]);
        theirs.set_chaddr(&[2, 0, 0, 0, 0, 9]);
        theirs.opts_mut().insert(v4::DhcpOption::MessageType(v4::MessageType::Ack));
        theirs.opts_mut().insert(v4::DhcpOption::AddressLeaseTime(3600));
        theirs.opts_mut().insert(v4::DhcpOption::DomainNameServer(vec![
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(192, 0, 2, 2),
        ]));
        let ours = Message::decode(&theirs.to_vec().expect("bytes")).expect("a message");
        assert_eq!((ours.kind, ours.reply, ours.xid), (Kind::Ack, true, 5));
        assert_eq!(ours.yours, Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(ours.number(option::LEASE_TIME), Some(3600));
        assert_eq!(ours.addresses(option::NAME_SERVER).count(), 2);
    }

    #[test]
    fn options_go_on_in_the_fields_of_file_and_server_name() {
        let mut bytes = sample().encode();
        bytes[108..113].copy_from_slice(&[option::ROUTER, 2, 192, 0, option::END]);
        bytes[44..48].copy_from_slice(&[option::ROUTER, 2, 2, 1]);
        let end = bytes.iter().rposition(|b| *b == option::END).expect("an end");
        bytes[end..end + 4].copy_from_slice(&[option::OVERLOAD, 1, 3, option::END]);
        let message = Message::decode(&bytes).expect("a message");
        assert_eq!(message.address(option::ROUTER), Some(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn round_trips_and_every_cut_is_refused_or_read() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), SHORTEST);
        assert_eq!(Message::decode(&bytes), Some(sample()));
        for len in 0..FIXED {
            assert_eq!(Message::decode(&bytes[..len]), None);
        }
    }

    proptest! {
        #[test]
        fn noise_does_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            Message::decode(&noise);
            let mut bytes = sample().encode();
            bytes.truncate(FIXED);
            bytes.extend(noise);
            if let Some(message) = Message::decode(&bytes) {
                let _ = super::super::lease::Lease::from_message(&message);
            }
        }
    }
}
