//! `berth inspect`.

use super::{print_json, print_text};
use clap::Args;
use image_builder::error::{ExitCode, Result};
use image_builder::inspect;
use serde::Serialize;
use std::fmt::Display;
use std::path::PathBuf;

/// Show what a disk image holds
#[derive(Args)]
pub struct InspectArgs {
    /// Disk image
    image: PathBuf,
    /// Recompute every digest, the verity tree and the partition tables
    #[arg(long)]
    verify: bool,
    /// Show what it would let run; fails on shells (but for debug images) and set-user-ID files
    #[arg(long)]
    audit: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// `berth inspect`
pub fn inspect(args: InspectArgs) -> Result<ExitCode> {
    let audit = args.audit.then(|| inspect::audit(&args.image)).transpose()?;
    match &audit {
        Some(audit) => print(audit, args.json)?,
        None => print(&inspect::inspect(&args.image)?, args.json)?,
    }
    if args.verify {
        let verified = inspect::verify(&args.image)?;
        eprintln!("verified: {} checks", verified.checks.len());
    }
    audit.map_or(Ok(()), |audit| audit.judge())?;
    Ok(ExitCode::Done)
}

fn print(value: &(impl Serialize + Display), json: bool) -> Result<()> {
    match json {
        true => print_json(value),
        false => print_text(&value.to_string()),
    }
}
