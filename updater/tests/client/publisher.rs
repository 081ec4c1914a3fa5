//! Publishes repositories, honest ones and others. Every number and every key can be turned.

use contract::release::{Channel, FORMAT, Release, Root, channel_target, release_target};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const FAR: &str = "2099-01-01T00:00:00Z";
pub const PAST: &str = "2020-01-01T00:00:00Z";

#[derive(Clone)]
pub struct Signer {
    pair: Arc<Ed25519KeyPair>,
    /// The name that metadata knows it by.
    pub id: String,
}

impl Signer {
    pub fn new() -> Signer {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("the same key");
        let id = sha256(pair.public_key().as_ref());
        Signer { pair: Arc::new(pair), id }
    }

    fn public(&self) -> Value {
        let public = contract::hex::encode(self.pair.public_key().as_ref());
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    }
}

/// The keys of the four roles, as a root lists them.
#[derive(Clone)]
pub struct Keys(pub BTreeMap<&'static str, Signer>);

impl Keys {
    pub fn new() -> Keys {
        let roles = ["root", "timestamp", "snapshot", "targets"];
        Keys(roles.into_iter().map(|role| (role, Signer::new())).collect())
    }
}

#[derive(Clone)]
pub struct Publisher {
    pub keys: Keys,
    pub files: BTreeMap<String, Vec<u8>>,
    /// The files before the last publication.
    pub before: BTreeMap<String, Vec<u8>>,
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    pub targets: u64,
    /// When metadata of a role expires, where that is not [`FAR`].
    pub expires: BTreeMap<&'static str, &'static str>,
    pub release: String,
    /// What the channel is called inside its file.
    pub channel: String,
}

impl Publisher {
    /// A repository with root 1 and version 0.9.0 in `stable`.
    pub fn new() -> Publisher {
        let mut it = Publisher {
            keys: Keys::new(),
            files: BTreeMap::new(),
            before: BTreeMap::new(),
            root: 0,
            timestamp: 0,
            snapshot: 0,
            targets: 0,
            expires: BTreeMap::new(),
            release: "0.9.0".to_owned(),
            channel: "stable".to_owned(),
        };
        it.publish_root(&[]);
        it.publish("0.9.0");
        it
    }

    fn expiry(&self, role: &str) -> &'static str {
        self.expires.get(role).copied().unwrap_or(FAR)
    }

    pub fn root_body(&self) -> Value {
        let keys: BTreeMap<_, _> = self.keys.0.values().map(|s| (&s.id, s.public())).collect();
        let roles: BTreeMap<_, _> = self
            .keys
            .0
            .iter()
            .map(|(role, signer)| (*role, json!({"keyids": [signer.id], "threshold": 1})))
            .collect();
        json!({
            "_type": "root", "spec_version": "1.0.31", "version": self.root,
            "expires": self.expiry("root"), "consistent_snapshot": true,
            "keys": keys, "roles": roles,
        })
    }

    /// The next root, signed by its own key and by `also`.
    pub fn publish_root(&mut self, also: &[&Signer]) {
        self.root += 1;
        let mut signers = vec![&self.keys.0["root"]];
        signers.extend(also);
        let bytes = sign(self.root_body(), &signers);
        self.files.insert(format!("metadata/{}.root.json", self.root), bytes);
    }

    /// Replaces all keys, as it should be done.
    pub fn rotate(&mut self) {
        let before = std::mem::replace(&mut self.keys, Keys::new());
        self.publish_root(&[&before.0["root"]]);
    }

    /// Replaces the key of one role.
    pub fn rotate_only(&mut self, role: &'static str) {
        let before = self.keys.0.insert(role, Signer::new()).expect("a key of that role");
        let also: &[&Signer] = if role == "root" { &[&before] } else { &[] };
        self.publish_root(also);
    }

    pub fn root_bytes(&self, version: u64) -> Vec<u8> {
        self.files[&format!("metadata/{version}.root.json")].clone()
    }

    /// A new release, and everything that belongs to it.
    pub fn publish(&mut self, version: &str) {
        version.clone_into(&mut self.release);
        self.before = self.files.clone();
        self.publish_targets();
        self.publish_snapshot();
        self.publish_timestamp();
    }

    pub fn publish_targets(&mut self) {
        self.targets += 1;
        let channel = Channel {
            format: FORMAT,
            name: self.channel.clone(),
            version: Some(self.release.clone()),
            withdrawn: Vec::new(),
        };
        let release = serde_json::to_vec(&release(&self.release)).expect("JSON");
        let channel = serde_json::to_vec(&channel).expect("JSON");
        let mut targets = BTreeMap::new();
        for (name, bytes) in
            [(release_target(&self.release), release), (channel_target("stable"), channel)]
        {
            let digest = sha256(&bytes);
            let target = json!({"length": bytes.len(), "hashes": {"sha256": digest}});
            self.files.insert(format!("targets/{digest}.{name}"), bytes);
            targets.insert(name, target);
        }
        let body = json!({
            "_type": "targets", "spec_version": "1.0.31", "version": self.targets,
            "expires": self.expiry("targets"), "targets": targets,
        });
        let bytes = sign(body, &[&self.keys.0["targets"]]);
        self.files.insert(format!("metadata/{}.targets.json", self.targets), bytes);
    }

    pub fn publish_snapshot(&mut self) {
        self.snapshot += 1;
        let body = json!({
            "_type": "snapshot", "spec_version": "1.0.31", "version": self.snapshot,
            "expires": self.expiry("snapshot"),
            "meta": {"targets.json": {"version": self.targets}},
        });
        let bytes = sign(body, &[&self.keys.0["snapshot"]]);
        self.files.insert(format!("metadata/{}.snapshot.json", self.snapshot), bytes);
    }

    pub fn publish_timestamp(&mut self) {
        self.timestamp += 1;
        let name = format!("metadata/{}.snapshot.json", self.snapshot);
        let mut meta = json!({"version": self.snapshot});
        if let Some(bytes) = self.files.get(&name) {
            meta["length"] = bytes.len().into();
            meta["hashes"] = json!({"sha256": sha256(bytes)});
        }
        let body = json!({
            "_type": "timestamp", "spec_version": "1.0.31", "version": self.timestamp,
            "expires": self.expiry("timestamp"), "meta": {"snapshot.json": meta},
        });
        let bytes = sign(body, &[&self.keys.0["timestamp"]]);
        self.files.insert("metadata/timestamp.json".to_owned(), bytes);
    }

    /// Changes the metadata file `name` of `role` behind the back of whoever signed it, or with
    /// the key of the role.
    pub fn alter(&mut self, name: &str, role: Option<&str>, change: impl FnOnce(&mut Value)) {
        let file = self.files.get_mut(&format!("metadata/{name}")).expect("a metadata file");
        let mut value: Value = serde_json::from_slice(file).expect("JSON");
        match role {
            Some(role) => {
                change(&mut value["signed"]);
                *file = sign(value["signed"].take(), &[&self.keys.0[role]]);
            }
            None => {
                change(&mut value);
                *file = serde_json::to_vec(&value).expect("JSON");
            }
        }
    }
}

/// A signed file. Sorted and plain, so that what is signed is the canonical form.
pub fn sign(signed: Value, signers: &[&Signer]) -> Vec<u8> {
    let message = serde_json::to_vec(&signed).expect("JSON");
    let signatures: Vec<Value> = signers
        .iter()
        .map(|signer| {
            let signature = signer.pair.sign(&message);
            json!({"keyid": signer.id, "sig": contract::hex::encode(signature.as_ref())})
        })
        .collect();
    serde_json::to_vec(&json!({"signed": signed, "signatures": signatures})).expect("JSON")
}

pub fn sha256(bytes: &[u8]) -> String {
    contract::hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub fn release(version: &str) -> Release {
    let file = contract::manifest::File { size: 10, sha256: "ab".repeat(32) };
    Release {
        format: FORMAT,
        name: "docker".to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        created: 1_763_000_000,
        min_from: None,
        min_version: None,
        hardware: Vec::new(),
        uki: file.clone(),
        root: Root {
            size: 8192,
            root_hash: "01".repeat(32),
            salt: "02".repeat(32),
            uuid: "03".repeat(16),
        },
        content: contract::release::Parts { table: file.clone(), pack: file },
        patches: Vec::new(),
    }
}
