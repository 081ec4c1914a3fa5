//! The archive: an OCI image layout, with Docker's `manifest.json` beside it.

use super::definition::ContainerDefinition;
use super::layer;
use crate::cache::{Hashing, hex};
use crate::new_file::NewFile;
use crate::tree::Tree;
use crate::{Error, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use tar::{EntryType, Header};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// `NAME:TAG`.
    pub reference: String,
    /// Digest of the image configuration, which container runtimes call the image ID.
    pub id: String,
    /// Bytes of the archive.
    pub size: u64,
    /// Uncompressed bytes and digest of each layer.
    pub layers: Vec<(u64, String)>,
}

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What container runtimes put there too when an image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes the archive to `out`, which appears when it is whole.
pub(super) fn write(
    definition: &ContainerDefinition,
    layers: &[Tree],
    epoch: i64,
    out: &Path,
) -> Result<Summary> {
    let mut archive = Archive::create(out)?;
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut written: Vec<(u64, String)> = Vec::new();
    for tree in layers {
        let blob = archive.layer(tree)?;
        if !written.contains(&blob) {
            written.push(blob);
        }
    }
    let config = config(definition, &written, epoch).to_string();
    let id = archive.blob(config.as_bytes())?;
    let descriptor = |kind: &str, size: u64, digest: &str| json!({ "mediaType": kind, "size": size, "digest": format!("sha256:{digest}") });
    let layers: Vec<Value> =
        written.iter().map(|(size, digest)| descriptor(LAYER_TYPE, *size, digest)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config.len() as u64, &id),
        "layers": layers,
    })
    .to_string();
    let digest = archive.blob(manifest.as_bytes())?;
    let mut entry = descriptor(MANIFEST_TYPE, manifest.len() as u64, &digest);
    entry["annotations"] = json!({
        "io.containerd.image.name": definition.reference(),
        "org.opencontainers.image.ref.name": definition.tag,
    });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    archive.file("index.json", index.to_string().as_bytes())?;
    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    let docker = json!([{
        "Config": blob(&id),
        "RepoTags": [definition.reference()],
        "Layers": written.iter().map(|(_, digest)| blob(digest)).collect::<Vec<_>>(),
    }]);
    archive.file("manifest.json", docker.to_string().as_bytes())?;
    let size = archive.finish()?;
    Ok(Summary {
        reference: definition.reference(),
        id: format!("sha256:{id}"),
        size,
        layers: written,
    })
}

/// The image configuration (OCI image-spec 1.1, config.md).
fn config(definition: &ContainerDefinition, layers: &[(u64, String)], epoch: i64) -> Value {
    let mut environment = definition.environment.clone();
    environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    let environment: Vec<String> = environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let set = |names: Vec<String>| -> Value {
        names.into_iter().map(|name| (name, json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    let mut config = json!({
        "User": definition.user,
        "Env": environment,
        "WorkingDir": definition.workdir,
    });
    if !definition.entrypoint.is_empty() {
        config["Entrypoint"] = json!(definition.entrypoint);
    }
    if !definition.command.is_empty() {
        config["Cmd"] = json!(definition.command);
    }
    if !definition.ports.is_empty() {
        config["ExposedPorts"] =
            set(definition.ports.iter().map(|port| format!("{port}/tcp")).collect());
    }
    if !definition.volumes.is_empty() {
        config["Volumes"] = set(definition.volumes.clone());
    }
    if let Some(signal) = &definition.stop_signal {
        config["StopSignal"] = json!(signal);
    }
    let created = jiff::Timestamp::from_second(epoch).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created.to_string(),
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|(_, d)| format!("sha256:{d}")).collect::<Vec<_>>(),
        },
    })
}

/// A tar archive in the making. A layer's name is its digest, which is known only after it was
/// written: its header is put in afterwards, so that nothing is written or hashed twice.
struct Archive {
    new: NewFile,
    at: u64,
}

impl Archive {
    fn create(out: &Path) -> Result<Archive> {
        Ok(Archive { new: NewFile::create(out)?, at: 0 })
    }

    fn layer(&mut self, tree: &Tree) -> Result<(u64, String)> {
        let header_at = self.at;
        self.write(&[0; 512])?;
        let out = BufWriter::with_capacity(1 << 20, self.new.file());
        let mut hashing = Hashing::new(out);
        layer::write(tree, &mut hashing, self.new.path())?;
        let (mut out, digest, len) = hashing.finish();
        out.flush().map_err(Error::io("write", self.new.path()))?;
        drop(out);
        let digest = hex(&digest);
        self.at += len;
        self.pad()?;
        let end = self.at;
        self.seek(header_at)?;
        self.write(header(&format!("blobs/sha256/{digest}"), len).as_bytes())?;
        self.seek(end)?;
        Ok((len, digest))
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<String> {
        let digest = hex(&Sha256::digest(bytes));
        self.file(&format!("blobs/sha256/{digest}"), bytes)?;
        Ok(digest)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(header(name, bytes.len() as u64).as_bytes())?;
        self.write(bytes)?;
        self.pad()
    }

    fn finish(mut self) -> Result<u64> {
        self.write(&[0; 1024])?;
        self.new.finish()?;
        Ok(self.at)
    }

    fn pad(&mut self) -> Result<()> {
        let padding = self.at.next_multiple_of(512) - self.at;
        self.write(&[0; 512][..padding as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.new.file().write_all(bytes).map_err(Error::io("write", self.new.path()))
    }

    fn seek(&mut self, to: u64) -> Result<()> {
        self.at = to;
        let sought = self.new.file().seek(SeekFrom::Start(to));
        sought.map(drop).map_err(Error::io("seek in", self.new.path()))
    }
}

fn header(name: &str, size: u64) -> Header {
    let mut header = Header::new_ustar();
    let short = header.set_path(name);
    debug_assert!(short.is_ok(), "names here are short");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header.set_cksum();
    header
}
