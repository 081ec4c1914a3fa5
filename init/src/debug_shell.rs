//! A shell on the second serial line, in images that were built with one. Never in others: it needs
//! both the word on the kernel command line and the program in the verified root.

use crate::log;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use sys::process::{self, Pid, Spawn, Streams};

const SHELL: &str = "/usr/bin/busybox";
const LINE: &str = "/dev/ttyS1";
/// Between the end of a shell and the start of the next.
const PAUSE: Duration = Duration::from_secs(1);

/// The shell, or the wish for one.
#[derive(Debug)]
pub struct DebugShell {
    pid: Option<Pid>,
    next: Duration,
}

impl DebugShell {
    /// Starts nothing yet. `None` when the image has no shell or the machine no second line.
    pub fn new(asked_for: bool) -> Option<DebugShell> {
        let possible =
            asked_for && Path::new(SHELL).exists() && sys::terminal::open(Path::new(LINE)).is_ok();
        possible.then_some(DebugShell { pid: None, next: Duration::ZERO })
    }

    /// When [`DebugShell::advance`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.pid.is_none().then_some(self.next)
    }

    /// Starts the shell again when it has ended.
    pub fn advance(&mut self, now: Duration) {
        if self.pid.is_some_and(|pid| !process::exists(pid)) {
            self.pid = None;
            self.next = now + PAUSE;
        }
        if self.pid.is_some() || self.next > now {
            return;
        }
        self.next = now + PAUSE * 60;
        match start() {
            Ok(pid) => self.pid = Some(pid),
            Err(e) => log::warning(&format!("debug shell on {LINE}: {e}")),
        }
    }
}

fn start() -> std::io::Result<Pid> {
    let terminal = OwnedFd::from(sys::terminal::open(Path::new(LINE))?);
    let group = crate::cgroup::of_daemon("debug-shell").ok();
    let env = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/var/lib/berth/home"),
        ("TERM", "vt100"),
        ("PS1", "berth# "),
    ];
    process::spawn(&Spawn {
        program: Path::new(SHELL),
        args: &["sh".to_owned(), "-l".to_owned()],
        env: &env.map(|(key, value)| (key.to_owned(), value.to_owned())),
        directory: Path::new("/"),
        streams: Streams::Terminal(&terminal),
        cgroup: group.as_deref(),
        open_files: None,
        oom_score_adj: Some(0),
    })
}
