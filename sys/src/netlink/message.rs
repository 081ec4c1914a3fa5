//! Netlink messages and their attributes as bytes (netlink(7)).

const HEADER: usize = 16;

/// What follows the header of a message.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (value.len() + 4) as u16;
        self.raw(&len.to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    /// Attributes within one.
    pub(super) fn nested(&mut self, kind: u16, inner: Body) {
        self.attribute(kind, &inner.0);
    }

    /// What a message about a link begins with: `struct ifinfomsg`.
    pub(super) fn link(&mut self, link: i32, flags: u32, mask: u32) {
        self.raw(&[0; 4]);
        self.raw(&link.to_ne_bytes());
        self.raw(&flags.to_ne_bytes());
        self.raw(&mask.to_ne_bytes());
    }

    /// The whole message.
    pub(super) fn message(&self, kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
        let mut message = ((HEADER + self.0.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(&self.0);
        message
    }
}

/// A message without its header.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

const fn aligned(len: usize) -> usize {
    (len + 3) & !3
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The messages of a datagram; what is malformed ends them.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let body = bytes.get(HEADER..len)?;
        let message = Message { kind: u16_at(bytes, 4)?, sequence: u32_at(bytes, 8)?, body };
        bytes = bytes.get(aligned(len)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes of a message; what is malformed ends them.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..len)?;
        // The two highest bits are flags.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        bytes = bytes.get(aligned(len)..).unwrap_or(&[]);
        Some((kind, value))
    })
}
