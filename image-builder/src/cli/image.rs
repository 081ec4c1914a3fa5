//! `berth build` and `berth lock`.

use super::{DefinitionArgs, SourceArgs, print_json};
use clap::Args;
use image_builder::build;
use image_builder::definition::Definition;
use image_builder::error::{ExitCode, Result};
use std::path::PathBuf;

/// Build a disk image from an image definition
#[derive(Args)]
pub struct BuildArgs {
    /// Image definition (TOML)
    definition: PathBuf,
    /// Folder that the image and the files beside it go to
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    output: PathBuf,
    #[command(flatten)]
    how: DefinitionArgs,
    /// Print what was left out of the root
    #[arg(short, long)]
    verbose: bool,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
    /// Print how long each stage took
    #[arg(long)]
    timings: bool,
}

/// Write NAME.lock beside an image definition: version and SHA-256 of every package
#[derive(Args)]
pub struct LockArgs {
    /// Image definition (TOML)
    definition: PathBuf,
    /// Override a key of the definition
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    source: SourceArgs,
}

/// `berth build`
pub fn build(args: BuildArgs) -> Result<ExitCode> {
    let built = args.how.build(&args.definition, args.output)?;
    for path in built.dropped.iter().filter(|_| args.verbose) {
        eprintln!("left out: /{path}");
    }
    if args.timings {
        for (stage, took) in &built.timings {
            eprintln!("{stage:<12} {:>7.3} s", took.as_secs_f64());
        }
    }
    match args.json {
        true => print_json(&built.manifest)?,
        false => println!("{}", built.image.display()),
    }
    if !built.changed {
        eprintln!("nothing changed since this image was built");
    }
    Ok(ExitCode::Done)
}

/// `berth lock`
pub fn lock(args: LockArgs) -> Result<ExitCode> {
    let definition = Definition::read(&args.definition, &args.set)?;
    let cache = args.source.cache()?;
    let mirrors = args.source.mirrors()?;
    let path = build::lock_path(&args.definition);
    let count = build::lock(&definition, &cache, &mirrors, args.source.network(), &path)?;
    println!("{}: {count} packages", path.display());
    Ok(ExitCode::Done)
}
