//! A host that follows a repository over HTTP.

use crate::publisher::Publisher;
use crate::server::Server;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use updater::http::{Patience, Settings};
use updater::repository::{Config, Repository};
use updater::source::{Source, SourceError};

/// A host that follows a repository.
pub struct Host {
    pub server: Server,
    pub folder: TempDir,
    pub publisher: Publisher,
}

pub fn settings() -> Settings {
    let patience = Patience {
        silence: Duration::from_millis(500),
        rounds: 2,
        first_pause: Duration::from_millis(1),
        ..Patience::default()
    };
    Settings { patience, ..Settings::default() }
}

pub fn open(mirrors: &[&Server], folder: &Path) -> Repository {
    let config = Config {
        mirrors: mirrors.iter().map(|server| server.url()).collect(),
        channel: "stable".to_owned(),
        trusted_root: folder.join("shipped-root.json"),
        state: folder.join("state"),
        http: settings(),
    };
    Repository::open(&config).expect("a repository")
}

impl Host {
    /// Trusts root 1 and has never asked.
    pub fn new() -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        let publisher = Publisher::new();
        std::fs::write(folder.path().join("shipped-root.json"), publisher.root_bytes(1))
            .expect("a file");
        Host { server: Server::start(), folder, publisher }
    }

    /// Has seen version 1.0.0, which is version 2 of everything but the root.
    pub fn refreshed() -> Host {
        let mut host = Host::new();
        host.publisher.publish("1.0.0");
        assert_eq!(host.refresh().expect("an honest repository"), "1.0.0");
        host
    }

    pub fn open(&self) -> Repository {
        open(&[&self.server], self.folder.path())
    }

    /// What a host that has just started would install.
    pub fn refresh(&self) -> Result<String, SourceError> {
        self.server.set_files(self.publisher.files.clone());
        refresh(&mut self.open())
    }
}

pub fn refresh(repository: &mut Repository) -> Result<String, SourceError> {
    let channel = repository.refresh()?;
    let version = channel.version.expect("a version");
    assert_eq!(repository.release(&version)?.version, version);
    Ok(version)
}

pub fn expect(name: &str, got: Result<String, SourceError>, expected: Result<&str, &str>) {
    match (got, expected) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{name}"),
        (Err(SourceError::Refused(why)), Err(expected)) => {
            assert!(why.contains(expected), "{name}: {why}");
        }
        (got, expected) => panic!("{name}: {got:?} instead of {expected:?}"),
    }
}
