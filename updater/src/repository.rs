//! A static repository as a source of releases: TUF metadata over HTTP, from any of its mirrors.

use crate::http::{self, Base, Client, Mirrors, SetupError};
use crate::source::{Content, Source, SourceError};
use crate::tuf::{self, Store, Trusted};
use contract::manifest::File;
use contract::release::{self, Channel, Release};
use contract::{hex, version};
use jiff::Timestamp;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Where a repository is, and what is trusted about it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of its copies: see [`Base::parse`].
    pub mirrors: Vec<String>,
    /// The channel to follow.
    pub channel: String,
    /// The TUF root in the image.
    pub trusted_root: PathBuf,
    /// Folder in `/var` for what was trusted last. One for each repository.
    pub state: PathBuf,
    /// How to fetch.
    pub http: http::Settings,
}

/// A repository. Does nothing, and has no threads, between calls.
pub struct Repository {
    client: Client,
    mirrors: Mirrors,
    store: Store,
    channel: String,
    trusted_root: Vec<u8>,
    clock: fn() -> Timestamp,
    trusted: Option<Trusted>,
    newest: Option<u64>,
}

/// Why a repository cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is configured cannot be.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No name of a channel.
    #[error("`{0}` is not the name of a channel")]
    Channel(String),
    /// A file or folder of this host.
    #[error("{what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The object.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Repository {
    /// Checks the configuration and opens the state. Asks nobody yet.
    pub fn open(config: &Config) -> Result<Repository, OpenError> {
        if !release::is_channel_name(&config.channel) {
            return Err(OpenError::Channel(config.channel.clone()));
        }
        let bases: Result<Vec<_>, _> = config.mirrors.iter().map(|m| Base::parse(m)).collect();
        let trusted_root = read(&config.trusted_root)?;
        let store = Store::open(&config.state).map_err(|source| OpenError::Io {
            what: "make",
            path: config.state.clone(),
            source,
        })?;
        Ok(Repository {
            client: Client::new(&config.http)?,
            mirrors: Mirrors::new(bases?)?,
            store,
            channel: config.channel.clone(),
            trusted_root,
            clock: Timestamp::now,
            trusted: None,
            newest: None,
        })
    }

    /// Another clock than the system's.
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Repository {
        self.clock = clock;
        self
    }

    /// Tells `listener` of bytes that arrive and of what goes wrong in between.
    pub fn set_listener(&mut self, listener: Option<http::Listener>) {
        self.client.set_listener(listener);
    }

    /// Once true, everything ends soon, with an error.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.client.stop_flag()
    }

    /// The latest time that a verified release is known to have existed, in seconds since 1970 UTC:
    /// a clock that is behind it is wrong.
    pub fn newest_signed_time(&self) -> Option<u64> {
        self.newest
    }

    /// When the root metadata that was trusted last expires, in seconds since 1970 UTC.
    pub fn root_expires(&self) -> Option<u64> {
        let expires = self.trusted.as_ref()?.root_expires();
        u64::try_from(expires.as_second()).ok()
    }

    /// Tries every mirror in turn, and again after a pause as long as one of them may come back.
    fn try_mirrors<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Repository, &Base) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        for round in 0.. {
            let (mut unreachable, mut refused) = (Vec::new(), Vec::new());
            for _ in 0..self.mirrors.count() {
                let base = self.mirrors.current().clone();
                match attempt(self, &base) {
                    Ok(value) => return Ok(value),
                    Err(SourceError::Unreachable(why)) => unreachable.push(why),
                    Err(SourceError::Refused(why)) => refused.push(why),
                    Err(other) => return Err(other),
                }
                self.mirrors.advance();
            }
            let last = round + 1 >= self.client.rounds();
            match unreachable.first() {
                Some(why) if !last => {
                    let pause = self.client.pause_after(round);
                    self.client.wait(pause, why)?;
                }
                // A refusal is what a person has to know, even if another mirror is merely down.
                _ if refused.is_empty() => {
                    return Err(SourceError::Unreachable(unreachable.join("; ")));
                }
                _ => {
                    refused.append(&mut unreachable);
                    return Err(SourceError::Refused(refused.join("; ")));
                }
            }
        }
        unreachable!("the last round returns")
    }

    fn refresh_from(&mut self, base: &Base) -> Result<Channel, SourceError> {
        let mut metadata = self.folder(base, release::METADATA_DIR);
        let now = (metadata.clock)();
        let Folder { store, trusted_root, .. } = metadata;
        let fresh = tuf::refresh(store, trusted_root, &mut metadata, now)
            .map_err(|error| at(&metadata.base, error))?;
        let name = release::channel_target(&self.channel);
        let bytes = self.target(base, &fresh, &name)?;
        self.trusted = Some(fresh);
        let channel = Channel::parse(&bytes);
        let channel = channel.map_err(|e| SourceError::Refused(format!("{name}: {e}")))?;
        if channel.name != self.channel {
            let found = &channel.name;
            return Err(SourceError::Refused(format!("{name}: it describes channel `{found}`")));
        }
        Ok(channel)
    }

    fn target(
        &mut self,
        base: &Base,
        trusted: &Trusted,
        name: &str,
    ) -> Result<Vec<u8>, SourceError> {
        let mut metadata = self.folder(base, release::METADATA_DIR);
        let store = metadata.store;
        let found = trusted.find(name, store, &mut metadata).map_err(|e| at(&metadata.base, e))?;
        let refuse = |why: &str| SourceError::Refused(format!("{base}: {name}: {why}"));
        let target = found.ok_or_else(|| refuse("the repository does not list it"))?;
        if target.length > release::MAX_LEN {
            return Err(refuse("it is larger than such a file can be"));
        }
        let path = trusted.path(name, &target).ok_or_else(|| refuse("it has no digest"))?;
        let mut targets = self.folder(base, release::TARGETS_DIR);
        let bytes = tuf::Fetch::get(&mut targets, &path, target.length)?;
        let bytes = bytes.ok_or_else(|| refuse("it is listed, but not there"))?;
        target.check(&bytes).map_err(|why| refuse(&why.to_string()))?;
        Ok(bytes)
    }

    fn release_from(&mut self, base: &Base, version: &str) -> Result<Release, SourceError> {
        let name = release::release_target(version);
        let trusted = self.trusted.take();
        let trusted = trusted.ok_or_else(|| SourceError::Refused("not refreshed".to_owned()))?;
        let bytes = self.target(base, &trusted, &name);
        self.trusted = Some(trusted);
        let refuse = |why: String| SourceError::Refused(format!("{name}: {why}"));
        let release = Release::parse(&bytes?).map_err(|e| refuse(e.to_string()))?;
        if release.version != version {
            return Err(refuse(format!("it describes version {}", release.version)));
        }
        self.newest = self.newest.max(Some(release.created));
        Ok(release)
    }

    fn folder(&mut self, base: &Base, name: &str) -> Folder<'_> {
        Folder {
            base: base.join(name),
            client: &mut self.client,
            store: &self.store,
            trusted_root: &self.trusted_root,
            clock: self.clock,
        }
    }
}

