//! A machine on a person's terminal, or behind it.
//!
//! The console goes to standard output, words about it to standard error. Ctrl-C presses the
//! guest's power button, so that its containers stop and its filesystems are whole; a second one
//! pulls the plug. `SIGTERM` and `SIGHUP` do what Ctrl-C does.

use crate::accel;
use crate::config::{Config, Toolset};
use crate::console::{Line, Sink};
use crate::error::{Error, Result, Tail};
use crate::machine::{Machine, check_image};
use contract::console::Ready;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a guest may take to shut down. Its own limits for workloads and runtime are shorter.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// The power button is pressed again after this long: a guest that still boots may have missed it.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

/// How long the starting program of a detached machine watches it come up.
const WATCH: Duration = Duration::from_secs(300);

/// Names the folder of a detached machine to the process that stays with it.
const DETACHED: &str = "BERTH_RUN_DETACHED";

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off by itself.
    PoweredOff,
    /// The guest shut down because it was asked to.
    Stopped,
    /// The plug was pulled at the second Ctrl-C.
    Killed,
    /// The machine runs on, in this folder.
    Detached(PathBuf),
}

enum Event {
    Ready(Ready),
    Signal,
    End,
}

/// Starts a machine and stays with it until it ends.
///
/// With `detach` the calling program is started a second time, with the same arguments, to stay
/// with the machine in the background; it comes to this function again and then goes on.
pub fn run(tools: &Toolset, config: &Config, detach: bool) -> Result<Outcome> {
    match (detach, std::env::var_os(DETACHED)) {
        (false, _) => attached(tools, config, None),
        (true, None) => leave_behind(),
        (true, Some(dir)) => {
            // No longer of the terminal's session: closing it does not end the machine. Fails only
            // for one that already leads a session.
            let _ = rustix::process::setsid();
            attached(tools, config, Some(Path::new(&dir)))
        }
    }
}

/// The console on standard output, until the machine ends.
fn attached(tools: &Toolset, config: &Config, dir: Option<&Path>) -> Result<Outcome> {
    // Before the trial of an accelerator, which takes a while.
    check_image(&config.image)?;
    let accel = accel::detect(tools)?;
    eprintln!("berth: starting {} with {accel}", config.image.display());
    let (events, inbox) = channel();
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::io("catch", "signals"))?;
    let handle = signals.handle();
    let on_signal = events.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if on_signal.send(Event::Signal).is_err() {
                break;
            }
        }
    });
    let sink = Box::new(Terminal { events });
    let machine = Machine::start_with(tools, config, &accel, Some(sink));
    let outcome = machine.and_then(|machine| {
        if let Some(dir) = dir {
            write(&dir.join(PID), &format!("{}\n", std::process::id()))?;
        }
        stay(machine, &inbox, dir)
    });
    handle.close();
    outcome
}

/// Stays with a machine that was started.
fn stay(mut machine: Machine, inbox: &Receiver<Event>, dir: Option<&Path>) -> Result<Outcome> {
    let mut stopping: Option<Instant> = None;
    loop {
        let left = match stopping {
            Some(since) => SHUTDOWN.saturating_sub(since.elapsed()).min(PRESS_AGAIN),
            None => Duration::from_secs(3600),
        };
        match inbox.recv_timeout(left) {
            Ok(Event::Ready(ready)) => {
                let text = addresses(&machine, &ready);
                eprintln!("{text}");
                if let Some(dir) = dir {
                    write(&dir.join(READY), &text)?;
                }
            }
            Ok(Event::Signal) if stopping.is_some() => {
                machine.pull_plug();
                eprintln!("berth: killed");
                return Ok(Outcome::Killed);
            }
            Ok(Event::Signal) => {
                eprintln!(
                    "\nberth: shutting the guest down, for at most {} s; Ctrl-C again kills it",
                    SHUTDOWN.as_secs()
                );
                stopping = Some(Instant::now());
                machine.power_button()?;
            }
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => {
                let status = machine.wait_exit(Duration::from_secs(10))?;
                return match (status.success(), stopping) {
                    (true, Some(_)) => Ok(Outcome::Stopped),
                    (true, None) => Ok(Outcome::PoweredOff),
                    (false, _) => Err(machine.ended_before("running the machine")),
                };
            }
            Err(RecvTimeoutError::Timeout) if stopping.is_some_and(|s| s.elapsed() < SHUTDOWN) => {
                // It fails when the machine ends at this moment, of which an event tells.
                let _ = machine.power_button();
            }
            Err(RecvTimeoutError::Timeout) if stopping.is_some() => {
                return Err(Error::Late {
                    what: "shutting the guest down; it was killed".into(),
                    within: SHUTDOWN,
                    console: Tail::default(),
                });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// What answers where.
fn addresses(machine: &Machine, ready: &Ready) -> String {
    let mut text = format!("berth: {} {} is up", ready.runtime, ready.version);
    for port in machine.ports() {
        let (host, guest) = (port.host, port.guest);
        text += &format!("\nberth: http://127.0.0.1:{host} leads to port {guest} of the guest");
    }
    text
}

/// The console for a terminal; tells of the lines that matter.
struct Terminal {
    events: Sender<Event>,
}

impl Sink for Terminal {
    fn bytes(&mut self, bytes: &[u8]) {
        // Nobody reads any more: the machine goes on all the same.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    fn line(&mut self, line: &Line) {
        if let Ok(ready) = line.text.parse() {
            let _ = self.events.send(Event::Ready(ready));
        }
    }

    fn end(&mut self) {
        let _ = self.events.send(Event::End);
    }
}

/// Files in the folder of a detached machine.
const PID: &str = "pid";
const READY: &str = "ready";
const CONSOLE: &str = "console.log";

/// Starts this program again in the background and watches the machine come up.
fn leave_behind() -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("berth-run-").tempdir();
    let dir = dir.map_err(Error::io("create a folder in", std::env::temp_dir()))?.keep();
    let console = dir.join(CONSOLE);
    let out = File::create(&console).map_err(Error::io("create", &console))?;
    let err = out.try_clone().map_err(Error::io("open", &console))?;
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let mut child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, &dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|source| Error::Spawn { program: program.display().to_string(), source })?;

    let (pid, ready) = (dir.join(PID), dir.join(READY));
    eprintln!("berth: the console goes to {}", console.display());
    let end = Instant::now() + WATCH;
    while Instant::now() < end && !ready.exists() {
        let ended = crate::process::wait_within(&mut child, Duration::from_millis(100));
        if let Some(status) = ended.map_err(Error::io("wait for", &program))? {
            return Err(Error::Ended {
                what: "starting the machine in the background".into(),
                how: status.to_string(),
                console: Tail(tail_of(&console)),
            });
        }
    }
    match std::fs::read_to_string(&ready) {
        Ok(text) => eprintln!("{text}"),
        Err(_) => eprintln!("berth: not ready after {} s; it goes on", WATCH.as_secs()),
    }
    eprintln!("berth: shut it down with: kill $(cat {})", pid.display());
    Ok(Outcome::Detached(dir))
}

/// The last lines of a console's log.
fn tail_of(log: &Path) -> Vec<String> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let end = &bytes[bytes.len().saturating_sub(8192)..];
    let text = String::from_utf8_lossy(end);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(20)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Writes a small file as a whole: others wait for it to appear.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(Error::io("write", path))
}
