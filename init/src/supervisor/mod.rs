//! Children of PID 1: daemons that are kept running, tasks that run once, and orphans.
//!
//! One thread waits for everything: signals, `READY=1` of daemons (sd_notify(3)), what programs
//! print, and whatever files the caller adds. Whatever ends is reaped here and nowhere else.

pub mod back_off;
pub mod lifecycle;
pub mod output;

use crate::error::{Error, On};
use crate::{cgroup, log};
use lifecycle::{Do, Input, Lifecycle, Limits, State};
use output::Output;
pub use output::Target;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use sys::clock::since_boot;
use sys::poll;
use sys::process::{self, Exit, Pid, Reaped, Spawn, Streams};
use sys::signal::{Signal, SignalFd};

/// Folder of the sockets on which daemons say that they are ready.
const NOTIFY_DIR: &str = "/run/berth/notify";
/// Open files that a daemon may have, and its containers after it.
const OPEN_FILES: u64 = 1_048_576;
/// Notifications taken from one daemon in one go.
const MAX_NOTIFICATIONS: usize = 16;
/// A task that outlives SIGTERM for so long gets SIGKILL.
const TASK_GRACE: Duration = Duration::from_secs(10);
/// Even if a signal got lost, whatever ended is noticed after this time.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, besides PATH, HOME and the like.
    pub env: Vec<(String, String)>,
}

/// A daemon to keep running.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name of its control group, its lines in the log, and its socket.
    pub name: &'static str,
    /// What to run.
    pub program: Program,
    /// `oom_score_adj`.
    pub oom_score_adj: i16,
    /// How long it may take to start and to stop.
    pub limits: Limits,
    /// Where what it prints goes.
    pub target: Target,
}

/// Names a task that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(u64);

#[cfg(test)]
impl TaskId {
    /// A task that no supervisor knows.
    pub fn for_test(number: u64) -> TaskId {
        TaskId(number)
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: it was killed at its deadline.
    pub exit: Option<Exit>,
    /// The last lines that it printed.
    pub tail: Vec<String>,
}

impl Outcome {
    /// Whether it did what it was to do.
    pub fn is_success(&self) -> bool {
        self.exit.is_some_and(Exit::is_success)
    }

    /// What went wrong, in one line.
    pub fn reason(&self) -> String {
        let end = match self.exit {
            Some(exit) => exit.to_string(),
            None => "took too long".to_owned(),
        };
        match self.tail.last() {
            Some(line) => format!("{end}: {}", line.trim()),
            None => end,
        }
    }
}

/// Something that the caller wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A daemon serves, for the first time or again.
    Ready(&'static str),
    /// A daemon that was to be stopped has stopped.
    Stopped(&'static str),
    /// A task has ended.
    Done(TaskId, Outcome),
    /// Someone asks PID 1 for something.
    Signal(Signal),
}

#[derive(Debug)]
struct Daemon {
    service: Service,
    life: Lifecycle,
    pid: Option<Pid>,
    notify: UnixDatagram,
    /// What it last said of itself by `STATUS=`.
    status: String,
    output: Output,
}

#[derive(Debug)]
struct Task {
    pid: Pid,
    deadline: Duration,
    late: bool,
    output: Output,
}

/// All children of PID 1.
#[derive(Debug)]
pub struct Supervisor {
    signals: SignalFd,
    daemons: Vec<Daemon>,
    tasks: BTreeMap<TaskId, Task>,
    next_task: u64,
    childless: bool,
}

impl Supervisor {
    /// Blocks signals: to be called before a second thread exists.
    pub fn new() -> Result<Supervisor, Error> {
        fs::create_dir_all(NOTIFY_DIR).on("make", NOTIFY_DIR)?;
        let signals = SignalFd::open().on("listen to", "signals")?;
        Ok(Supervisor {
            signals,
            daemons: Vec::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            childless: false,
        })
    }

    /// Starts a daemon and keeps it running. [`Event::Ready`] follows.
    pub fn start(&mut self, service: Service) -> Result<(), Error> {
        let path = Path::new(NOTIFY_DIR).join(service.name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).on("remove", path.display());
            }
            _ => {}
        }
        let notify = UnixDatagram::bind(&path).on("bind", path.display())?;
        notify.set_nonblocking(true).on("set up", path.display())?;
        let output = Output::new(service.name, service.target).on("make", "a pipe")?;
        let life = Lifecycle::new(service.limits);
        self.daemons.push(Daemon {
            service,
            life,
            pid: None,
            notify,
            status: String::new(),
            output,
        });
        let last = self.daemons.len() - 1;
        self.daemons[last].step(Input::Start, &mut Vec::new());
        Ok(())
    }

    /// Asks a daemon to stop; [`Event::Stopped`] follows, sooner or later.
    pub fn stop(&mut self, name: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for daemon in self.daemons.iter_mut().filter(|d| d.service.name == name) {
            daemon.step(Input::Stop, &mut events);
        }
        events
    }

