//! Ending in order: workloads, runtime, everything else, filesystems, machine. Each step says what
//! it does in one line, and has a deadline after which the next one begins.

use crate::power::Ending;
use crate::runtime::{self, CONTAINERD, DOCKERD, Runtime, UPDATER, docker_command};
use crate::serve::Care;
use crate::supervisor::{Event, Supervisor, TaskId};
use crate::trim;
use crate::workload::{self, Workloads};
use crate::{boot_log, clock, log, screen};
use contract::host_config::Service;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use sys::clock::since_boot;
use sys::process;
use sys::{mount, reboot};

/// For Compose to stop a project's containers, in their order.
const WORKLOADS_WITHIN: Duration = Duration::from_secs(60);
/// For dockerd to take in that containers are to end with it.
const RELOAD_WITHIN: Duration = Duration::from_secs(30);
/// Beyond the daemon's own deadline.
const MARGIN: Duration = Duration::from_secs(5);
/// For dockerd with all its containers, and for containerd.
const DAEMON_WITHIN: Duration = Duration::from_secs(100);
/// For whatever else runs, after SIGTERM; and after SIGKILL.
const PROCESSES_WITHIN: Duration = Duration::from_secs(10);
/// For a disk to take what is still in memory.
const FLUSH_WITHIN: Duration = Duration::from_secs(30);
/// Mounts below mounts, in namespaces that end late: so many rounds.
const UNMOUNT_ROUNDS: usize = 4;

/// Ends the machine.
pub fn run(
    ending: Ending,
    runtime: Runtime,
    services: &[Service],
    workloads: &Workloads,
    supervisor: &mut Supervisor,
    care: &mut dyn Care,
) -> ! {
    screen::leave();
    say(match ending {
        Ending::PowerOff => "powering off",
        Ending::Restart => "restarting",
    });
    let mut stopping = Stopping { supervisor, care };
    // It goes on from what is on the disk at the next start.
    stopping.daemon(UPDATER);
    services.iter().for_each(|service| stopping.daemon(&service.name));
    if runtime == Runtime::Docker {
        stopping.workloads(workloads);
        stopping.dockerd();
    }
    stopping.daemon(CONTAINERD);
    stopping.processes();
    if let Err(e) = clock::save() {
        log::warning(&crate::error::chain(&e));
    }
    boot_log::end();
    stopping.filesystems();
    say("done");
    let error = match ending {
        Ending::PowerOff => reboot::power_off(),
        Ending::Restart => reboot::restart(),
    };
    log::line(&format!("error: end the machine: {error}"));
    // The kernel panics when PID 1 ends, and restarts by `panic=`.
    std::process::abort();
}

fn say(what: &str) {
    log::line(&format!("shutdown: {what}"));
}

struct Stopping<'a> {
    supervisor: &'a mut Supervisor,
    care: &'a mut dyn Care,
}

