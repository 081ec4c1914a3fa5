//! The host around the agent: its configuration, its console, its end.

use crate::agent::{Repository as AgentRepository, World};
use crate::decide::Host;
use crate::error::Error;
use crate::http::{self, Event, Settings};
use crate::repository::{Config, OpenError, Repository};
use crate::source::SourceError;
use crate::store::FOLDER;
use contract::Slot;
use contract::handover::{ESP_FILES, Handover, LAST_PANIC, LAST_WORDS, PATH};
use contract::layout::{CMDLINE_ROOT_HASH, CMDLINE_VERSION};
use contract::release::TRUSTED_ROOT;
use contract::update::{CONFIG, Update};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What this process is told about the host it runs on.
#[derive(Debug)]
pub struct Surroundings {
    /// How the system was started.
    pub handover: Handover,
    /// What runs.
    pub host: Host,
    /// `[update]` of the host configuration.
    pub config: Update,
}

impl Surroundings {
    /// Reads what `init` and the image say. The error names the file.
    pub fn read() -> Result<Surroundings, String> {
        let text = |path: &str| fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"));
        let handover = Handover::from_text(&text(PATH)?);
        let handover = handover.ok_or_else(|| format!("{PATH} is not what init writes"))?;
        let config = serde_json::from_str(&text(CONFIG)?);
        let config: Update = config.map_err(|e| format!("{CONFIG}: {e}"))?;
        let cmdline = text("/proc/cmdline")?;
        let value = |key: &str| {
            let prefix = format!("{key}=");
            let word = cmdline.split_whitespace().rev().find_map(|w| w.strip_prefix(&prefix));
            word.map(str::to_owned).ok_or_else(|| format!("the kernel command line has no {key}"))
        };
        let release = text("/usr/lib/os-release")?;
        let name = release.lines().find_map(|line| line.strip_prefix("IMAGE_ID="));
        let name = name.ok_or("/usr/lib/os-release names no IMAGE_ID")?;
        let host = Host {
            name: name.trim_matches('"').to_owned(),
            version: value(CMDLINE_VERSION)?,
            root_hash: value(CMDLINE_ROOT_HASH)?,
            hardware: config.hardware.clone(),
        };
        Ok(Surroundings { handover, host, config })
    }
}

/// The real one.
#[derive(Debug)]
pub struct RealWorld {
    /// `[update]` of the host configuration.
    pub config: Update,
}

impl World for RealWorld {
    fn repository(&self) -> Result<Box<dyn AgentRepository>, Error> {
        if self.config.repository.is_empty() {
            return Err(Error::Refused("update.repository names no repository".to_owned()));
        }
        let trusted_root = match &self.config.root {
            Some(file) => Path::new(ESP_FILES).join(file),
            None => Path::new("/").join(TRUSTED_ROOT),
        };
        // What was trusted of one repository says nothing about another.
        let mut key = Sha256::new();
        key.update(fs::read(&trusted_root).unwrap_or_default());
        key.update(self.config.repository.join("\n"));
        let id = contract::hex::encode(&key.finalize()[..8]);
        let config = Config {
            mirrors: self.config.repository.clone(),
            channel: self.config.channel.clone(),
            trusted_root,
            state: PathBuf::from(FOLDER).join("tuf").join(id),
            http: Settings {
                bandwidth: self.config.bandwidth,
                proxy: self.config.proxy.clone(),
                no_proxy: self.config.no_proxy.clone(),
                ..Settings::default()
            },
        };
        let repository = Repository::open(&config).map_err(refused)?;
        Ok(Box::new(repository))
    }

    fn restart(&self) -> io::Result<()> {
        // PID 1 takes SIGTERM as an order to restart: see its module `power`.
        sys::process::terminate_init()
    }

    fn say(&self, text: &str) {
        // `init` puts it on the console.
        println!("{text}");
    }

    fn tell(&self, status: &str) {
        // Whoever started this process may be somebody else, who does not listen.
        let _ = notify(&format!("STATUS={status}"));
    }

    fn last_words(&self, slot: Slot) -> Vec<String> {
        // A kernel that panics leaves no words of the slot's own.
        let kept = fs::read_to_string(format!("{LAST_WORDS}{slot}"))
            .or_else(|_| fs::read_to_string(LAST_PANIC));
        kept.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn forget_words(&self, slot: Slot) {
        // Usually there are none.
        let _ = fs::remove_file(format!("{LAST_WORDS}{slot}"));
        let _ = fs::remove_file(LAST_PANIC);
    }

    fn floor(&self, time: u64) {
        let now = crate::agent::now();
        if now < time
            && let Err(e) = sys::clock::set(Duration::from_secs(time))
        {
            self.say(&format!("updater: set the clock forward: {e}"));
        }
    }
}

/// Tells who started this process that it answers now.
pub fn notify_ready() -> io::Result<()> {
    notify("READY=1")
}

/// sd_notify(3).
fn notify(text: &str) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    // Nobody reads it while the host goes down.
    socket.set_nonblocking(true)?;
    socket.send_to(text.as_bytes(), path)?;
    Ok(())
}

fn refused(e: OpenError) -> Error {
    Error::Source(SourceError::Refused(crate::agent::chain(&e)))
}

impl AgentRepository for Repository {
    fn signed_time(&self) -> Option<u64> {
        self.newest_signed_time()
    }

    fn root_expires(&self) -> Option<u64> {
        Repository::root_expires(self)
    }

    fn listen(&mut self, mut received: Box<dyn FnMut(u64) + Send>) {
        let listener: http::Listener = Box::new(move |event| {
            if let Event::Received(bytes) = event {
                received(bytes);
            }
        });
        self.set_listener(Some(listener));
    }
}
