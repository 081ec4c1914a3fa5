//! `berth check`.

use clap::Args;
use contract::host_config;
use image_builder::definition::Definition;
use image_builder::error::{Error, ExitCode, Result};
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
        let text = std::fs::read_to_string(&args.file).map_err(Error::io("read", &args.file))?;
        host_config::Raw::parse(&shown, &text)?.validate(&shown)?;
    }
    println!("{shown}: fine");
    Ok(ExitCode::Done)
}
