//! Starting, signalling and reaping processes.
//!
//! PID 1 reaps whatever ends, its own children and orphans alike, in one place: nothing here waits
//! for a particular process.

use rustix::process::{Pid as RawPid, Signal, WaitOptions};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pid(RawPid);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.as_raw_nonzero())
    }
}

impl Pid {
    /// The process with this number, if it can be one.
    pub fn from_raw(raw: i32) -> Option<Pid> {
        RawPid::from_raw(raw).map(Pid)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with exit code 0.
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Where a new process reads and writes.
#[derive(Debug)]
pub enum Streams<'a> {
    /// Standard output and error into this file, nothing to read.
    Output(&'a OwnedFd),
    /// All three on this terminal, which becomes the controlling terminal.
    Terminal(&'a OwnedFd),
}

/// What to start, and as what.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program's path.
    pub program: &'a Path,
    /// Its arguments, without its own name.
    pub args: &'a [String],
    /// Its whole environment.
    pub env: &'a [(String, String)],
    /// Working directory.
    pub directory: &'a Path,
    /// Standard streams.
    pub streams: Streams<'a>,
    /// Directory of the control group to start in.
    pub cgroup: Option<&'a Path>,
    /// Limit of open files, soft and hard.
    pub open_files: Option<u64>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i16>,
}

/// Starts a process in a session of its own, with no signal blocked.
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<Pid> {
    let mut command = Command::new(spawn.program);
    command
        .args(spawn.args)
        .env_clear()
        .envs(spawn.env.iter().map(|(key, value)| (OsStr::new(key), OsStr::new(value))))
        .current_dir(spawn.directory);
    let terminal = match &spawn.streams {
        Streams::Output(fd) => {
            command.stdin(Stdio::null());
            command.stdout(fd.try_clone()?).stderr(fd.try_clone()?);
            false
        }
        Streams::Terminal(fd) => {
            command.stdin(fd.try_clone()?);
            command.stdout(fd.try_clone()?).stderr(fd.try_clone()?);
            true
        }
    };
    let cgroup = match spawn.cgroup {
        Some(path) => Some(OpenOptions::new().write(true).open(path.join("cgroup.procs"))?),
        None => None,
    };
    let oom = spawn.oom_score_adj.map(|value| value.to_string());
    let open_files = spawn.open_files;
    let prepare = move || {
        if let Some(procs) = &cgroup {
            write_all(procs.as_raw_fd(), b"0")?;
        }
        if let Some(score) = &oom {
            // SAFETY: open and close are async-signal-safe; the path ends with a NUL.
            unsafe {
                let path = c"/proc/self/oom_score_adj";
                let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if fd < 0 {
                    return Err(io::Error::last_os_error());
                }
                let written = write_all(fd, score.as_bytes());
                libc::close(fd);
                written?;
            }
        }
        // SAFETY: setsid, the signal functions, setrlimit and ioctl are async-signal-safe and get
        // valid arguments; sigemptyset initializes the set.
        unsafe {
            // PID 1 blocks what it reads by signalfd, and the mask outlives exec: a program that
            // does not change it would never get SIGTERM, nor would the containers below it.
            let mut none = std::mem::MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            if libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            if let Some(n) = open_files {
                let limit = libc::rlimit { rlim_cur: n, rlim_max: n };
                if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `prepare` makes only system calls: it neither allocates nor takes a lock, so it may
    // run between fork and exec even though other threads exist.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn()?;
    let raw = i32::try_from(child.id()).map_err(io::Error::other)?;
    Pid::from_raw(raw).ok_or_else(|| io::Error::other("process number out of range"))
}

fn write_all(fd: libc::c_int, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: `bytes` is readable for its length, and write is async-signal-safe.
    match unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } {
        n if n == bytes.len() as isize => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reaps one child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This one.
    Child(Pid, Exit),
    /// There are children, and none has ended.
    NoneEnded,
    /// There are no children at all.
    NoChildren,
}

/// Reaps any child that has ended, orphans included, without waiting.
pub fn reap() -> io::Result<Reaped> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(None) => return Ok(Reaped::NoneEnded),
            Ok(Some((pid, status))) => {
                let exit = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => continue,
                };
                return Ok(Reaped::Child(Pid(pid), exit));
            }
            Err(rustix::io::Errno::CHILD) => return Ok(Reaped::NoChildren),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Asks a child that was not reaped yet to end, reload or die.
pub fn terminate(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid.0, Signal::TERM)?)
}

/// SIGTERM to PID 1, which on a Berth host means: restart in order.
pub fn terminate_init() -> io::Result<()> {
    Ok(rustix::process::kill_process(rustix::process::Pid::INIT, Signal::TERM)?)
}

/// SIGHUP, which daemons take as "read your configuration again".
pub fn hang_up(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid.0, Signal::HUP)?)
}

