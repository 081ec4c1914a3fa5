//! What the library that `berth release` publishes with writes, with keys of every kind.

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use contract::release::{Channel, FORMAT, channel_target, release_target};
use jiff::{Timestamp, ToSpan};
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use tough::editor::RepositoryEditor;
use tough::editor::signed::{PathExists, SignedRole};
use tough::key_source::KeySource;
use tough::schema::{KeyHolder, RoleKeys, RoleType, Root};
use tough::sign::Sign;
use updater::http::Settings;
use updater::repository::{Config, Repository};
use updater::source::Source;

type Fault = Box<dyn Error + Send + Sync>;

/// A private key, as PKCS #8.
#[derive(Clone, Debug)]
enum Secret {
    Ed25519(Vec<u8>),
    Ecdsa(Vec<u8>),
    Rsa(Vec<u8>),
}

impl Secret {
    fn ed25519() -> Secret {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Secret::Ed25519(document.as_ref().to_vec())
    }

    fn ecdsa() -> Secret {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng);
        Secret::Ecdsa(document.expect("a key").as_ref().to_vec())
    }

    fn rsa() -> Secret {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let document: Pkcs8V1Der = pair.as_der().expect("a document");
        Secret::Rsa(document.as_ref().to_vec())
    }

    fn pair(&self) -> Box<dyn Sign> {
        match self {
            Secret::Ed25519(key) => Box::new(Ed25519KeyPair::from_pkcs8(key).expect("a key")),
            Secret::Ecdsa(key) => Box::new(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key).expect("a key"),
            ),
            Secret::Rsa(key) => Box::new(RsaKeyPair::from_pkcs8(key).expect("a key")),
        }
    }
}

#[async_trait]
impl KeySource for Secret {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Fault> {
        Ok(self.pair())
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Fault> {
        Ok(())
    }
}

fn number(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).expect("not zero")
}

fn sources(keys: &[(RoleType, Secret)]) -> Vec<Box<dyn KeySource>> {
    keys.iter().map(|(_, key)| Box::new(key.clone()) as Box<dyn KeySource>).collect()
}

/// Root `version`, signed with its own keys and with those of the roots before.
async fn write_root(folder: &Path, version: u64, chain: &[Vec<(RoleType, Secret)>]) -> Root {
    let mut root = Root {
        spec_version: "1.0.0".to_owned(),
        consistent_snapshot: true,
        version: number(version),
        expires: Timestamp::now() + 48.hours(),
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    for (role, secret) in chain.last().expect("keys") {
        let key = secret.pair().tuf_key();
        let id = key.key_id().expect("an id");
        root.keys.insert(id.clone(), key);
        let keyids = vec![id];
        let keys = RoleKeys { keyids, threshold: number(1), _extra: HashMap::new() };
        root.roles.insert(*role, keys);
    }
    let rng = SystemRandom::new();
    let mut signed: Option<SignedRole<Root>> = None;
    for keys in chain {
        // By the keys that `holder` names for a root.
        let mut holder = root.clone();
        for (role, secret) in keys {
            let key = secret.pair().tuf_key();
            let id = key.key_id().expect("an id");
            holder.keys.insert(id.clone(), key);
            holder.roles.get_mut(role).expect("the role").keyids = vec![id];
        }
        let (holder, sources) = (KeyHolder::Root(holder), sources(keys));
        let more = SignedRole::new(root.clone(), &holder, &sources, &rng).await;
        let more = more.expect("a signed root");
        signed = Some(match signed {
            None => more,
            Some(signed) => {
                signed.add_old_signatures(more.signed().signatures.clone()).expect("one root")
            }
        });
    }
    fs::write(folder.join(format!("{version}.root.json")), signed.expect("a root").buffer())
        .expect("a file");
    root
}

async fn publish(
    folder: &Path,
    root: u64,
    version: &str,
    number_: u64,
    keys: &[(RoleType, Secret)],
) {
    let metadata = folder.join("metadata");
    let new = tempfile::tempdir().expect("a folder");
    let channel = Channel {
        format: FORMAT,
        name: "stable".to_owned(),
        version: Some(version.to_owned()),
        withdrawn: Vec::new(),
    };
    let channel = serde_json::to_vec(&channel).expect("JSON");
    let release = serde_json::to_vec(&crate::publisher::release(version)).expect("JSON");
    fs::write(new.path().join(channel_target("stable")), channel).expect("a file");
    fs::write(new.path().join(release_target(version)), release).expect("a file");
    let files = [channel_target("stable"), release_target(version)].map(|n| new.path().join(n));

    let root = metadata.join(format!("{root}.root.json"));
    let mut editor = RepositoryEditor::new(root).await.expect("an editor");
    let (expires, at) = (Timestamp::now() + 24.hours(), number(number_));
    editor.snapshot_version(at).snapshot_expires(expires);
    editor.timestamp_version(at).timestamp_expires(expires);
    editor.targets_version(at).expect("a version").targets_expires(expires).expect("a time");
    editor.add_target_paths(files.to_vec()).await.expect("targets");
    let signed = editor.sign(&sources(keys)).await.expect("a signed repository");
    let targets = folder.join("targets");
    signed.copy_targets(new.path(), &targets, PathExists::Skip).await.expect("targets");
    signed.write(&metadata).await.expect("metadata");
}

fn refresh(folder: &Path) -> String {
    let config = Config {
        mirrors: vec![folder.join("repository").display().to_string()],
        channel: "stable".to_owned(),
        trusted_root: folder.join("repository/metadata/1.root.json"),
        state: folder.join("state"),
        http: Settings::default(),
    };
    let mut repository = Repository::open(&config).expect("a repository");
    let version = repository.refresh().expect("it is valid").version.expect("a version");
    repository.release(&version).expect("it is there").version
}

#[test]
fn a_repository_of_tough_is_read_before_and_after_its_keys_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    fs::create_dir_all(repository.join("metadata")).expect("a folder");
    fs::create_dir_all(repository.join("targets")).expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");

    let roles = [RoleType::Root, RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets];
    let first = roles.map(|role| (role, Secret::ed25519())).to_vec();
    let second = vec![
        (RoleType::Root, Secret::rsa()),
        (RoleType::Timestamp, Secret::ecdsa()),
        (RoleType::Snapshot, Secret::rsa()),
        (RoleType::Targets, Secret::ecdsa()),
    ];
    runtime.block_on(async {
        let chain = [first.clone()];
        write_root(&repository.join("metadata"), 1, &chain).await;
        publish(&repository, 1, "1.0.0", 1, &first).await;
    });
    assert_eq!(refresh(folder.path()), "1.0.0");
    runtime.block_on(async {
        publish(&repository, 1, "1.1.0", 2, &first).await;
    });
    assert_eq!(refresh(folder.path()), "1.1.0");
    runtime.block_on(async {
        let chain = [first.clone(), second.clone()];
        write_root(&repository.join("metadata"), 2, &chain).await;
        publish(&repository, 2, "1.2.0", 3, &second).await;
    });
    assert_eq!(refresh(folder.path()), "1.2.0");
}
