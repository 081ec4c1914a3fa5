//! A small Debian archive with keys of its own.

use image_builder::cache::hex;
use image_builder::debian::Archive as Which;
use image_builder::debian::keyring::{Keyring, Pin};
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{Duration, KeyDetails, Password, SigningKey, Tag, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;

/// The time at which everything here is signed: 2026-01-01.
pub const NOW: u64 = 1_767_225_600;
const NOW_TEXT: &str = "Thu, 01 Jan 2026 00:00:00 UTC";
/// Until when the metadata is valid: 2026-01-08.
const UNTIL_TEXT: &str = "Thu, 08 Jan 2026 00:00:00 UTC";
pub const UNTIL: u64 = NOW + 7 * 86_400;

/// A signing key with a subkey that does the signing, as Debian's have.
#[derive(Clone)]
pub struct Key(pub SignedSecretKey);

impl Key {
    pub fn new() -> Key {
        let created = Timestamp::from_secs(NOW as u32 - 86_400);
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .can_encrypt(EncryptionCaps::None)
            .created_at(created)
            .build()
            .unwrap();
        let params = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(true)
            .created_at(created)
            .primary_user_id("Archive <archive@localhost>".into())
            .subkeys(vec![subkey])
            .build()
            .unwrap();
        Key(params.generate(rand::thread_rng()).unwrap())
    }

    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.0.primary_key.fingerprint())
    }

    pub fn public(&self) -> Vec<u8> {
        SignedPublicKey::from(self.0.clone()).to_bytes().unwrap()
    }

    /// The same key with one more statement about itself: that it lives so many seconds.
    pub fn living(mut self, seconds: u32) -> Key {
        let key = &self.0.primary_key;
        let user = &mut self.0.details.users[0];
        let mut config = config(key, SignatureType::CertPositive, u64::from(u32::MAX));
        let mut flags = KeyFlags::default();
        flags.set_sign(true);
        let lifetime = SubpacketData::KeyExpirationTime(Duration::from_secs(seconds));
        for data in [lifetime, SubpacketData::KeyFlags(flags)] {
            config.hashed_subpackets.push(Subpacket::regular(data).unwrap());
        }
        let signature = config
            .sign_certification(key, key.public_key(), &Password::empty(), Tag::UserId, &user.id)
            .unwrap();
        user.signatures.push(signature);
        self
    }

    /// The same key, revoked.
    pub fn revoked(mut self) -> Key {
        let key = &self.0.primary_key;
        let config = config(key, SignatureType::KeyRevocation, NOW);
        let signature = config.sign_key(key, &Password::empty(), key.public_key()).unwrap();
        self.0.details.revocation_signatures.push(signature);
        self
    }

    /// Clear-signs `text` as of `time`, by the subkey or by the key itself.
    pub fn sign(&self, text: &str, time: u64, by_subkey: bool, hash: HashAlgorithm) -> Vec<u8> {
        fn signed(text: &str, config: SignatureConfig, key: &impl SigningKey) -> Vec<u8> {
            CleartextSignedMessage::new(text.trim_end(), config, key, &Password::empty())
                .unwrap()
                .to_armored_bytes(ArmorOptions::default())
                .unwrap()
        }
        let with_hash = |config: SignatureConfig| SignatureConfig { hash_alg: hash, ..config };
        if by_subkey {
            let key = &self.0.secret_subkeys[0].key;
            signed(text, with_hash(config(key, SignatureType::Text, time)), key)
        } else {
            let key = &self.0.primary_key;
            signed(text, with_hash(config(key, SignatureType::Text, time)), key)
        }
    }
}

fn config(key: &impl SigningKey, typ: SignatureType, time: u64) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, key.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = [
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(time as u32)),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
    ]
    .map(|data| Subpacket::regular(data).unwrap())
    .to_vec();
    config
}

/// Trusts `main` and `security` for their archives.
pub fn keyring(main: &Key, security: &Key) -> Keyring {
    let (main_id, security_id) = (main.fingerprint(), security.fingerprint());
    let pins = [
        Pin { archive: Which::Main, fingerprint: &main_id },
        Pin { archive: Which::Security, fingerprint: &security_id },
    ];
    let mut keyring = Keyring::default();
    keyring.add(&main.public(), &pins);
    keyring.add(&security.public(), &pins);
    keyring
}

/// A member of a package's tar.
pub type Member<'a> = (tar::EntryType, &'a str, &'a [u8]);

