//! A running guest.

use crate::accel::{self, Accel};
use crate::config::{Config, PortForward, Toolset};
use crate::console::{Console, Line, Sink, Waited};
use crate::error::{Error, Result, Tail};
use crate::orphan::Watcher;
use crate::qmp::Qmp;
use crate::shell::{Failure, Output, Shell};
use crate::{command, http, port, process};
use contract::console::Ready;
use contract::gpt::SECTOR_SIZES;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// QEMU opens its sockets within a second, or on a busy machine within some.
const START: Duration = Duration::from_secs(30);

/// What QEMU says when it cannot listen on a port of this machine.
const LOST_PORT: &str = "host forwarding rule";

/// Lines of the console shown with an error.
const TAIL: usize = 40;

/// A guest that runs in QEMU. Dropping it is pulling the plug.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    watcher: Option<Watcher>,
    ended: Option<ExitStatus>,
    accel: Accel,
    ports: Vec<PortForward>,
    console: Console,
    /// Lines of the console before this one have been looked at.
    seen: usize,
    control: Qmp,
    shell: Option<Shell>,
    started: Instant,
    /// Holds the firmware's variables and the sockets.
    _files: tempfile::TempDir,
}

impl Machine {
    /// Starts a machine and returns while its firmware still looks for the disk.
    pub fn start(tools: &Toolset, config: &Config) -> Result<Machine> {
        let accel = accel::detect(tools)?;
        let any_port = config.ports.iter().any(|port| port.host == 0);
        for _ in 0..3 {
            match Machine::start_with(tools, config, &accel, None) {
                // Another program took a port between our choice and QEMU's start.
                Err(Error::Refused { message }) if any_port && message.contains(LOST_PORT) => {}
                result => return result,
            }
        }
        Machine::start_with(tools, config, &accel, None)
    }