impl Source for Repository {
    fn refresh(&mut self) -> Result<Channel, SourceError> {
        self.try_mirrors(|repository, base| repository.refresh_from(base))
    }

    fn release(&mut self, version: &str) -> Result<Release, SourceError> {
        if !version::is_valid(version) {
            return Err(SourceError::Refused(format!("`{version}` is not a version")));
        }
        if self.trusted.is_none() {
            self.refresh()?;
        }
        self.try_mirrors(|repository, base| repository.release_from(base, version))
    }
}

impl Content for Repository {
    fn fetch(
        &mut self,
        file: &File,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), SourceError> {
        // It becomes part of an address.
        if hex::decode_array::<32>(&file.sha256).is_none() {
            let digest = &file.sha256;
            return Err(SourceError::Refused(format!("`{digest}` is not a SHA-256")));
        }
        let path = format!("{}/{}", release::CONTENT_DIR, file.sha256);
        self.client.stream(&mut self.mirrors, &path, file.size, range, sink)
    }
}

/// One folder of one mirror.
struct Folder<'a> {
    base: Base,
    client: &'a mut Client,
    store: &'a Store,
    trusted_root: &'a [u8],
    clock: fn() -> Timestamp,
}

impl tuf::Fetch for Folder<'_> {
    fn get(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        self.client.get(&self.base, name, limit)
    }
}

/// Names the mirror whose metadata is not to be trusted.
fn at(base: &Base, error: tuf::Error) -> SourceError {
    match error {
        tuf::Error::Refused { file, why } => SourceError::Refused(format!("{base}: {file}: {why}")),
        other => other.into(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    let failed = |source| OpenError::Io { what: "read", path: path.to_owned(), source };
    std::fs::read(path).map_err(failed)
}
