//! `berth run`.

use super::DefinitionArgs;
use clap::Args;
use contract::host_config;
use image_builder::error::{Error, ExitCode, Result, read_input};
use image_builder::tools::Tools;
use qemu::run::Outcome;
use qemu::{Config, Disk, Nic, PortForward};
use std::path::PathBuf;

/// Boot an image in QEMU, through UEFI firmware
///
/// The console goes to standard output. Ctrl-C shuts the guest down in order, a second one pulls
/// the plug.
#[derive(Args)]
pub struct RunArgs {
    /// Disk image, or an image definition (.toml) to build first
    image: PathBuf,
    /// Let a TCP port of the guest answer on 127.0.0.1
    #[arg(short, long = "port", value_name = "HOST:GUEST")]
    port: Vec<PortForward>,
    /// Memory in MiB
    #[arg(long, value_name = "M", default_value_t = 2048)]
    memory: u32,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// How the disk is attached: virtio, nvme, ahci, usb or scsi
    #[arg(long, value_name = "KIND", default_value = "virtio")]
    disk: Disk,
    /// Network card: virtio, e1000e or igb
    #[arg(long, value_name = "KIND", default_value = "virtio")]
    nic: Nic,
    /// Host configuration to hand over through the firmware
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
    /// Leave the machine running in the background
    #[arg(long)]
    detach: bool,
    /// Leave the image as it is: nothing that the guest writes is kept
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    how: DefinitionArgs,
}

/// `berth run`
pub fn run(args: RunArgs) -> Result<ExitCode> {
    if let Some(file) = &args.host_config {
        host_config::check(&file.display().to_string(), &read_input("host configuration", file)?)?;
    }
    let source = &args.how.source;
    let cache = source.cache()?;
    let image = match args.image.extension().is_some_and(|e| e == "toml") {
        true => {
            let built = args.how.build(&args.image, PathBuf::from("out"))?;
            eprintln!("image {}", built.image.display());
            built.image
        }
        false if args.how.locked || !args.how.set.is_empty() => {
            let what = format!("{} is built already", args.image.display());
            return Err(Error::refused(format!("{what}: --set and --locked are for definitions"))
                .with_hint("name an image definition, a .toml file"));
        }
        false => args.image.clone(),
    };
    let tools =
        Tools { cache: &cache, mirror: source.mirror.as_deref(), network: source.network() };
    let config = Config {
        disk: args.disk,
        nic: args.nic,
        memory_mib: args.memory,
        cpus: args.cpus,
        ports: args.port,
        host_config: args.host_config,
        ephemeral: args.ephemeral,
        ..Config::new(image)
    };
    match qemu::run::run(&tools.qemu()?, &config, args.detach)? {
        Outcome::PoweredOff | Outcome::Stopped | Outcome::Detached(_) => Ok(ExitCode::Done),
        Outcome::Killed => Err(Error::Program {
            program: "the machine".into(),
            message: "the plug was pulled before it had shut down".into(),
        }),
    }
}
