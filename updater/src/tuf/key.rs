//! Public keys and their signatures.

use contract::hex;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;

// The content of AlgorithmIdentifier (RFC 5280, 4.1.1.2) for the keys that we know.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";

/// A key as metadata lists it. One of a kind that is not known here verifies nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Key(Value);

impl Key {
    /// The bytes that make it this key, whatever name it goes by.
    pub fn identity(&self) -> Option<Vec<u8>> {
        Some(self.material()?.1)
    }

    /// Whether `signature` over `message` was made with it.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.material().is_some_and(|(algorithm, key)| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        })
    }

    fn material(&self) -> Option<(&'static dyn VerificationAlgorithm, Vec<u8>)> {
        let public = self.0.get("keyval")?.get("public")?.as_str()?;
        Some(match self.0.get("scheme")?.as_str()? {
            "ed25519" => (&signature::ED25519, hex::decode_array::<32>(public)?.to_vec()),
            "ecdsa-sha2-nistp256" => (&signature::ECDSA_P256_SHA256_ASN1, from_pem(public, P256)?),
            "ecdsa-sha2-nistp384" => (&signature::ECDSA_P384_SHA384_ASN1, from_pem(public, P384)?),
            "rsassa-pss-sha256" => (&signature::RSA_PSS_2048_8192_SHA256, from_pem(public, RSA)?),
            _ => return None,
        })
    }
}

/// The key in a PEM of SubjectPublicKeyInfo, if it is one of this algorithm.
fn from_pem(pem: &str, algorithm: &[u8]) -> Option<Vec<u8>> {
    let document = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (info, []) = element(document.as_ref(), 0x30)? else { return None };
    let (identifier, rest) = element(info, 0x30)?;
    let (bits, []) = element(rest, 0x03)? else { return None };
    match bits {
        [0, key @ ..] if identifier == algorithm => Some(key.to_vec()),
        _ => None,
    }
}

/// Content of the DER element with this tag that `input` starts with, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match *input {
        [t, len @ ..=0x7f, ..] if t == tag => (usize::from(len), &input[2..]),
        [t, 0x81, len, ..] if t == tag => (usize::from(len), &input[3..]),
        [t, 0x82, high, low, ..] if t == tag => {
            (usize::from(u16::from_be_bytes([high, low])), &input[4..])
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    #[test]
    fn a_signature_counts_only_for_its_message_and_its_key() {
        let pair = || {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
            Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("the same key")
        };
        let key = |public: &str, scheme: &str| {
            Key(json!({"keytype": "ed25519", "scheme": scheme, "keyval": {"public": public}}))
        };
        let (ours, other) = (pair(), pair());
        let public = hex::encode(ours.public_key().as_ref());
        let good = key(&public, "ed25519");
        assert!(good.verify(b"text", ours.sign(b"text").as_ref()));
        assert!(!good.verify(b"texT", ours.sign(b"text").as_ref()));
        assert!(!good.verify(b"text", other.sign(b"text").as_ref()));
        assert!(!good.verify(b"text", b""));
        for (public, scheme) in [
            (public.as_str(), "unheard-of"),
            (&public[2..], "ed25519"),
            (public.as_str(), "rsassa-pss-sha256"),
            ("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----", "ecdsa-sha2-nistp256"),
        ] {
            let key = key(public, scheme);
            assert!(!key.verify(b"text", ours.sign(b"text").as_ref()), "{scheme}");
            assert_eq!(key.identity(), None);
        }
        assert!(!Key(json!("text")).verify(b"text", ours.sign(b"text").as_ref()));
    }

    #[test]
    fn der_lengths_are_bounded_by_what_is_there() {
        assert_eq!(element(&[0x30, 1, 7, 8], 0x30), Some((&[7][..], &[8][..])));
        assert_eq!(element(&[0x30, 0x81, 1, 7], 0x30), Some((&[7][..], &[][..])));
        assert_eq!(element(&[0x30, 0x82, 0, 1, 7], 0x30), Some((&[7][..], &[][..])));
        for bad in [&[][..], &[0x30], &[0x30, 2, 7], &[0x31, 1, 7], &[0x30, 0x83, 0, 0, 1, 7]] {
            assert_eq!(element(bad, 0x30), None, "{bad:?}");
        }
    }
}
