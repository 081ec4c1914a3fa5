//! `berth release`.

use super::{SourceArgs, print_json, print_text};
use clap::{ArgGroup, Args, Subcommand};
use image_builder::build::{self, Locking, Options};
use image_builder::definition::Definition;
use image_builder::error::{Error, ExitCode, Result};
use image_builder::guest::Programs;
use image_builder::output::bytes;
use image_builder::release::{self, KeyFolder, Lifetime, Lifetimes, NewRelease, Role, Signing};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// Publish releases in a repository, a folder that any web server can serve
#[derive(Args)]
pub struct ReleaseArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(Box<AddArgs>),
    Promote(PromoteArgs),
    Withdraw(WithdrawArgs),
    List(ListArgs),
    Refresh(RefreshArgs),
    Gc(GcArgs),
    Verify(VerifyArgs),
}

/// With what, and for how long.
#[derive(Args)]
struct SigningArgs {
    /// Folder of keys that `berth keys init` made
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// How long the list of releases is good for
    #[arg(long, value_name = "TIME", default_value_t = Lifetimes::default().targets)]
    targets_expires: Lifetime,
    /// How long the choice of a list is good for
    #[arg(long, value_name = "TIME", default_value_t = Lifetimes::default().snapshot)]
    snapshot_expires: Lifetime,
    /// How long hosts take the repository for up to date
    #[arg(long, value_name = "TIME", default_value_t = Lifetimes::default().timestamp)]
    timestamp_expires: Lifetime,
}

