//! The Update Framework's client, asked from code that does not wait.

use crate::{Error, Result};
use contract::release::{METADATA_DIR, TARGETS_DIR};
use std::future::Future;
use std::path::Path;
use tough::{
    ExpirationEnforcement, FilesystemTransport, IntoVec, Repository, RepositoryLoader, TargetName,
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
        .expiration_enforcement(expiry);
    block_on(loader.load())?.map_err(|e| wrong(path, &e))
}

/// The content of a target, of the size and with the digest that were signed.
pub fn read_target(repository: &Repository, path: &Path, name: &TargetName) -> Result<Vec<u8>> {
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