    /// The same, with an accelerator that was found before and something to do with the console.
    pub fn start_with(
        tools: &Toolset,
        config: &Config,
        accel: &Accel,
        sink: Option<Box<dyn Sink>>,
    ) -> Result<Machine> {
        let sector_size = check_image(&config.image)?;
        if let Some(file) = &config.host_config {
            File::open(file).map_err(Error::io("read", file))?;
        }
        let files = runtime_dir()?;
        let in_dir = |name: &str| files.path().join(name);
        let runtime = command::Runtime {
            vars: in_dir("vars.fd"),
            control: in_dir("qmp"),
            shell: in_dir("shell"),
            sector_size,
            ports: port::settle(&config.ports)?,
        };
        copy_writable(&tools.ovmf_vars, &runtime.vars)?;
        File::open(&tools.ovmf_code).map_err(Error::io("read", &tools.ovmf_code))?;
        let log = match &config.console_log {
            Some(file) => {
                let open = File::options().create(true).append(true).open(file);
                Some(open.map_err(Error::io("write", file))?)
            }
            None => None,
        };
        let errors = in_dir("stderr");
        let stderr = File::create(&errors).map_err(Error::io("create", &errors))?;

        let args = command::arguments(tools, accel.accelerator, config, &runtime);
        let started = Instant::now();
        let mut child = Command::new(&args[0])
            .args(&args[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C at the terminal is for us: the guest is to be shut down in order.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: args[0].to_string_lossy().into_owned(),
                source,
            })?;
        let watcher = Watcher::over(child.id());
        let stdout = child.stdout.take().expect("stdout is piped");
        let console = Console::capture(stdout, started, sink, log);

        let connected = connect(&mut child, &runtime.control).and_then(|control| {
            let shell = match config.debug_console {
                true => Some(Shell::new(connect(&mut child, &runtime.shell)?)),
                false => None,
            };
            Ok((Qmp::greet(control)?, shell))
        });
        let (control, shell) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                process::kill(&mut child);
                drop(watcher);
                return Err(explain(error, &errors, config));
            }
        };
        Ok(Machine {
            child,
            watcher: Some(watcher),
            ended: None,
            accel: accel.clone(),
            ports: runtime.ports,
            console,
            seen: 0,
            control,
            shell,
            started,
            _files: files,
        })
    }

    /// How the guest is run.
    pub fn accel(&self) -> &Accel {
        &self.accel
    }

    /// The process of QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The ports that answer on 127.0.0.1.
    pub fn ports(&self) -> &[PortForward] {
        &self.ports
    }

    /// The port of this machine that leads to a port of the guest.
    pub fn port(&self, guest: u16) -> Result<u16> {
        let found = self.ports.iter().find(|port| port.guest == guest);
        found.map(|port| port.host).ok_or(Error::Absent { what: "no such port is forwarded" })
    }

    /// Everything on the console so far.
    pub fn console(&self) -> Vec<Line> {
        self.console.lines()
    }

    /// Waits for a line that `pick` gives a value for. Each line is looked at once: after a reboot
    /// the next call finds the next line of that kind. `what` names it in the error.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        within: Duration,
        pick: impl FnMut(&Line) -> Option<T>,
    ) -> Result<T> {
        match self.console.wait(&mut self.seen, within, pick) {
            Waited::Found(value) => Ok(value),
            Waited::Late => Err(self.late(what, within)),
            Waited::Ended => Err(self.ended_before(what)),
        }
    }

    /// Waits for a line that contains `text`.
    pub fn wait_for_line(&mut self, text: &str, within: Duration) -> Result<Line> {
        let what = format!("a line with `{text}`");
        self.wait_for(&what, within, |line| line.text.contains(text).then(|| line.clone()))
    }

    /// Waits until everything that was asked of the host runs.
    pub fn wait_ready(&mut self, within: Duration) -> Result<Ready> {
        self.wait_for("`berth: ready`", within, |line| line.text.parse().ok())
    }

    /// Looks past all lines so far, so that only later ones are waited for.
    pub fn skip_console(&mut self) {
        while let Waited::Found(()) =
            self.console.wait(&mut self.seen, Duration::ZERO, |_| Some(()))
        {}
    }

    /// Presses the power button: a host shuts down in order.
    pub fn power_button(&mut self) -> Result<()> {
        self.control.execute("system_powerdown", json!({})).map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<()> {
        self.control.execute("system_reset", json!({})).map(drop)
    }

    /// `running`, `paused`, `shutdown`... as QEMU says.
    pub fn status(&mut self) -> Result<String> {
        let answer = self.control.execute("query-status", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Any other command of QEMU's control protocol.
    pub fn control(
        &mut self,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value> {
        self.control.execute(command, arguments)
    }

    /// Waits until QEMU ends, as it does when the guest powers off.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let ended = process::wait_within(&mut self.child, within);
        match ended.map_err(Error::io("wait for", "qemu"))? {
            Some(status) => {
                self.watcher = None;
                self.ended = Some(status);
                Ok(status)
            }
            None => Err(self.late("the end of the machine", within)),
        }
    }

    /// Cuts the power: nothing that the guest has not written yet will be. What that leaves on the
    /// disk is described at [`Config`].
    pub fn pull_plug(&mut self) {
        if self.ended.is_none() {
            process::kill(&mut self.child);
            self.watcher = None;
            self.ended = self.child.try_wait().ok().flatten();
        }
    }

    /// Runs a command in the debug shell of an image that has one, in a subshell of its own.
    pub fn shell(&mut self, command: &str, within: Duration) -> Result<Output> {
        let what = "the machine was started without a debug console";
        let shell = self.shell.as_mut().ok_or(Error::Absent { what })?;
        let failure = match shell.run(command, within) {
            Ok(output) => return Ok(output),
            Err(failure) => failure,
        };
        let what = format!("debug shell: `{command}`");
        Err(match failure {
            Failure::Late(partial) if partial.trim().is_empty() => self.late(&what, within),
            Failure::Late(partial) => self.late(&format!("{what} (so far: {partial:?})"), within),
            Failure::Closed => self.ended_before(&what),
            Failure::TooMuch => {
                Error::Absent { what: "debug shell: the output is larger than 16 MiB" }
            }
        })
    }

    /// Asks a port of the guest for a page until an answer comes.
    pub fn http_get(
        &self,
        guest_port: u16,
        path: &str,
        within: Duration,
    ) -> Result<http::Response> {
        http::get(self.port(guest_port)?, path, within)
    }

    fn late(&self, what: &str, within: Duration) -> Error {
        Error::Late { what: what.to_owned(), within, console: Tail(self.console.tail(TAIL)) }
    }

    pub(crate) fn ended_before(&mut self, what: &str) -> Error {
        // The console ends a moment before the process does.
        let ended = self.wait_exit(Duration::from_secs(5));
        let how = ended.map_or_else(|_| "its console is closed".into(), describe);
        let errors = self._files.path().join("stderr");
        let how = match last_words(&errors) {
            said if said.is_empty() => how,
            said => format!("{how}: {said}"),
        };
        Error::Ended { what: what.to_owned(), how, console: Tail(self.console.tail(TAIL)) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.pull_plug();
    }
}

/// A folder for sockets, whose paths may have no more than 107 bytes.
fn runtime_dir() -> Result<tempfile::TempDir> {
    let parent = std::env::temp_dir();
    let parent = if parent.as_os_str().len() > 80 { Path::new("/tmp") } else { &parent };
    let made = tempfile::Builder::new().prefix("berth-vm-").tempdir_in(parent);
    made.map_err(Error::io("create a folder in", parent))
}

/// The firmware's variables, writable even if their source is not.
fn copy_writable(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).map_err(Error::io("read", from))?;
    std::fs::write(to, bytes).map_err(Error::io("write", to))
}

/// Refuses what is certainly not a disk image, before the firmware does so without words. Returns
/// the sector size that its partition table is made for.
pub(crate) fn check_image(path: &Path) -> Result<u32> {
    let refused = |why| Err(Error::NotAnImage { path: path.to_owned(), why });
    let mut file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return refused("there is no such file"),
        other => other.map_err(Error::io("read", path))?,
    };
    let kind = file.metadata().map_err(Error::io("read", path))?.file_type();
    if kind.is_dir() {
        return refused("it is a folder");
    }
    // The partition table's header stands in the second sector, of 512 or 4096 bytes.
    let mut start = Vec::new();
    file.by_ref().take(8192).read_to_end(&mut start).map_err(Error::io("read", path))?;
    let found = SECTOR_SIZES.into_iter().find(|&size| {
        let at = size as usize;
        start.get(at..at + 8) == Some(b"EFI PART")
    });
    match found {
        Some(size) => Ok(size as u32),
        None => refused("it has no GPT partition table"),
    }
}

/// Connects to a socket that QEMU is about to open.
fn connect(child: &mut Child, socket: &Path) -> Result<UnixStream> {
    let end = Instant::now() + START;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(Error::io("connect to", socket)(error)),
        }
        // Waiting for its end is waiting for the next attempt.
        let ended = process::wait_within(child, Duration::from_millis(10));
        if let Some(status) = ended.map_err(Error::io("wait for", "qemu"))? {
            return Err(Error::Refused { message: describe(status) });
        }
        if Instant::now() >= end {
            return Err(Error::Refused { message: "it does not open its control socket".into() });
        }
    }
}

/// A failed start, in the words that QEMU left.
fn explain(error: Error, errors: &Path, config: &Config) -> Error {
    let said = last_words(errors);
    if said.contains("Failed to get") && said.contains("lock") {
        return Error::ImageInUse { path: config.image.clone() };
    }
    match error {
        Error::Refused { message } if said.is_empty() => Error::Refused { message },
        Error::Refused { .. } | Error::Control { .. } if !said.is_empty() => {
            Error::Refused { message: said }
        }
        other => other,
    }
}

/// The end of what QEMU wrote to its standard error, without warnings.
fn last_words(errors: &Path) -> String {
    let bytes = std::fs::read(errors).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4096)..]).into_owned();
    let lines = text.lines().filter(|line| !line.contains("warning:") && !line.trim().is_empty());
    let lines: Vec<&str> = lines
        .map(|line| line.rsplit_once("qemu-system-x86_64: ").map_or(line, |(_, rest)| rest))
        .collect();
    lines.join("; ")
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("QEMU ended with status {code}"),
        (None, Some(signal)) => format!("QEMU was killed by signal {signal}"),
        (None, None) => "QEMU ended".into(),
    }
}
