//! `berth inspect`.

use super::{print_json, print_text};
use clap::Args;
use image_builder::error::{ExitCode, Result};
use image_builder::inspect;
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
    let report = inspect::inspect(&args.image)?;
    match args.json {
        true => print_json(&report)?,
        false => print_text(&report.to_string())?,
    }
    if args.verify {
        let verified = inspect::verify(&args.image)?;
        eprintln!("verified: {} checks", verified.checks.len());
    }
    Ok(ExitCode::Done)
}