/// A `.deb` with these files. Links have their target as content.
pub fn deb(control: &str, members: &[Member]) -> Vec<u8> {
    deb_of(control, &data_tar(members))
}

pub fn data_tar(members: &[Member]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if path.contains("sudo") { 0o4755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(if path.contains("shadow") { 42 } else { 0 });
        header.set_mtime(1_234_567_890);
        match kind {
            tar::EntryType::Symlink | tar::EntryType::Link => {
                header.set_size(0);
                let target = std::str::from_utf8(content).unwrap();
                tar.append_link(&mut header, path, target).unwrap();
            }
            _ => {
                if !kind.is_file() {
                    header.set_device_major(1).unwrap();
                    header.set_device_minor(3).unwrap();
                }
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, *content).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// A `.deb` around a tar.
pub fn deb_of(control: &str, data: &[u8]) -> Vec<u8> {
    let mut control_tar = tar::Builder::new(Vec::new());
    for (name, text) in [("./control", control), ("./postinst", "#!/bin/sh\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        control_tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let control_tar = zstd::encode_all(&control_tar.into_inner().unwrap()[..], 1).unwrap();
    let mut ar = ar::Builder::new(Vec::new());
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.zst", control_tar),
        ("data.tar.xz", xz(data)),
    ] {
        let header = ar::Header::new(name.into(), content.len() as u64);
        ar.append(&header, &content[..]).unwrap();
    }
    ar.into_inner().unwrap()
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An archive in the making.
pub struct Archive {
    pub main: Key,
    pub security: Key,
    /// What a server would serve, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    indexes: BTreeMap<String, String>,
}

impl Archive {
    pub fn new() -> Archive {
        let (files, indexes) = Default::default();
        Archive { main: Key::new(), security: Key::new(), files, indexes }
    }

    /// Adds a package to a suite. `control` is without `Architecture`.
    pub fn add(&mut self, suite: &str, control: &str, members: &[Member]) -> String {
        let control = format!("{}\nArchitecture: amd64\n", control.trim_end());
        self.add_deb(suite, &control, deb(&control, members))
    }

    pub fn add_deb(&mut self, suite: &str, control: &str, deb: Vec<u8>) -> String {
        let value = |name: &str| {
            let line = control.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_once(": ").unwrap().1.to_owned()
        };
        let filename = format!("pool/{}_{}_amd64.deb", value("Package"), value("Version"));
        let path = format!("{}/{filename}", base(suite));
        let entry = format!(
            "{control}Filename: {filename}\nSize: {}\nSHA256: {}\n\n",
            deb.len(),
            hex(&Sha256::digest(&deb))
        );
        self.indexes.entry(suite.to_owned()).or_default().push_str(&entry);
        self.files.insert(path.clone(), deb);
        path
    }

    /// Writes indexes and signed releases of `suite`, its updates and its security fixes.
    pub fn publish(&mut self, suite: &str) {
        for name in [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")] {
            let text = self.release(&name);
            let key = if name.ends_with("-security") { &self.security } else { &self.main };
            let signed = key.sign(&text, NOW, true, HashAlgorithm::Sha256);
            self.files.insert(in_release(&name), signed);
        }
    }

    /// The text of a release, after its index was written.
    pub fn release(&mut self, suite: &str) -> String {
        let index = xz(self.indexes.get(suite).map_or("", String::as_str).as_bytes());
        let (size, sha256) = (index.len(), hex(&Sha256::digest(&index)));
        let folder = format!("{}/dists/{suite}/main/binary-amd64", base(suite));
        self.files.insert(format!("{folder}/by-hash/SHA256/{sha256}"), index);
        format!(
            "Origin: Test\nSuite: stable\nCodename: {suite}\nDate: {NOW_TEXT}\n\
             Valid-Until: {UNTIL_TEXT}\nAcquire-By-Hash: yes\n\
             No-Support-for-Architecture-all: Packages\nArchitectures: all amd64\n\
             Components: main\nSHA256:\n {sha256} {size} main/binary-amd64/Packages.xz\n"
        )
    }
}

/// Where a suite's files begin.
pub fn base(suite: &str) -> &'static str {
    if suite.ends_with("-security") { "/debian-security" } else { "/debian" }
}

pub fn in_release(suite: &str) -> String {
    format!("{}/dists/{suite}/InRelease", base(suite))
}
