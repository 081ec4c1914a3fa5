//! SNTP packets (RFC 4330, section 4; RFC 5905 for the names) as pure functions.

use std::time::Duration;

/// Bytes of a packet without extensions.
pub const LEN: usize = 48;
/// NTP counts from 1900, everyone else from 1970.
const EPOCH: u64 = 2_208_988_800;
const ERA: u64 = 1 << 32;
/// Longest time between question and answer that an offset may be computed from.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(2);

/// A question. `nonce` comes back in the answer: it proves that the server has seen the question.
pub fn encode(nonce: u64) -> [u8; LEN] {
    let mut packet = [0; LEN];
    // No leap warning, version 4, mode 3: client.
    packet[0] = 0b00_100_011;
    packet[40..48].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not an answer of a time server to the question.
    #[error("not an answer to the question")]
    Foreign,
    /// The server says that it does not know the time, or not to ask.
    #[error("the server is not synchronized, or refuses")]
    Unsynchronized,
    /// It took too long to be of use, or the times contradict each other.
    #[error("the answer took too long")]
    Slow,
    /// The time is before this image was built.
    #[error("the server's time is before this image was built")]
    Past,
}

/// The time that a server's answer says it is when the answer arrives.
///
/// `floor` is a time since 1970 that has passed for sure: it tells the era of NTP's 32-bit
/// seconds, which end in 2036. `round_trip` is the time between question and answer by a clock
/// that does not jump.
pub fn decode(
    packet: &[u8],
    nonce: u64,
    floor: Duration,
    round_trip: Duration,
) -> Result<Duration, Refused> {
    let Some(packet) = packet.first_chunk::<LEN>() else { return Err(Refused::Foreign) };
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&packet[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let (leap, version, mode) = (packet[0] >> 6, packet[0] >> 3 & 7, packet[0] & 7);
    let (stratum, received, sent) = (packet[1], word(32), word(40));
    if mode != 4 || !(3..=4).contains(&version) || word(24) != nonce {
        return Err(Refused::Foreign);
    }
    if leap == 3 || !(1..=15).contains(&stratum) || received == 0 || sent == 0 {
        return Err(Refused::Unsynchronized);
    }
    let (received, sent) = (since_1970(received, floor), since_1970(sent, floor));
    let (Some(received), Some(sent)) = (received, sent) else { return Err(Refused::Past) };
    // What the server held it for was not spent on the way.
    let held = sent.checked_sub(received).ok_or(Refused::Slow)?;
    let way = round_trip.checked_sub(held).ok_or(Refused::Slow)?;
    if round_trip > MAX_ROUND_TRIP {
        return Err(Refused::Slow);
    }
    Ok(sent + way / 2)
}

/// An NTP timestamp as time since 1970: the first after `floor`, unless that would be more than
/// half an era away.
fn since_1970(timestamp: u64, floor: Duration) -> Option<Duration> {
    let nanos = ((timestamp & 0xffff_ffff) * 1_000_000_000) >> 32;
    let floor_ntp = floor.as_secs() + EPOCH;
    let ahead = (timestamp >> 32).wrapping_sub(floor_ntp) % ERA;
    let seconds = (ahead < ERA / 2).then_some(floor.as_secs() + ahead)?;
    Some(Duration::new(seconds, nanos as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: u64 = 0x0123_4567_89ab_cdef;
    /// 21 November 2026.
    const FLOOR: Duration = Duration::from_secs(1_795_219_200);

    fn answer(first: u8, stratum: u8, nonce: u64, received: u64, sent: u64) -> [u8; LEN] {
        let mut packet = [0; LEN];
        packet[0] = first;
        packet[1] = stratum;
        packet[24..32].copy_from_slice(&nonce.to_be_bytes());
        packet[32..40].copy_from_slice(&received.to_be_bytes());
        packet[40..48].copy_from_slice(&sent.to_be_bytes());
        packet
    }

    fn ntp(seconds_since_1970: u64) -> u64 {
        ((seconds_since_1970 + EPOCH) % ERA) << 32
    }

    #[test]
    fn table() {
        let at = FLOOR.as_secs() + 100;
        let now = ntp(at);
        let ok = 0b00_100_100;
        let cases = [
            (answer(ok, 2, NONCE, now, now), Ok(Duration::from_millis(at * 1000 + 50))),
            (answer(0b01_011_100, 15, NONCE, now, now), Ok(Duration::from_millis(at * 1000 + 50))),
            (answer(ok, 2, NONCE, now, now | 1 << 29), Err(Refused::Slow)),
            (answer(ok, 2, NONCE, now | 1 << 29, now), Err(Refused::Slow)),
            (answer(ok, 2, NONCE ^ 1, now, now), Err(Refused::Foreign)),
            (answer(0b00_100_011, 2, NONCE, now, now), Err(Refused::Foreign)),
            (answer(0b00_001_100, 2, NONCE, now, now), Err(Refused::Foreign)),
            (answer(0b11_100_100, 2, NONCE, now, now), Err(Refused::Unsynchronized)),
            (answer(ok, 0, NONCE, now, now), Err(Refused::Unsynchronized)),
            (answer(ok, 16, NONCE, now, now), Err(Refused::Unsynchronized)),
            (answer(ok, 2, NONCE, now, 0), Err(Refused::Unsynchronized)),
            (answer(ok, 2, NONCE, ntp(at - 101), ntp(at - 101)), Err(Refused::Past)),
        ];
        for (packet, expected) in cases {
            let found = decode(&packet, NONCE, FLOOR, Duration::from_millis(100));
            assert_eq!(found, expected, "{packet:x?}");
        }
        let slow = decode(&answer(ok, 2, NONCE, now, now), NONCE, FLOOR, Duration::from_secs(3));
        assert_eq!(slow, Err(Refused::Slow));
    }

    #[test]
    fn seconds_go_on_after_2036() {
        // 7 February 2036, 06:28:16: second 0 of era 1. An image of 2026 meets it.
        let later = 2_085_978_496 + 7;
        assert_eq!(ntp(later) >> 32, 7);
        let packet = answer(0b00_100_100, 1, NONCE, ntp(later), ntp(later));
        let found = decode(&packet, NONCE, FLOOR, Duration::ZERO);
        assert_eq!(found, Ok(Duration::from_secs(later)));
    }

    proptest! {
        #[test]
        fn an_accepted_time_is_never_before_the_floor(
            packet in proptest::collection::vec(any::<u8>(), 0..60), sent in any::<u64>(),
        ) {
            let trip = Duration::from_millis(10);
            let _ = decode(&packet, NONCE, FLOOR, trip);
            let packet = answer(0b00_100_100, 1, NONCE, sent, sent);
            if let Ok(time) = decode(&packet, NONCE, FLOOR, trip) {
                prop_assert!(time >= FLOOR);
                prop_assert!(time < FLOOR + Duration::from_secs(ERA));
            }
        }
    }
}
