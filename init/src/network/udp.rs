//! IPv4 and UDP headers, for a host that has no address yet (RFC 791, RFC 768).

use std::net::Ipv4Addr;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

/// A whole packet from an unspecified address to everyone.
pub fn wrap(payload: &[u8], from_port: u16, to_port: u16) -> Vec<u8> {
    let udp_len = UDP_HEADER + payload.len();
    let mut packet = vec![0; IP_HEADER];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((IP_HEADER + udp_len) as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = UDP;
    packet[16..20].copy_from_slice(&Ipv4Addr::BROADCAST.octets());
    let checksum = checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(from_port.to_be_bytes());
    packet.extend(to_port.to_be_bytes());
    packet.extend((udp_len as u16).to_be_bytes());
    // Zero: not computed. The message inside is checked by its own fields.
    packet.extend([0; 2]);
    packet.extend(payload);
    packet
}

/// The payload of an unfragmented UDP packet between these ports; `None` when it is something
/// else. The UDP checksum is not checked: a virtual link may leave it for hardware to fill in.
pub fn unwrap(packet: &[u8], from_port: u16, to_port: u16) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    let fragment = u16_at(packet, 6)? & 0x3fff;
    if first >> 4 != 4 || header < IP_HEADER || *packet.get(9)? != UDP || fragment != 0 {
        return None;
    }
    // Short packets are padded by the link.
    let udp = packet.get(..total)?.get(header..)?;
    let payload = udp.get(UDP_HEADER..usize::from(u16_at(udp, 4)?))?;
    let sound = checksum(&packet[..header]) == 0;
    let ports = (u16_at(udp, 0)?, u16_at(udp, 2)?) == (from_port, to_port);
    (sound && ports).then_some(payload)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// RFC 1071; zero over a header that carries its checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| (*b).into()));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_with_padding_behind() {
        let mut packet = wrap(b"payload", 67, 68);
        packet.extend([0; 18]);
        assert_eq!(unwrap(&packet, 67, 68), Some(&b"payload"[..]));
        assert_eq!(unwrap(&packet, 68, 67), None);
    }

    #[test]
    fn a_known_header_has_its_known_checksum() {
        // The example of RFC 1071's readers: 192.168.0.1 to 192.168.0.199.
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
            0, 0xc7,
        ];
        assert_eq!(checksum(&header), 0);
    }

    #[test]
    fn cut_and_flipped_packets_are_refused_or_harmless() {
        let packet = wrap(b"payload", 67, 68);
        for len in 0..packet.len() {
            assert_eq!(unwrap(&packet[..len], 67, 68), None, "{len}");
        }
        for bit in 0..IP_HEADER * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap(&bad, 67, 68), None, "{bit}");
        }
    }
}