impl Stopping<'_> {
    /// Takes in events until `finished` says so of one, or of the state; false: out of time.
    fn wait(
        &mut self,
        within: Duration,
        mut finished: impl FnMut(&Supervisor, Option<&Event>) -> bool,
    ) -> bool {
        let deadline = since_boot() + within;
        loop {
            if finished(self.supervisor, None) {
                return true;
            }
            if since_boot() >= deadline {
                return false;
            }
            self.care.alive();
            match self.supervisor.wait(&[], Some(deadline)) {
                Ok((events, _)) => {
                    if events.iter().any(|event| finished(self.supervisor, Some(event))) {
                        return true;
                    }
                }
                Err(e) => {
                    log::warning(&crate::error::chain(&e));
                    return false;
                }
            }
        }
    }

    /// In the order that each project asks for. They are brought up again by the next boot.
    fn workloads(&mut self, workloads: &Workloads) {
        if !self.supervisor.is_ready(DOCKERD) {
            return;
        }
        let mut tasks = BTreeSet::new();
        for name in workloads.names() {
            let program = workload::stop_command(name);
            match self.supervisor.run(&format!("workload-{name}"), &program, WORKLOADS_WITHIN) {
                Ok(id) => drop(tasks.insert(id)),
                Err(e) => log::warning(&crate::error::chain(&e)),
            }
        }
        if tasks.is_empty() {
            return;
        }
        say("stopping workloads");
        let stopped = self.wait(WORKLOADS_WITHIN, |_, event| {
            if let Some(Event::Done(id, _)) = event {
                tasks.remove(id);
            }
            tasks.is_empty()
        });
        if !stopped {
            log::warning("workloads did not stop in time");
        }
    }

    /// Without live restore dockerd stops all containers as it ends, and starts them again by
    /// their restart policy the next time: `docker stop` would forbid that to `unless-stopped`.
    fn dockerd(&mut self) {
        if self.supervisor.is_ready(DOCKERD) && !self.end_live_restore() {
            log::warning("dockerd did not take its configuration; containers end without it");
        }
        self.daemon(DOCKERD);
    }

    fn end_live_restore(&mut self) -> bool {
        let changed = runtime::end_live_restore()
            .map_err(|e| crate::error::chain(&e))
            .and_then(|()| self.supervisor.reload(DOCKERD).map_err(|e| e.to_string()));
        if let Err(e) = changed {
            log::warning(&format!("shutdown: {e}"));
            return false;
        }
        let deadline = since_boot() + RELOAD_WITHIN;
        while since_boot() < deadline {
            let program = docker_command(&["info", "--format", "{{.LiveRestoreEnabled}}"]);
            let Ok(id) = self.supervisor.run("shutdown", &program, RELOAD_WITHIN) else { break };
            if self.answer(id).is_some_and(|line| line == "false") {
                return true;
            }
        }
        false
    }

    /// The last line that a task printed.
    fn answer(&mut self, id: TaskId) -> Option<String> {
        let mut answer = None;
        self.wait(RELOAD_WITHIN, |_, event| match event {
            Some(Event::Done(done, outcome)) if *done == id => {
                answer = outcome.tail.last().map(|line| line.trim().to_owned());
                true
            }
            _ => false,
        });
        answer
    }

    fn daemon(&mut self, name: &str) {
        if self.supervisor.is_stopped(name) {
            return;
        }
        say(&format!("stopping {name}"));
        self.supervisor.stop(name);
        let stopped = self.wait(DAEMON_WITHIN + MARGIN, |s, _| s.is_stopped(name));
        if !stopped {
            log::warning(&format!("{name} did not stop in time"));
        }
    }

    /// Everything that is left: containers without Docker, shims, the debug shell.
    fn processes(&mut self) {
        say("ending processes");
        for (signal, name) in [
            (process::terminate_all as fn() -> std::io::Result<()>, "SIGTERM"),
            (process::kill_all, "SIGKILL"),
        ] {
            if let Err(e) = signal() {
                log::warning(&format!("send {name} to all processes: {e}"));
            }
            // An orphan becomes a child of PID 1, so without children there is nobody left.
            if self.wait(PROCESSES_WITHIN, |s, _| s.is_childless()) {
                return;
            }
        }
        log::warning("some processes do not end");
    }

    fn filesystems(&mut self) {
        say("unmounting filesystems");
        trim::end();
        self.care.alive();
        if !reboot::sync_within(FLUSH_WITHIN) {
            log::warning("a disk does not take what is still in memory");
            return;
        }
        self.care.alive();
        let busy = reboot::within(FLUSH_WITHIN, unmount_all);
        match busy {
            None => log::warning("a filesystem cannot be unmounted in time"),
            Some(busy) if !busy.is_empty() => {
                log::warning(&format!("still in use: {}", busy.join(" ")));
                reboot::sync_within(FLUSH_WITHIN);
            }
            Some(_) => {}
        }
    }
}

/// Unmounts everything that is written to disks. Returns what could not be; `/var`, if it is among
/// them, is read-only now.
fn unmount_all() -> Vec<String> {
    for _ in 0..UNMOUNT_ROUNDS {
        for target in mounts() {
            // What is in use now may not be in the next round.
            let _ = mount::unmount(&target);
        }
    }
    let busy = mounts();
    if busy.iter().any(|target| target == "/var")
        && let Err(e) = mount::make_read_only("/var")
    {
        log::warning(&format!("make /var read-only: {e}"));
    }
    busy
}

fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts_to_end(&text)
}

/// Targets to unmount, the newest first: `/var`, what lies below it, what containers mounted below
/// `/run`, and overlays. These keep the filesystem of `/var` busy even when it is out of sight.
fn mounts_to_end(mountinfo: &str) -> Vec<String> {
    let below = |target: &str, parent: &str| {
        target.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
    };
    let mut targets: Vec<String> = mountinfo
        .lines()
        .filter_map(|line| {
            let target = unescape(line.split(' ').nth(4)?);
            let is_overlay =
                line.split(" - ").nth(1).is_some_and(|end| end.starts_with("overlay "));
            let ends = target == "/var" || below(&target, "/var") || below(&target, "/run");
            (ends || is_overlay).then_some(target)
        })
        .collect();
    targets.reverse();
    targets
}

/// The kernel writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_data_partition_busy_is_unmounted_newest_first() {
        let mountinfo = "\
            20 1 254:1 / / ro - ext4 /dev/dm-0 ro\n\
            21 20 0:5 / /proc rw - proc proc rw\n\
            22 20 254:9 / /var rw - ext4 /dev/vda9 rw\n\
            23 22 0:50 / /var/lib/docker/overlay2/a\\040b/merged rw - overlay overlay rw\n\
            27 20 0:53 / /opt/cni rw - overlay overlay rw\n\
            26 20 0:52 / /run rw - tmpfs tmpfs rw\n\
            24 20 0:51 / /variety rw - tmpfs tmpfs rw\n\
            25 20 0:4 net:[4026532288] /run/docker/netns/x rw - nsfs nsfs rw\n";
        let expected =
            ["/run/docker/netns/x", "/opt/cni", "/var/lib/docker/overlay2/a b/merged", "/var"];
        assert_eq!(mounts_to_end(mountinfo), expected);
        assert_eq!(mounts_to_end(""), [""; 0]);
    }

    #[test]
    fn escapes_are_read_and_broken_ones_kept() {
        for (text, expected) in
            [("a\\134b", "a\\b"), ("a\\09x", "a\\09x"), ("\\", "\\"), ("é", "é")]
        {
            assert_eq!(unescape(text), expected);
        }
    }
}
