//! The Update Framework's client, asked from code that does not wait.

use crate::{Error, Result};
use contract::release::{MAX_LEN, METADATA_DIR, TARGETS_DIR, limits};
use std::future::Future;
use std::path::Path;
use tough::{
    ExpirationEnforcement, FilesystemTransport, IntoVec, Limits, Repository, RepositoryLoader,
    TargetName,
};
use url::Url;

/// Runs `future` to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Error::io("start", "a thread"))?.block_on(future))
}

/// Loads and verifies the metadata of the repository in `path` as a host does that trusts
/// `root`.
pub fn load(path: &Path, root: &[u8], expiry: ExpirationEnforcement) -> Result<Repository> {
    let url = |folder: &str| {
        let folder = std::path::absolute(path.join(folder)).map_err(Error::io("find", path))?;
        Url::from_directory_path(&folder)
            .map_err(|()| Error::refused(format!("{} is not a path", folder.display())))
    };
    let loader = RepositoryLoader::new(&root, url(METADATA_DIR)?, url(TARGETS_DIR)?)
        .transport(FilesystemTransport)
        .limits(LIMITS)
        .expiration_enforcement(expiry);
    let repository = block_on(loader.load())?.map_err(|e| wrong(path, &e))?;
    // The loader goes by the length that the snapshot says.
    let lengths = repository.snapshot().signed.meta.values().filter_map(|meta| meta.length);
    if let Some(length) = lengths.max().filter(|length| *length > limits::TARGETS) {
        let most = limits::TARGETS;
        let why = format!("a list of targets of {length} bytes, and hosts read at most {most}");
        return Err(Error::corrupt(format!("{}: {why}", path.display())));
    }
    Ok(repository)
}

/// What hosts read at most.
const LIMITS: Limits = Limits {
    max_root_size: limits::ROOT,
    max_targets_size: limits::TARGETS,
    max_timestamp_size: limits::TIMESTAMP,
    max_snapshot_size: limits::SNAPSHOT,
    max_root_updates: 1024,
};

/// The content of a target, of the size and with the digest that were signed.
pub fn read_target(repository: &Repository, path: &Path, name: &TargetName) -> Result<Vec<u8>> {
    let signed = repository.targets().signed.targets.get(name);
    if let Some(target) = signed.filter(|target| target.length > MAX_LEN) {
        let why = format!("{} bytes, and hosts read at most {MAX_LEN}", target.length);
        return Err(Error::corrupt(format!("{}: {}: {why}", path.display(), name.raw())));
    }
    let read = async {
        match repository.read_target(name).await? {
            None => Ok(None),
            Some(stream) => stream.into_vec().await.map(Some),
        }
    };
    let bytes = block_on(read)?.map_err(|e| wrong(path, &e))?;
    bytes.ok_or_else(|| Error::corrupt(format!("{}: no target {}", path.display(), name.raw())))
}

/// Its texts hold those of their causes already, and begin with a capital letter.
fn wrong(path: &Path, error: &tough::error::Error) -> Error {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    let text: String = first.into_iter().chain(chars).collect();
    let wrong = Error::corrupt(format!("{}: {text}", path.display()));
    match error {
        tough::error::Error::ExpiredMetadata { role, .. } => wrong.with_hint(match role {
            tough::schema::RoleType::Root => "`berth keys rotate` gives the root a new date",
            _ => "`berth release refresh` signs again what has expired",
        }),
        _ => wrong,
    }
}
