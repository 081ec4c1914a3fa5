//! `berth cache`.

use super::{CachePlace, print_json, print_text};
use clap::{Args, Subcommand};
use image_builder::cache::Cache;
use image_builder::error::{ExitCode, Result};
use image_builder::output::bytes;
use std::time::Duration;

/// Show or clean the cache of packages and of what was made from them
#[derive(Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print how much the cache holds
    Size {
        #[command(flatten)]
        place: CachePlace,
        /// Print it as JSON, in bytes
        #[arg(long)]
        json: bool,
    },
    /// Remove everything, or what was not used for a while; refused while another berth runs
    Clean {
        #[command(flatten)]
        place: CachePlace,
        /// Keep what was used within so many days
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
    },
}

/// `berth cache`
pub fn cache(args: CacheArgs) -> Result<ExitCode> {
    match args.command {
        Command::Size { place, json } => {
            let cache = Cache::open(place.folder.as_deref())?;
            let usage = cache.usage()?;
            if json {
                print_json(&usage)?;
                return Ok(ExitCode::Done);
            }
            let mut text = String::new();
            for (kind, count) in &usage.kinds {
                text += &format!("{kind:<12} {:>12}\n", bytes(count.bytes));
            }
            let root = cache.root().display();
            print_text(&format!("{text}{:<12} {:>12}  {root}\n", "", bytes(usage.total.bytes)))?;
        }
        Command::Clean { place, older_than } => {
            let unused = older_than.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
            let removed = Cache::open(place.folder.as_deref())?.clean(unused)?;
            let entries = if removed.entries == 1 { "entry" } else { "entries" };
            let size = bytes(removed.bytes);
            print_text(&format!("removed {} {entries}, {size}\n", removed.entries))?;
        }
    }
    Ok(ExitCode::Done)
}
