//! `berth check`.

use clap::Args;
use contract::host_config;
use image_builder::definition::Definition;
use image_builder::error::{ExitCode, Result, read_input};
use std::path::PathBuf;

/// Check a host configuration, or an image definition, with the parser that the host uses
#[derive(Args)]
pub struct CheckArgs {
    /// Host configuration, or image definition with --definition (TOML)
    file: PathBuf,
    /// The file is an image definition
    #[arg(long)]
    definition: bool,
}

/// `berth check`
pub fn check(args: CheckArgs) -> Result<ExitCode> {
    let shown = args.file.display().to_string();
    if args.definition {
        Definition::read(&args.file, &[])?;
    } else {
        host_config::check(&shown, &read_input("host configuration", &args.file)?)?;
    }
    println!("{shown}: fine");
    Ok(ExitCode::Done)
}
