//! The agent on a disk that is a folder of files: what `make bench` measures an update by. It looks,
//! installs, and ends where a host would restart.
//!
//! ```text
//! on-files FOLDER URL TRUSTED-ROOT NAME VERSION ROOT-HASH
//! ```
//!
//! FOLDER has a file for each partition of slot A and B, by its GPT name, and `berth-state`.

use contract::Slot;
use contract::host_config::Raw;
use contract::layout::Partition;
use contract::record::State;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::thread;
use sys::block::Direct;
use updater::agent::{Agent, Repository as AgentRepository, World};
use updater::decide::Host;
use updater::disk::Disk;
use updater::http::Settings;
use updater::repository::{Config, Repository};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, url, trusted_root, name, version, root_hash] = arguments.as_slice() else {
        return Err("usage: see the head of this file".into());
    };
    let folder = PathBuf::from(folder);
    let open = |partition: Partition| {
        let path = folder.join(partition.label());
        Direct::open(&path, true).map_err(|e| format!("open {}: {e}", path.display()))
    };
    let both = |of: fn(Slot) -> Partition| -> Result<[Direct; 2], String> {
        Ok([open(of(Slot::A))?, open(of(Slot::B))?])
    };
    let disk = Disk::new(
        open(Partition::State)?,
        both(Partition::Boot)?,
        both(Partition::Root)?,
        both(Partition::Verity)?,
    );
    // As after its first good boot.
    disk.state.change(|record| {
        let mut next = *record;
        next[Slot::A].state = State::Healthy;
        Some(next)
    })?;
    let text = format!(
        "[update]\nrepository = \"{url}\"\nreboot = \"immediate\"\ninterval = 5\nscrub = 0\n"
    );
    let config = Raw::parse("bench", &text)?.validate("bench")?.update;
    let world = Files {
        config: Config {
            mirrors: config.repository.clone(),
            channel: config.channel.clone(),
            trusted_root: trusted_root.into(),
            state: folder.join("tuf"),
            http: Settings::default(),
        },
    };
    let host = Host {
        name: name.clone(),
        version: version.clone(),
        root_hash: root_hash.clone(),
        hardware: None,
    };
    let store = folder.join("store");
    let agent = Agent::new(disk, Slot::A, host, config, &store, Box::new(world));
    loop {
        thread::sleep(agent.step());
    }
}

struct Files {
    config: Config,
}

impl World for Files {
    fn repository(&self) -> Result<Box<dyn AgentRepository>, updater::Error> {
        let repository = Repository::open(&self.config);
        Ok(Box::new(repository.map_err(|e| updater::Error::Refused(updater::agent::chain(&e)))?))
    }

    fn restart(&self) -> io::Result<()> {
        std::process::exit(0)
    }

    fn tell(&self, _: &str) {}

    fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    fn last_words(&self, _: Slot) -> Vec<String> {
        Vec::new()
    }

    fn forget_words(&self, _: Slot) {}

    fn floor(&self, _: u64) {}
}
