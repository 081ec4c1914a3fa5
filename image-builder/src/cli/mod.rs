//! Arguments and what they call.

mod cache;
mod check;
mod container;
mod image;
mod inspect;
mod keys;
mod release;
mod run;

use clap::{Args, Parser, Subcommand};
use image_builder::build::{self, Built, Locking, Options};
use image_builder::cache::Cache;
use image_builder::debian::{Mirrors, Network};
use image_builder::definition::Definition;
use image_builder::error::{Error, ExitCode, Result};
use image_builder::guest::Programs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Builds, inspects and runs immutable hosts that run containers.
///
/// Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 nothing to do or refused by policy.
#[derive(Parser)]
#[command(name = "berth", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(image::BuildArgs),
    Lock(image::LockArgs),
    Inspect(inspect::InspectArgs),
    Container(container::ContainerArgs),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Keys(keys::KeysArgs),
    Release(release::ReleaseArgs),
    Cache(cache::CacheArgs),
}

/// How a definition is changed and its packages are chosen.
#[derive(Args, Clone)]
struct DefinitionArgs {
    /// Override a key of the definition
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Refuse packages other than those in NAME.lock beside the definition
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    source: SourceArgs,
}

impl DefinitionArgs {
    /// Builds the image that `definition` describes into the folder `output`.
    fn build(&self, definition: &Path, output: PathBuf) -> Result<Built> {
        let read = Definition::read(definition, &self.set)?;
        let options = Options {
            output,
            network: self.source.network(),
            locking: match self.locked {
                true => Locking::Require(build::lock_path(definition)),
                false => Locking::Ignore,
            },
        };
        let (cache, mirrors) = (self.source.cache()?, self.source.mirrors()?);
        build::build(&read, &Programs::read()?, &cache, &mirrors, &options)
    }
}

/// Where packages come from.
#[derive(Args, Clone)]
struct SourceArgs {
    /// Debian mirror, instead of the one that this machine's apt uses
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Use what is in the cache, fetch nothing
    #[arg(long)]
    offline: bool,
    /// With --offline: use metadata that has expired
    #[arg(long, requires = "offline")]
    allow_expired: bool,
    #[command(flatten)]
    place: CachePlace,
}

/// Where the cache lies.
#[derive(Args, Clone)]
struct CachePlace {
    /// Folder of the cache [default: $XDG_CACHE_HOME/berth]
    #[arg(long = "cache", value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl SourceArgs {
    fn cache(&self) -> Result<Cache> {
        Cache::open(self.place.folder.as_deref())
    }

    fn mirrors(&self) -> Result<Mirrors> {
        Mirrors::find(self.mirror.as_deref())
    }

    fn network(&self) -> Network {
        match (self.offline, self.allow_expired) {
            (false, _) => Network::Online,
            (true, false) => Network::Offline,
            (true, true) => Network::OfflineExpired,
        }
    }
}

/// Prints `value` as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::corrupt(format!("result as JSON: {e}")))?;
    print_text(&format!("{text}\n"))
}

/// Prints `text`. A reader that has seen enough, such as `head`, is no error.
fn print_text(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("write", "standard output")),
    }
}

/// Does what the arguments say.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Build(args) => image::build(args),
        Command::Lock(args) => image::lock(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Container(args) => container::container(args),
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::check(args),
        Command::Keys(args) => keys::keys(args),
        Command::Release(args) => release::release(args),
        Command::Cache(args) => cache::cache(args),
    }
}