/// SIGKILL.
pub fn kill(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid.0, Signal::KILL)?)
}

/// SIGKILL to a child and everything in the session that it leads.
pub fn kill_group(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process_group(pid.0, Signal::KILL)?)
}

/// Whether a child that was not reaped yet, or any other process with its number, is there.
pub fn exists(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid.0).is_ok()
}

/// SIGTERM to every process but this one, SIGHUP for interactive shells, which ignore the former,
/// and SIGCONT for those that were stopped. Only PID 1 may do so.
pub fn terminate_all() -> io::Result<()> {
    [libc::SIGTERM, libc::SIGHUP, libc::SIGCONT].into_iter().try_for_each(signal_all)
}

/// SIGKILL to every process but this one. Only PID 1 may do so.
pub fn kill_all() -> io::Result<()> {
    signal_all(libc::SIGKILL)
}

fn signal_all(signal: libc::c_int) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not PID 1"));
    }
    // SAFETY: kill takes no pointers.
    match unsafe { libc::kill(-1, signal) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            e => Err(e),
        },
    }
}

/// A pipe: reading end, which does not block, and writing end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    crate::poll::set_nonblocking(std::os::fd::AsFd::as_fd(&read))?;
    Ok((read, write))
}

/// Sets the kernel's host name.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn a_child_gets_its_own_session_streams_and_limits() {
        let (read, write) = pipe().expect("pipe");
        // This thread blocks signals from here on, as PID 1 does.
        let _signals = crate::signal::SignalFd::open().expect("signalfd");
        let show = "ulimit -n; echo $KEY; /bin/grep SigBlk /proc/self/status; exit 3";
        let args = ["-c".into(), show.into()];
        let pid = spawn(&Spawn {
            program: Path::new("/bin/sh"),
            args: &args,
            env: &[("KEY".into(), "value".into())],
            directory: Path::new("/"),
            streams: Streams::Output(&write),
            cgroup: None,
            open_files: Some(64),
            oom_score_adj: Some(1000),
        })
        .expect("spawn");
        // Not `reap`: other tests of this process have children of their own.
        let (_, status) = rustix::process::waitpid(Some(pid.0), WaitOptions::empty())
            .expect("wait")
            .expect("ended");
        assert_eq!(status.exit_status(), Some(3));
        drop(write);
        assert_eq!(read_all(read), "64\nvalue\nSigBlk:\t0000000000000000\n");
    }

    /// What is written until nobody holds the other end. A child that another thread is starting
    /// holds a copy of it until it runs its program, so the end may come later than our own drop.
    fn read_all(pipe: OwnedFd) -> String {
        let mut pipe = std::fs::File::from(pipe);
        let (mut bytes, mut block) = (Vec::new(), [0; 256]);
        loop {
            let ready = crate::poll::readable(&[pipe.as_fd()], Some(Duration::from_secs(10)));
            assert_eq!(ready.expect("poll"), [true], "the pipe was not closed within 10 s");
            match pipe.read(&mut block).expect("output") {
                0 => return String::from_utf8(bytes).expect("text"),
                n => bytes.extend_from_slice(&block[..n]),
            }
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let (_, write) = pipe().expect("pipe");
        let error = spawn(&Spawn {
            program: Path::new("/nonexistent"),
            args: &[],
            env: &[],
            directory: Path::new("/"),
            streams: Streams::Output(&write),
            cgroup: None,
            open_files: None,
            oom_score_adj: None,
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_pid_1_may_signal_everyone() {
        assert!(kill_all().is_err());
    }
}
