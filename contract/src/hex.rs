//! Bytes as lower-case hexadecimal digits.

/// Two digits for each byte.
pub fn encode(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    digits.map(|d| char::from(b"0123456789abcdef"[usize::from(d)])).collect()
}

/// The bytes that digits of either case stand for; `None` when there is anything else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let decoded = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    rest.is_empty().then(|| decoded.collect()).flatten()
}

/// Exactly `N` bytes: 32 for a SHA-256 or a root hash.
pub fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_the_rest() {
        assert_eq!(encode(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(decode("001Fff"), Some(vec![0, 0x1f, 0xff]));
        assert_eq!(decode_array("001fff"), Some([0, 0x1f, 0xff]));
        for bad in ["0", "0g", "é", " 0", "+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode_array::<2>("001fff"), None);
    }
}
