//! Arguments and what they call.

mod build;
mod check;
mod container;
mod inspect;
mod keys;
mod release;
mod run;

use clap::{Args, Parser, Subcommand};
use image_builder::cache::Cache;
use image_builder::debian::{Mirrors, Network};
use image_builder::error::{Error, ExitCode, Result};
use std::io::Write;
use std::path::PathBuf;

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
    Build(build::BuildArgs),
    Lock(build::LockArgs),
    Inspect(inspect::InspectArgs),
    Container(container::ContainerArgs),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Keys(keys::KeysArgs),
    Release(release::ReleaseArgs),
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
    /// Folder of the cache [default: $XDG_CACHE_HOME/berth]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl SourceArgs {
    fn cache(&self) -> Result<Cache> {
        Cache::open(self.cache.as_deref())
    }

    fn mirrors(&self) -> Result<Mirrors> {
        Mirrors::find(self.mirror.as_deref())
    }

    fn network(&self) -> Network {
        match self.offline {
            true => Network::Offline,
            false => Network::Online,
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
        Command::Build(args) => build::build(args),
        Command::Lock(args) => build::lock(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Container(args) => container::container(args),
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::check(args),
        Command::Keys(args) => keys::keys(args),
        Command::Release(args) => release::release(args),
    }
}
