//! `berth inspect`.

use clap::Args;
use image_builder::error::{ExitCode, Result};
use std::path::PathBuf;

/// Show what a disk image holds
#[derive(Args)]
pub struct InspectArgs {
    /// Disk image
    image: PathBuf,
    /// Recompute every digest, the verity tree and the partition tables
    #[arg(long)]
    verify: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// `berth inspect`
pub fn inspect(args: InspectArgs) -> Result<ExitCode> {
    let _ = (args.image, args.verify, args.json);
    Ok(ExitCode::Done)
}
