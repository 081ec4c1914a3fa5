//! DHCPv6 messages as they lie in a UDP packet (RFC 8415, sections 8 and 21).

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 546;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 547;

/// Most options that are read; a message with more is not one.
const MAX_OPTIONS: usize = 64;

/// Option codes that are used here.
pub mod option {
    #![allow(missing_docs)]
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_ADDRESS: u16 = 5;
    pub const OPTION_REQUEST: u16 = 6;
    pub const ELAPSED_TIME: u16 = 8;
    pub const STATUS: u16 = 13;
    pub const NAME_SERVERS: u16 = 23;
    pub const DOMAINS: u16 = 24;
    pub const SNTP_SERVERS: u16 = 31;
    pub const REFRESH_TIME: u16 = 32;
    pub const NTP_SERVER: u16 = 56;
    pub const SOLICIT_MAX_WAIT: u16 = 82;
    pub const INFORM_MAX_WAIT: u16 = 83;
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: who can give me an address?
    Solicit = 1,
    /// Server: I can, this one.
    Advertise = 2,
    /// Client: I take it.
    Request = 3,
    /// Client, to its server: may I keep it?
    Renew = 5,
    /// Client, to any server: may I keep it?
    Rebind = 6,
    /// Server: so it is.
    Reply = 7,
    /// Client: I have an address; what else is there to know?
    InformationRequest = 11,
}

impl Kind {
    fn from_code(code: u8) -> Option<Kind> {
        use Kind::{Advertise, InformationRequest, Rebind, Renew, Reply, Request, Solicit};
        [Solicit, Advertise, Request, Renew, Rebind, Reply, InformationRequest]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// A message between client and server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// Transaction id, of 24 bits: the client's choice, repeated by the server.
    pub xid: u32,
    /// Code and value, in the order in which they stand.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.xid.to_be_bytes().to_vec();
        out[0] = self.kind as u8;
        for (code, value) in &self.options {
            out.extend(code.to_be_bytes());
            out.extend((value.len() as u16).to_be_bytes());
            out.extend(value);
        }
        out
    }

    /// Reads a message; `None` when it is not one. Whoever is on the link can have sent it.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let options = options(rest)?.into_iter().map(|(code, value)| (code, value.to_vec()));
        Some(Message {
            kind: Kind::from_code(head[0])?,
            xid: u32::from_be_bytes([0, head[1], head[2], head[3]]),
            options: options.collect(),
        })
    }

    /// The first option of this code.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        let found = self.options.iter().find(|(found, _)| *found == code);
        found.map(|(_, value)| value.as_slice())
    }

    /// An option that is a number of 32 bits.
    pub fn number(&self, code: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(code)?.try_into().ok()?))
    }
}

/// The options in `bytes`. `None`: one reaches past the end, or there are too many.
pub fn options(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let code = u16::from_be_bytes([head[0], head[1]]);
        let (value, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        if options.len() == MAX_OPTIONS {
            return None;
        }
        options.push((code, value));
        bytes = rest;
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable, Encodable, v6};
    use proptest::prelude::*;

    fn sample() -> Message {
        Message {
            kind: Kind::Solicit,
            xid: 0x01_0203,
            options: vec![
                (option::CLIENT_ID, vec![0, 4, 1, 2]),
                (option::ELAPSED_TIME, vec![0, 7]),
                (option::IA_NA, vec![0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]),
            ],
        }
    }

    #[test]
    fn another_implementation_reads_what_is_written_here() {
        let theirs = v6::Message::from_bytes(&sample().encode()).expect("a message");
        assert_eq!(theirs.msg_type(), v6::MessageType::Solicit);
        assert_eq!(theirs.xid(), [1, 2, 3]);
        let v6::DhcpOption::IANA(ia) = theirs.opts().get(v6::OptionCode::IANA).expect("IA") else {
            panic!("no IA")
        };
        assert_eq!(ia.id, 9);
    }

    #[test]
    fn what_another_implementation_writes_is_read_here() {
        let mut theirs = v6::Message::new_with_id(v6::MessageType::Reply, [0, 0, 5]);
        theirs.opts_mut().insert(v6::DhcpOption::ServerId(vec![0, 3, 0, 1]));
        let server = "2001:db8::53".parse().expect("an address");
        theirs.opts_mut().insert(v6::DhcpOption::DomainNameServers(vec![server]));
        let ours = Message::decode(&theirs.to_vec().expect("bytes")).expect("a message");
        assert_eq!((ours.kind, ours.xid), (Kind::Reply, 5));
        assert_eq!(ours.option(option::SERVER_ID), Some(&[0, 3, 0, 1][..]));
        assert_eq!(ours.option(option::NAME_SERVERS), Some(&server.octets()[..]));
    }

    #[test]
    fn round_trips_and_cuts_within_an_option_are_refused() {
        let bytes = sample().encode();
        assert_eq!(Message::decode(&bytes), Some(sample()));
        let whole = [4, 12, 18, bytes.len()];
        for len in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..len]).is_some(), whole.contains(&len), "{len}");
        }
        let many = vec![0; 4 + 4 * (MAX_OPTIONS + 1)];
        assert_eq!(options(&many[4..]), None);
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(message) = Message::decode(&noise) {
                prop_assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }
    }
}
