//! `berth container`.

use super::{SourceArgs, print_json};
use clap::Args;
use image_builder::container::{self, ContainerDefinition};
use image_builder::error::{ExitCode, Result};
use std::path::PathBuf;

/// Build a container image from Debian packages
#[derive(Args)]
pub struct ContainerArgs {
    /// Container definition (TOML)
    definition: PathBuf,
    /// Archive to write; `docker load` and `ctr images import` take it
    #[arg(short, long, value_name = "FILE.oci.tar")]
    output: PathBuf,
    /// Override a key of the definition
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// `berth container`
pub fn container(args: ContainerArgs) -> Result<ExitCode> {
    let definition = ContainerDefinition::read(&args.definition, &args.set)?;
    let cache = args.source.cache()?;
    let mirrors = args.source.mirrors()?;
    let network = args.source.network();
    let summary = container::build(&definition, &cache, &mirrors, network, &args.output)?;
    if args.json {
        print_json(&summary)?;
    } else {
        println!("{}", args.output.display());
        eprintln!("{} {} ({} MB)", summary.reference, summary.id, summary.size / 1_000_000);
    }
    Ok(ExitCode::Done)
}