impl SigningArgs {
    fn with<T>(&self, act: impl FnOnce(&Signing<'_>) -> Result<T>) -> Result<T> {
        let keys = KeyFolder::open(&self.keys)?;
        let lifetimes = Lifetimes {
            targets: self.targets_expires,
            snapshot: self.snapshot_expires,
            timestamp: self.timestamp_expires,
        };
        act(&Signing { keys: &keys, lifetimes, now: Timestamp::now() })
    }
}

/// Publish an image as a release; the first makes the repository
#[derive(Args)]
#[command(group(ArgGroup::new("what").required(true).args(["image", "build"])))]
struct AddArgs {
    /// Folder of the repository
    repository: PathBuf,
    /// Disk image to publish
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Image definition to build and publish
    #[arg(long, value_name = "DEFINITION")]
    build: Option<PathBuf>,
    /// Let this channel point to the release at once
    #[arg(long)]
    channel: Option<String>,
    /// Make a patch from this version [default: from the versions that channels point to]
    #[arg(long, value_name = "VERSION")]
    from: Vec<String>,
    /// Make no patches: quick, and hosts download whole chunks
    #[arg(long, conflicts_with = "from")]
    no_patches: bool,
    /// Hosts that run an older version have to install another release first
    #[arg(long, value_name = "VERSION")]
    min_from: Option<String>,
    /// Hosts that have run this release accept nothing below this version any more
    #[arg(long, value_name = "VERSION")]
    min_version: Option<String>,
    /// Only for hosts of this hardware class
    #[arg(long, value_name = "CLASS")]
    hardware: Vec<String>,
    /// Compress with this level of zstd, 1 to 22: lower is faster, and larger to download
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    level: Option<i32>,
    #[command(flatten)]
    signing: SigningArgs,
    /// Folder that a built image goes to
    #[arg(short, long, value_name = "DIR", default_value = "out", requires = "build")]
    output: PathBuf,
    /// Override a key of the definition
    #[arg(long, value_name = "KEY=VALUE", requires = "build")]
    set: Vec<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// Print the release as JSON
    #[arg(long)]
    json: bool,
}

/// Let a channel point to a release
#[derive(Args)]
struct PromoteArgs {
    /// Folder of the repository
    repository: PathBuf,
    /// Version of the release
    version: String,
    /// The channel
    #[arg(long)]
    channel: String,
    #[command(flatten)]
    signing: SigningArgs,
}

/// Declare a release bad: channels go back to what they pointed to before, and so do hosts
#[derive(Args)]
struct WithdrawArgs {
    /// Folder of the repository
    repository: PathBuf,
    /// Version of the release
    version: String,
    #[command(flatten)]
    signing: SigningArgs,
}

/// Show releases and channels
#[derive(Args)]
struct ListArgs {
    /// Folder of the repository
    repository: PathBuf,
    /// Trust this root metadata instead of the repository's own
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Sign again what would expire, and publish changed keys
#[derive(Args)]
struct RefreshArgs {
    /// Folder of the repository
    repository: PathBuf,
    #[command(flatten)]
    signing: SigningArgs,
}

/// Remove old releases, and files that no release needs
#[derive(Args)]
struct GcArgs {
    /// Folder of the repository
    repository: PathBuf,
    /// So many of the newest releases stay, besides those that channels need
    #[arg(long, value_name = "N")]
    keep: usize,
    #[command(flatten)]
    signing: SigningArgs,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// Check a whole repository: signatures, dates, digests, and what releases decode to
#[derive(Args)]
struct VerifyArgs {
    /// Folder of the repository
    repository: PathBuf,
    /// Trust this root metadata instead of the repository's own
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Print what was checked as JSON
    #[arg(long)]
    json: bool,
}

/// `berth release`
pub fn release(args: ReleaseArgs) -> Result<ExitCode> {
    match args.command {
        Command::Add(args) => add(*args),
        Command::Promote(args) => promote(&args),
        Command::Withdraw(args) => withdraw(&args),
        Command::List(args) => {
            let list = release::list(&args.repository, args.root.as_deref(), Timestamp::now())?;
            match args.json {
                true => print_json(&list)?,
                false => print_text(&list.to_string())?,
            }
            warn(list.metadata.iter().filter_map(|role| role.warning.as_ref()));
            Ok(ExitCode::Done)
        }
        Command::Refresh(args) => {
            let signed =
                args.signing.with(|signing| release::refresh(&args.repository, signing))?;
            let signed: Vec<&str> = signed.into_iter().map(Role::name).collect();
            eprintln!("signed {}", signed.join(", "));
            Ok(ExitCode::Done)
        }
        Command::Gc(args) => gc(&args),
        Command::Verify(args) => {
            let checked =
                release::verify(&args.repository, args.root.as_deref(), Timestamp::now())?;
            match args.json {
                true => print_json(&checked)?,
                false => checked.checks.iter().try_for_each(|c| print_text(&format!("{c}\n")))?,
            }
            warn(&checked.warnings);
            if args.root.is_none() {
                eprintln!(
                    "note: it was checked by its own root metadata; --root gives a trusted one"
                );
            }
            Ok(ExitCode::Done)
        }
    }
}

fn warn<'w>(warnings: impl IntoIterator<Item = &'w String>) {
    warnings.into_iter().for_each(|warning| eprintln!("warning: {warning}"));
}

fn add(args: AddArgs) -> Result<ExitCode> {
    // A mistake in the keys shows before a build.
    KeyFolder::open(&args.signing.keys)?;
    let image = match (&args.image, &args.build) {
        (Some(image), _) => image.clone(),
        (None, Some(definition)) => built(definition, &args)?,
        (None, None) => return Err(Error::refused("neither --image nor --build is given")),
    };
    let new = NewRelease {
        channel: args.channel,
        from: match args.no_patches {
            true => Some(Vec::new()),
            false => (!args.from.is_empty()).then_some(args.from),
        },
        min_from: args.min_from,
        min_version: args.min_version,
        hardware: args.hardware,
        level: args.level,
    };
    let repository = &args.repository;
    let added = args.signing.with(|signing| release::add(repository, &image, &new, signing))?;
    let release = &added.release;
    if added.debug_shell {
        eprintln!("note: this release has a shell for development; keep it away from real hosts");
    }
    if args.json {
        print_json(release)?;
        return Ok(ExitCode::Done);
    }
    let size = |parts: &contract::release::Parts| bytes(parts.table.size + parts.pack.size);
    let mut text = format!("{} {}: {}", release.name, release.version, size(&release.content));
    for patch in &release.patches {
        text += &format!(", {} from {}", size(&patch.content), patch.from);
    }
    if let Some(channel) = &new.channel {
        text += &format!("; channel {channel} points to it");
    }
    print_text(&format!("{text}\n"))?;
    Ok(ExitCode::Done)
}

fn built(definition: &Path, args: &AddArgs) -> Result<PathBuf> {
    let definition = Definition::read(definition, &args.set)?;
    let options = Options {
        output: args.output.clone(),
        network: args.source.network(),
        locking: Locking::Ignore,
    };
    let (cache, mirrors) = (args.source.cache()?, args.source.mirrors()?);
    let built = build::build(&definition, &Programs::read()?, &cache, &mirrors, &options)?;
    Ok(built.image)
}

fn promote(args: &PromoteArgs) -> Result<ExitCode> {
    let PromoteArgs { repository, version, channel, signing } = args;
    match signing.with(|signing| release::promote(repository, version, channel, signing))? {
        true => eprintln!("channel {channel} points to {version}"),
        false => {
            eprintln!("channel {channel} points to {version} already");
            return Ok(ExitCode::Nothing);
        }
    }
    Ok(ExitCode::Done)
}

fn withdraw(args: &WithdrawArgs) -> Result<ExitCode> {
    let WithdrawArgs { repository, version, signing } = args;
    let changed = signing.with(|signing| release::withdraw(repository, version, signing))?;
    if changed.is_empty() {
        eprintln!("{version} was withdrawn already");
        return Ok(ExitCode::Nothing);
    }
    for fallback in changed {
        let release::Fallback { channel, version: now, below } = fallback;
        match now {
            None => eprintln!("channel {channel} points to nothing now: hosts stay as they are"),
            Some(now) => eprintln!("channel {channel} points to {now}"),
        }
        if let Some(min) = below {
            eprintln!(
                "note: hosts that ran {version} accept nothing below {min}: publish a newer release"
            );
        }
    }
    Ok(ExitCode::Done)
}

fn gc(args: &GcArgs) -> Result<ExitCode> {
    let gone = args.signing.with(|s| release::collect(&args.repository, args.keep, s))?;
    if args.json {
        print_json(&gone)?;
    }
    if gone.files == 0 {
        eprintln!("nothing to remove");
        return Ok(ExitCode::Nothing);
    }
    for version in &gone.releases {
        eprintln!("removed release {version}");
    }
    eprintln!("removed {} files, {}", gone.files, bytes(gone.bytes));
    Ok(ExitCode::Done)
}
