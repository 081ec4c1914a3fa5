//! Which keys may sign Debian's metadata, and whether a clear-signed text is signed by one.

use super::Archive;
use super::cleartext::{self, Cleartext};
use crate::{Error, Result};
use pgp::composed::{
    Deserializable, DetachedSignature, PublicOrSecret, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};
use std::fs;
use std::path::Path;

/// A key that is trusted for one archive, by the fingerprint of its primary key.
#[derive(Clone, Copy, Debug)]
pub struct Pin<'a> {
    /// What it signs.
    pub archive: Archive,
    /// 40 upper-case hexadecimal digits.
    pub fingerprint: &'a str,
}

/// The archive keys of Debian 12 and 13, as the package `debian-archive-keyring` carries them.
/// A key that is not here is ignored, whatever the machine's keyrings hold.
pub const PINS: [Pin<'static>; 6] = [
    // Debian Archive Automatic Signing Key (12/bookworm)
    Pin { archive: Archive::Main, fingerprint: "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8" },
    // Debian Stable Release Key (12/bookworm)
    Pin { archive: Archive::Main, fingerprint: "4D64FEC119C2029067D6E791F8D2585B8783D481" },
    // Debian Archive Automatic Signing Key (13/trixie)
    Pin { archive: Archive::Main, fingerprint: "04B54C3CDCA79751B16BC6B5225629DF75B188BD" },
    // Debian Stable Release Key (13/trixie)
    Pin { archive: Archive::Main, fingerprint: "41587F7DB8C774BCCF131416762F67A0B2C39DE4" },
    // Debian Security Archive Automatic Signing Key (12/bookworm)
    Pin { archive: Archive::Security, fingerprint: "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0" },
    // Debian Security Archive Automatic Signing Key (13/trixie)
    Pin { archive: Archive::Security, fingerprint: "5E04A1E3223A19A20706E20F9904613D4CCE68C6" },
];

/// How far ahead of this machine's clock a signer's may be, in seconds.
pub const CLOCK_SKEW: u64 = 3600;

/// Pinned keys with what they sign.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<(Archive, SignedPublicKey)>,
}

impl Keyring {
    /// Debian's keys as this machine holds them.
    pub fn of_machine() -> Result<Keyring> {
        Keyring::load(Path::new("/usr/share/keyrings"), &PINS)
    }

    /// The pinned keys among the files `debian-archive-*` in `folder`.
    pub fn load(folder: &Path, pins: &[Pin]) -> Result<Keyring> {
        let mut keyring = Keyring::default();
        let mut files: Vec<_> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let keys = [".gpg", ".pgp", ".asc"].iter().any(|end| name.ends_with(end));
                keys && name.starts_with("debian-archive-") && !name.contains("removed")
            })
            .collect();
        files.sort();
        for file in files {
            let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
            keyring.add(&bytes, pins);
        }
        if keyring.keys.is_empty() {
            let folder = folder.display();
            return Err(Error::refused(format!("no key of the Debian archive is in {folder}"))
                .with_hint("install the package debian-archive-keyring"));
        }
        Ok(keyring)
    }

    /// Adds the pinned keys among `bytes`, binary or armored. What cannot be read is skipped:
    /// keyrings hold old keys of forgotten formats.
    pub fn add(&mut self, bytes: &[u8], pins: &[Pin]) {
        let Ok((keys, _)) = PublicOrSecret::from_reader_many(bytes) else { return };
        for key in keys.flatten() {
            let PublicOrSecret::Public(key) = key else { continue };
            let fingerprint = format!("{:X}", key.primary_key.fingerprint());
            for pin in pins.iter().filter(|pin| pin.fingerprint == fingerprint) {
                if !self.keys.iter().any(|(archive, k)| *archive == pin.archive && *k == key) {
                    self.keys.push((pin.archive, key.clone()));
                }
            }
        }
    }

    /// The text that a key of `archive` has signed, and nothing around it. `name` is for errors,
    /// `now` in seconds since 1970 UTC.
    pub fn open(&self, name: &str, signed: &[u8], archive: Archive, now: u64) -> Result<String> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::corrupt(format!("{name}: not a signed text: {why}")).with_hint(
                "something changes what the mirror serves: try another network or --mirror",
            )
        };
        let text = std::str::from_utf8(signed).map_err(|e| unreadable(&e))?;
        let Cleartext { text, signatures } = cleartext::split(text).map_err(|e| unreadable(&e))?;
        let (signatures, _) =
            DetachedSignature::from_string_many(signatures).map_err(|e| unreadable(&e))?;
        let mut refused = Vec::new();
        // Each costs arithmetic; nobody signs that often.
        for signature in signatures.take(16) {
            let signature = signature.map_err(|e| unreadable(&e))?.signature;
            match self.check(&signature, &text, archive, now) {
                Ok(()) => return Ok(text),
                Err(why) => refused.push(why),
            }
        }
        let why = if refused.is_empty() { "it has none".into() } else { refused.join("; ") };
        Err(Error::corrupt(format!("{name}: no valid signature by a known key of Debian: {why}"))
            .with_hint("update debian-archive-keyring, check the clock, or try another --mirror"))
    }

    fn check(&self, signature: &Signature, text: &str, archive: Archive, now: u64) -> Verdict {
        let issuer = issuer(signature);
        let wrong = |why: &str| Err(format!("{issuer}: {why}"));
        if signature.typ() != Some(SignatureType::Text) {
            return wrong("not a signature over a text");
        }
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        if !matches!(signature.hash_alg(), Some(Sha256 | Sha384 | Sha512)) {
            return wrong("a hash that is not accepted");
        }
        let Some(created) = signature.created().map(|at| u64::from(at.as_secs())) else {
            return wrong("does not say when it was made");
        };
        if created > now + CLOCK_SKEW {
            return wrong("made in the future");
        }
        let lifetime = signature.signature_expiration_time().map_or(0, |d| u64::from(d.as_secs()));
        if lifetime != 0 && created + lifetime <= now {
            return wrong("expired");
        }
        let mut verdict = wrong("unknown key");
        for (_, key) in self.keys.iter().filter(|(a, _)| *a == archive) {
            let subkey = key
                .public_subkeys
                .iter()
                .find(|sub| signature.verify(&sub.key, text.as_bytes()).is_ok());
            let signed_by_primary = || signature.verify(&key.primary_key, text.as_bytes()).is_ok();
            let usable = match subkey {
                Some(subkey) => {
                    usable_primary(key, now, false).and_then(|()| usable_subkey(key, subkey, now))
                }
                None if signed_by_primary() => usable_primary(key, now, true),
                None => continue,
            };
            match usable {
                Ok(()) => return Ok(()),
                Err(why) => verdict = wrong(&why),
            }
        }
        // The issuer is known but the mathematics fail: the text was changed.
        if verdict == wrong("unknown key") && self.knows(signature, archive) {
            return wrong("does not match the text");
        }
        verdict
    }

    fn knows(&self, signature: &Signature, archive: Archive) -> bool {
        let issuers = signature.issuer_fingerprint();
        let ids = signature.issuer_key_id();
        self.keys.iter().filter(|(a, _)| *a == archive).any(|(_, key)| {
            let primary = (key.primary_key.fingerprint(), key.primary_key.legacy_key_id());
            let subs =
                key.public_subkeys.iter().map(|s| (s.key.fingerprint(), s.key.legacy_key_id()));
            std::iter::once(primary)
                .chain(subs)
                .any(|(fingerprint, id)| issuers.contains(&&fingerprint) || ids.contains(&&id))
        })
    }
}

