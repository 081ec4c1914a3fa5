//! `berth-updater`: the agent that `init` starts, and its command line.

use clap::{Parser, Subcommand};
use contract::update_status::{Event, Request, Response, SOCKET, State, Status};
use jiff::Timestamp;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use updater::agent::Agent;
use updater::disk::Disk;
use updater::socket;
use updater::store::FOLDER;
use updater::world::{self, RealWorld, Surroundings};

/// Updates this host, and says how it stands.
#[derive(Debug, Parser)]
#[command(name = "berth-updater", version, max_term_width = 100)]
struct Cli {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent. `init` does that.
    Agent,
    /// What runs, what the other slot holds, where an update stands.
    Status,
    /// Look at the repository now, without installing anything.
    Check,
    /// Install what the channel names, or another release, and restart into it.
    Apply {
        /// This release instead of the channel's.
        version: Option<String>,
        /// Also a release that failed here before.
        #[arg(long)]
        force: bool,
        /// Leave the restart to someone else.
        #[arg(long)]
        no_reboot: bool,
    },
    /// Go back to the other slot's system.
    Rollback {
        /// Leave the restart to someone else.
        #[arg(long)]
        no_reboot: bool,
    },
    /// Stay with a release, by default the running one, whatever the channel says.
    Pin {
        /// Another release.
        version: Option<String>,
    },
    /// Follow the channel again.
    Unpin,
    /// Check the record and both slots now, and repair what has rotted.
    Verify,
    /// Every change of slots, oldest first.
    History {
        /// With the reason of each.
        #[arg(long)]
        why: bool,
    },
}

/// How the process ends.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Exit {
    Done = 0,
    Failed = 1,
    Refused = 3,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match &cli.command {
        Command::Agent => agent(),
        command => ask(command, cli.json),
    };
    ExitCode::from(exit as u8)
}

fn error(text: &str, hint: Option<&str>) -> Exit {
    eprintln!("error: {text}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    Exit::Failed
}

fn agent() -> Exit {
    let surroundings = match Surroundings::read() {
        Ok(surroundings) => surroundings,
        Err(why) => return error(&why, None),
    };
    let Surroundings { handover, host, config } = surroundings;
    let Some(running) = handover.slot else {
        return error(
            "this system was started without the slot picker; nothing can be updated",
            None,
        );
    };
    let disk = match Disk::open(&handover.devices) {
        Ok(disk) => disk,
        Err(e) => return error(&updater::agent::chain(&e), None),
    };
    let listener = match socket::listen(Path::new(SOCKET)) {
        Ok(listener) => listener,
        Err(e) => return error(&format!("listen at {SOCKET}: {e}"), None),
    };
    let real = Box::new(RealWorld { config: config.clone() });
    let agent = Arc::new(Agent::new(disk, running, host, config, Path::new(FOLDER), real));
    let answering = agent.clone();
    std::thread::spawn(move || socket::serve(&listener, &|request| answering.answer(request)));
    if let Err(e) = world::notify_ready() {
        eprintln!("warning: tell init that the updater is ready: {e}");
    }
    agent.run()
}

fn ask(command: &Command, json: bool) -> Exit {
    let request = match command {
        Command::Agent | Command::Status => Request::Status,
        Command::Check => Request::Check,
        Command::Apply { version, force, no_reboot } => {
            Request::Apply { version: version.clone(), force: *force, no_reboot: *no_reboot }
        }
        Command::Rollback { no_reboot } => Request::Rollback { no_reboot: *no_reboot },
        Command::Pin { version } => Request::Pin { version: version.clone() },
        Command::Unpin => Request::Unpin,
        Command::Verify => Request::Verify,
        Command::History { .. } => Request::History,
    };
    let response = match socket::ask(Path::new(SOCKET), &request) {
        Ok(response) => response,
        Err(e) => {
            let hint = "it runs on a Berth host, as root; is the updater running?";
            return error(&format!("ask the updater at {SOCKET}: {e}"), Some(hint));
        }
    };
    let exit = match &response {
        Response::Status(_) | Response::Done { .. } | Response::History { .. } => Exit::Done,
        Response::Refused { .. } => Exit::Refused,
        Response::Failed { .. } => Exit::Failed,
    };
    if json {
        match serde_json::to_string_pretty(&response) {
            Ok(text) => println!("{text}"),
            Err(e) => return error(&format!("print the answer: {e}"), None),
        }
        return exit;
    }
    match response {
        Response::Status(status) => print_status(&status),
        Response::Done { text } => println!("{text}"),
        Response::History { events } => {
            let why = matches!(command, Command::History { why: true });
            events.iter().for_each(|event| print_event(event, why));
        }
        Response::Refused { why } => println!("{why}"),
        Response::Failed { why } => {
            return error(&why, None);
        }
    }
    exit
}

fn print_status(status: &Status) {
    println!("running   {} in slot {}", status.version, status.slot);
    println!("other     {}", status.other);
    let state = &status.state;
    match (status.progress, state) {
        (Some((done, all)), State::Downloading { .. }) if all > 0 => println!(
            "update    {state}, {} % written, {} bytes downloaded",
            done * 100 / all,
            status.downloaded
        ),
        _ => println!("update    {state}"),
    }
    let offered = status.offered.as_deref().unwrap_or("nothing");
    let checked = status.checked.map_or("never".to_owned(), time);
    println!("channel   {} names {offered}, looked at {checked}", status.channel);
    if let Some(pinned) = &status.pinned {
        println!("pinned    {pinned}");
    }
    if let Some(problem) = &status.problem {
        println!("problem   {problem}");
    }
    status.warnings.iter().for_each(|warning| println!("warning   {warning}"));
}

fn print_event(event: &Event, why: bool) {
    let slot = event.slot.as_deref().unwrap_or("-");
    let version = if event.version.is_empty() { "-" } else { &event.version };
    match why {
        false => println!("{}  {slot}  {version}  {}", time(event.time), event.what),
        true => {
            println!("{}  {slot}  {version}  {}: {}", time(event.time), event.what, event.why);
            event.console.iter().for_each(|line| println!("    | {line}"));
        }
    }
}

/// `2026-11-22T02:30:00Z`.
fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.to_string())
}