    /// Whether a daemon of this name was ever started.
    pub fn knows(&self, name: &str) -> bool {
        self.daemons.iter().any(|d| d.service.name == name)
    }

    /// Whether no process is left but this one.
    pub fn is_childless(&self) -> bool {
        self.childless
    }

    /// Whether a daemon serves.
    pub fn is_ready(&self, name: &str) -> bool {
        let mut daemons = self.daemons.iter().filter(|d| d.service.name == name);
        daemons.any(|d| matches!(d.life.state(), State::Ready { .. }))
    }

    /// What a daemon last said of itself.
    pub fn status(&self, name: &str) -> &str {
        let daemon = self.daemons.iter().find(|d| d.service.name == name);
        daemon.map_or("", |daemon| &daemon.status)
    }

    /// Whether a daemon is neither running nor to be started.
    pub fn is_stopped(&self, name: &str) -> bool {
        let mut daemons = self.daemons.iter().filter(|d| d.service.name == name);
        daemons.all(|d| d.life.state() == State::Stopped)
    }

    /// Tells a daemon to read its configuration again.
    pub fn reload(&self, name: &str) -> io::Result<()> {
        let daemon = self.daemons.iter().find(|d| d.service.name == name);
        match daemon.and_then(|d| d.pid) {
            Some(pid) => process::hang_up(pid),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Runs a program once, for at most `within`; [`Event::Done`] follows. What it prints stands in the
    /// log of this boot under `name`.
    pub fn run(
        &mut self,
        name: &str,
        program: &Program,
        within: Duration,
    ) -> Result<TaskId, Error> {
        let output = Output::new(name, Target::Log).on("make", "a pipe")?;
        let group = cgroup::of_daemon("tasks")?;
        let pid = spawn(program, &[], output.writer(), &group, 0)?;
        let id = TaskId(self.next_task);
        self.next_task += 1;
        let deadline = since_boot() + within;
        self.tasks.insert(id, Task { pid, deadline, late: false, output });
        Ok(id)
    }

    /// Waits until something happens, at the latest `until`, and does what is due. Returns what
    /// happened to children, and for each of `files` whether it can be read.
    pub fn wait(
        &mut self,
        files: &[BorrowedFd<'_>],
        until: Option<Duration>,
    ) -> Result<(Vec<Event>, Vec<bool>), Error> {
        let now = since_boot();
        let deadlines = self.daemons.iter().filter_map(|d| d.life.deadline());
        let deadlines = deadlines.chain(self.tasks.values().map(|t| t.deadline)).chain(until);
        let until = deadlines.min().unwrap_or(Duration::MAX);
        let timeout = until.saturating_sub(now).min(LONGEST_WAIT);

        let mut all = files.to_vec();
        all.push(self.signals.as_fd());
        for daemon in &self.daemons {
            all.push(daemon.notify.as_fd());
            all.push(daemon.output.as_fd());
        }
        all.extend(self.tasks.values().map(|task| task.output.as_fd()));
        let mut readable = poll::readable(&all, Some(timeout)).on("wait for", "events")?;
        readable.truncate(files.len());

        let mut events = Vec::new();
        while let Some(signal) = self.signals.read().on("read", "signals")? {
            if signal != Signal::Child {
                events.push(Event::Signal(signal));
            }
        }
        for daemon in &mut self.daemons {
            daemon.output.drain();
            daemon.take_notifications(&mut events);
        }
        for task in self.tasks.values_mut() {
            task.output.drain();
        }
        self.reap(&mut events)?;
        for daemon in &mut self.daemons {
            daemon.step(Input::Tick, &mut events);
        }
        for task in self.tasks.values_mut() {
            task.tick(since_boot());
        }
        Ok((events, readable))
    }

    fn reap(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        loop {
            match process::reap().on("reap", "children")? {
                Reaped::Child(pid, exit) => self.ended(pid, exit, events),
                rest => {
                    self.childless = rest == Reaped::NoChildren;
                    return Ok(());
                }
            }
        }
    }

    fn ended(&mut self, pid: Pid, exit: Exit, events: &mut Vec<Event>) {
        if let Some(daemon) = self.daemons.iter_mut().find(|d| d.pid == Some(pid)) {
            daemon.pid = None;
            daemon.said_end(&exit.to_string());
            daemon.step(Input::Ended, events);
        }
        let task = self.tasks.iter().find(|(_, task)| task.pid == pid).map(|(id, _)| *id);
        if let Some((id, mut task)) = task.and_then(|id| self.tasks.remove_entry(&id)) {
            let exit = (!task.late).then_some(exit);
            events.push(Event::Done(id, Outcome { exit, tail: task.output.take_tail() }));
        }
    }
}

impl Daemon {
    fn step(&mut self, input: Input, events: &mut Vec<Event>) {
        let name = self.service.name;
        match self.life.step(since_boot(), input) {
            None => {}
            Some(Do::Spawn) => self.spawn(events),
            Some(Do::Terminate) => self.signal(process::terminate),
            Some(Do::Kill) => {
                log::warning(&format!("{name} does not end and is killed"));
                self.signal(process::kill);
            }
            Some(Do::TellLate) => {
                let seconds = self.service.limits.ready.as_secs();
                log::warning(&format!("{name} is not ready after {seconds} s and starts again"));
                self.show_tail();
                self.signal(process::terminate);
            }
            Some(Do::TellReady) => events.push(Event::Ready(name)),
            Some(Do::TellStopped) => events.push(Event::Stopped(name)),
            // Said with the exit code, in `said_end`.
            Some(Do::TellDied) => {}
        }
    }

    fn spawn(&mut self, events: &mut Vec<Event>) {
        // What a predecessor sent must not count for this one.
        let mut buffer = [0; 1];
        while self.notify.recv(&mut buffer).is_ok() {}
        let name = self.service.name;
        let socket = Path::new(NOTIFY_DIR).join(name).display().to_string();
        let env = [("NOTIFY_SOCKET".to_owned(), socket)];
        let spawned = cgroup::of_daemon(name).and_then(|group| {
            let service = &self.service;
            spawn(&service.program, &env, self.output.writer(), &group, service.oom_score_adj)
        });
        match spawned {
            Ok(pid) => self.pid = Some(pid),
            Err(e) => {
                log::warning(&crate::error::chain(&e));
                self.step(Input::Ended, events);
            }
        }
    }

    fn signal(&self, send: impl Fn(Pid) -> io::Result<()>) {
        // A pid that was not reaped yet is still the daemon's own.
        if let Some(pid) = self.pid
            && let Err(e) = send(pid)
        {
            log::warning(&format!("signal {}: {e}", self.service.name));
        }
    }

    fn take_notifications(&mut self, events: &mut Vec<Event>) {
        let mut buffer = [0; 4096];
        for _ in 0..MAX_NOTIFICATIONS {
            let Ok(n) = self.notify.recv(&mut buffer) else { return };
            if let Some(status) = says(&buffer[..n], "STATUS=") {
                self.status = log::printable(&String::from_utf8_lossy(status));
            }
            if says(&buffer[..n], "READY=") == Some(b"1") {
                self.step(Input::Ready, events);
            }
        }
    }

    /// Says on the console that the daemon ended, unless it was asked to.
    fn said_end(&mut self, how: &str) {
        if matches!(self.life.state(), State::Starting { .. } | State::Ready { .. }) {
            log::warning(&format!("{} ended ({how}) and starts again", self.service.name));
            self.show_tail();
        }
    }

    fn show_tail(&mut self) {
        let tail = self.output.take_tail();
        if self.service.target == Target::Console {
            return;
        }
        for line in tail {
            log::line(&format!("{}: {line}", self.service.name));
        }
    }
}

impl Task {
    fn tick(&mut self, now: Duration) {
        if self.deadline > now {
            return;
        }
        // Its session is its own: helpers that it started go with it.
        let sent = match self.late {
            false => process::terminate(self.pid),
            true => process::kill_group(self.pid),
        };
        if let Err(e) = sent {
            log::warning(&format!("end process {}: {e}", self.pid));
        }
        self.late = true;
        self.deadline = now + TASK_GRACE;
    }
}

fn spawn(
    program: &Program,
    env: &[(String, String)],
    output: &std::os::fd::OwnedFd,
    group: &Path,
    oom_score_adj: i16,
) -> Result<Pid, Error> {
    let mut all: Vec<(String, String)> = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/var/lib/berth/home"),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    all.extend_from_slice(&program.env);
    all.extend_from_slice(env);
    process::spawn(&Spawn {
        program: &program.path,
        args: &program.args,
        env: &all,
        directory: Path::new("/"),
        streams: Streams::Output(output),
        cgroup: Some(group),
        open_files: Some(OPEN_FILES),
        oom_score_adj: Some(oom_score_adj),
    })
    .on("start", program.path.display())
}

/// What a notification says behind `key` at the beginning of a line.
fn says<'a>(message: &'a [u8], key: &str) -> Option<&'a [u8]> {
    message.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_a_line_of_its_own() {
        for (message, expected) in [
            (&b"READY=1"[..], Some(&b"1"[..])),
            (b"STATUS=up\nREADY=1\n", Some(b"1")),
            (b"READY=0", Some(b"0")),
            (b"X_READY=1", None),
            (b"", None),
        ] {
            assert_eq!(says(message, "READY="), expected, "{message:?}");
        }
    }

    #[test]
    fn an_outcome_tells_how_and_the_last_words() {
        let outcome = |exit, tail: &[&str]| Outcome {
            exit,
            tail: tail.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(outcome(Some(Exit::Code(1)), &["a", "b "]).reason(), "exit code 1: b");
        assert_eq!(outcome(None, &[]).reason(), "took too long");
        assert!(outcome(Some(Exit::Code(0)), &[]).is_success());
        assert!(!outcome(None, &[]).is_success());
    }
}
