//! `berth keys`.

use super::{print_json, print_text};
use clap::{Args, Subcommand};
use image_builder::error::{ExitCode, Result};
use image_builder::release::{KeyFolder, Lifetime, NewKeys, Role};
use jiff::Timestamp;
use std::path::PathBuf;

/// Make and replace the keys that releases are signed with
#[derive(Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(InitArgs),
    Rotate(RotateArgs),
    Show(ShowArgs),
}

/// Make a folder of keys: one for each role, and root.json, which goes into images
#[derive(Args)]
struct InitArgs {
    /// Folder for the keys, which does not exist yet
    folder: PathBuf,
    /// Signatures that a change of keys takes
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_threshold: u64,
    /// Root keys to make [default: as many as have to sign]
    #[arg(long, value_name = "N")]
    root_keys: Option<u64>,
    /// How long root.json is good for, such as 90d or 10y
    #[arg(long, value_name = "TIME", default_value_t = Lifetime::ROOT)]
    expires: Lifetime,
}

/// Replace the keys of roles, and give root.json a new date; without a role only that
#[derive(Args)]
struct RotateArgs {
    /// Folder of the keys
    folder: PathBuf,
    /// root, targets, snapshot or timestamp
    role: Vec<Role>,
    /// How long root.json is good for, such as 90d or 10y
    #[arg(long, value_name = "TIME", default_value_t = Lifetime::ROOT)]
    expires: Lifetime,
}

/// Show which keys count, and which of them are here
#[derive(Args)]
struct ShowArgs {
    /// Folder of the keys
    folder: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// `berth keys`
pub fn keys(args: KeysArgs) -> Result<ExitCode> {
    let folder = match args.command {
        Command::Init(args) => {
            let new = NewKeys {
                root_keys: args.root_keys.unwrap_or(args.root_threshold),
                root_threshold: args.root_threshold,
                expires: args.expires,
            };
            KeyFolder::init(&args.folder, &new, Timestamp::now())?
        }
        Command::Rotate(args) => {
            let mut folder = KeyFolder::open(&args.folder)?;
            folder.rotate(&args.role, args.expires, Timestamp::now())?;
            folder
        }
        Command::Show(args) => {
            let folder = KeyFolder::open(&args.folder)?;
            if args.json {
                print_json(&folder.describe())?;
                return Ok(ExitCode::Done);
            }
            folder
        }
    };
    print_text(&folder.describe().to_string())?;
    Ok(ExitCode::Done)
}