type Verdict = std::result::Result<(), String>;

fn issuer(signature: &Signature) -> String {
    match (signature.issuer_fingerprint().first(), signature.issuer_key_id().first()) {
        (Some(fingerprint), _) => format!("{fingerprint:X}"),
        (None, Some(id)) => format!("{id}").to_uppercase(),
        (None, None) => "signature of nobody".into(),
    }
}

fn expired(created: u64, latest: &Signature, now: u64) -> bool {
    let lifetime = latest.key_expiration_time().map_or(0, |d| u64::from(d.as_secs()));
    lifetime != 0 && created + lifetime <= now
}

/// Whether the primary key is neither revoked nor expired, and, `to_sign`, may sign data. Only its
/// own signatures about itself count; those of others are not looked at.
fn usable_primary(key: &SignedPublicKey, now: u64, to_sign: bool) -> Verdict {
    let primary = &key.primary_key;
    if key.details.revocation_signatures.iter().any(|sig| sig.verify_key(primary).is_ok()) {
        return Err("the key is revoked".into());
    }
    let direct = key.details.direct_signatures.iter().filter(|s| s.verify_key(primary).is_ok());
    let users = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|sig| {
            sig.is_certification()
                && sig.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        })
    });
    let Some(latest) = direct.chain(users).max_by_key(|sig| sig.created()) else {
        return Err("the key does not vouch for itself".into());
    };
    if expired(u64::from(primary.created_at().as_secs()), latest, now) {
        return Err("the key has expired".into());
    }
    if to_sign && !latest.key_flags().sign() {
        return Err("the key is not for signing".into());
    }
    Ok(())
}

/// Whether the subkey belongs to its primary key, both ways, is for signing, and is neither revoked
/// nor expired.
fn usable_subkey(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Verdict {
    let primary = &key.primary_key;
    let valid = |typ| {
        subkey.signatures.iter().filter(move |sig| {
            sig.typ() == Some(typ) && sig.verify_subkey_binding(primary, &subkey.key).is_ok()
        })
    };
    if valid(SignatureType::SubkeyRevocation).next().is_some() {
        return Err("the subkey is revoked".into());
    }
    let Some(latest) = valid(SignatureType::SubkeyBinding).max_by_key(|sig| sig.created()) else {
        return Err("the subkey is not bound to its key".into());
    };
    if !latest.key_flags().sign() {
        return Err("the subkey is not for signing".into());
    }
    let is_acknowledged = latest
        .embedded_signature()
        .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !is_acknowledged {
        return Err("the subkey does not acknowledge its key".into());
    }
    if expired(u64::from(subkey.key.created_at().as_secs()), latest, now) {
        return Err("the subkey has expired".into());
    }
    Ok(())
}
