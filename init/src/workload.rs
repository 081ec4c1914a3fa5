//! Workloads: the Compose projects that the host configuration declares.
//!
//! All are brought up at once, when the images that came with the host are loaded. What fails is
//! tried again with growing pauses; the host stays up and says why on the console.

use crate::error::{Error, On};
use crate::log;
use crate::preload::Preload;
use crate::runtime::{Runtime, compose_command, ctr_command, docker_command};
use crate::supervisor::back_off::BackOff;
use crate::supervisor::{Outcome, Program, Supervisor, TaskId};
use contract::handover::ESP_FILES;
use contract::host_config::{Workload, WorkloadSource};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Compose files of this boot.
const FILES: &str = "/run/berth/workloads";
/// For each project that was ever brought up here, a file of its name.
const KNOWN: &str = "/var/lib/berth/workloads";

/// Beyond the time that Compose was given, until it is ended.
const GRACE: Duration = Duration::from_secs(15);
/// Longest time to take down a project that is no longer declared.
const DOWN_WITHIN: Duration = Duration::from_secs(120);
/// Longest time for a look at what runs.
const CHECK_WITHIN: Duration = Duration::from_secs(60);
const RETRY: BackOff = BackOff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

/// What the projects may interpolate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `BERTH_SLOT`: `a`, `b` or `-`.
    pub slot: String,
    /// `BERTH_VERSION`: the release.
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Duration },
    Running(TaskId),
    Up,
}

#[derive(Debug)]
struct Project {
    workload: Workload,
    state: State,
    failures: u32,
}

/// All workloads of the host.
#[derive(Debug)]
pub struct Workloads {
    runtime: Runtime,
    facts: Facts,
    hostname: String,
    begun: bool,
    images: Preload,
    projects: Vec<Project>,
    /// When they were first brought up.
    first_started: Option<Duration>,
    /// Projects that are no longer declared and are being taken down.
    leaving: Vec<(String, TaskId)>,
    /// A look at what runs that is under way.
    checks: Vec<(String, TaskId)>,
    /// What it has found so far.
    found: Option<Result<(), String>>,
}

impl Workloads {
    /// Those that are declared. A runtime without Compose refuses them, with a message.
    pub fn new(
        runtime: Runtime,
        declared: &[Workload],
        facts: Facts,
        images: Preload,
    ) -> Workloads {
        let refused = runtime == Runtime::Containerd && !declared.is_empty();
        if refused {
            log::warning("this image has containerd alone: workloads are not started");
            log::hint("declare workloads on hosts whose image has runtime = \"docker\"");
        }
        let project = |workload: &Workload| Project {
            workload: workload.clone(),
            state: State::Waiting { until: Duration::ZERO },
            failures: 0,
        };
        Workloads {
            runtime,
            facts,
            hostname: String::new(),
            begun: false,
            images,
            projects: declared.iter().filter(|_| !refused).map(project).collect(),
            first_started: None,
            leaving: Vec::new(),
            checks: Vec::new(),
            found: None,
        }
    }

    /// Workloads that run and are healthy, and all.
    pub fn count(&self) -> (usize, usize) {
        let up = self.projects.iter().filter(|p| p.state == State::Up).count();
        (up, self.projects.len())
    }

    /// Name of each, and how it is, in words.
    pub fn states(&self) -> Vec<(String, &'static str)> {
        let state = |project: &Project| match project.state {
            State::Up => "up",
            State::Waiting { .. } if project.failures > 0 => "failed, tried again soon",
            State::Waiting { .. } => "not started yet",
            State::Running(_) => "starting",
        };
        self.projects.iter().map(|p| (p.workload.name.clone(), state(p))).collect()
    }

    /// Whether everything is loaded and up.
    pub fn all_up(&self) -> bool {
        self.begun && self.images.is_done() && self.projects.iter().all(|p| p.state == State::Up)
    }

    /// The longest time that any may take.
    pub fn patience(&self) -> Duration {
        self.projects.iter().map(|p| p.workload.timeout).max().unwrap_or_default()
    }

    /// When they were first brought up, if they were.
    pub fn first_started(&self) -> Option<Duration> {
        self.first_started
    }

    /// Names of all projects, for shutdown.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.projects.iter().map(|p| p.workload.name.as_str())
    }

    /// The runtime is ready, and the network as ready as it will be.
    pub fn begin(&mut self, hostname: &str, supervisor: &mut Supervisor, now: Duration) {
        if self.begun {
            return;
        }
        self.begun = true;
        self.hostname = hostname.to_owned();
        self.images.begin();
        if self.runtime == Runtime::Docker {
            self.take_down_undeclared(supervisor);
        }
        self.advance(supervisor, now);
    }

    /// When [`Workloads::advance`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let idle = !self.begun || !self.images.is_done();
        let waits = self.projects.iter().filter_map(|p| match p.state {
            State::Waiting { until } => Some(until),
            _ => None,
        });
        waits.min().filter(|_| !idle)
    }

    /// Starts what is due.
    pub fn advance(&mut self, supervisor: &mut Supervisor, now: Duration) {
        if !self.begun {
            return;
        }
        self.images.advance(supervisor);
        if !self.images.is_done() {
            return;
        }
        self.first_started.get_or_insert(now);
        for index in 0..self.projects.len() {
            if matches!(self.projects[index].state, State::Waiting { until } if until <= now) {
                self.bring_up(index, supervisor, now);
            }
        }
    }

    /// A task has ended; it may be one of these.
    pub fn done(&mut self, id: TaskId, outcome: &Outcome, now: Duration) {
        if self.images.done(id, outcome) {
            return;
        }
        if let Some(at) = self.leaving.iter().position(|(_, task)| *task == id) {
            let (name, _) = self.leaving.remove(at);
            match outcome.is_success() {
                true => drop(fs::remove_file(Path::new(KNOWN).join(&name))),
                false => log::warning(&format!("take down {name}: {}", outcome.reason())),
            }
        } else if let Some(at) = self.checks.iter().position(|(_, task)| *task == id) {
            let (what, _) = self.checks.remove(at);
            // Only containers that are not well are printed.
            let well = match (outcome.is_success(), outcome.tail.first()) {
                (true, None) => Ok(()),
                (true, Some(bad)) => Err(format!("{what}: {}", bad.trim())),
                (false, _) => Err(format!("{what}: {}", outcome.reason())),
            };
            let so_far = self.found.take().unwrap_or(Ok(()));
            self.found = Some(so_far.and(well));
        } else if let Some(at) = self.projects.iter().position(|p| p.state == State::Running(id)) {
            self.ended(at, outcome, now);
        }
    }

    /// Begins to look whether the runtime answers and all containers of the projects are well.
    pub fn check(&mut self, supervisor: &mut Supervisor) {
        if !self.checks.is_empty() {
            return;
        }
        self.found = None;
        let probe = probe_command(self.runtime);
        let projects = self.projects.iter().map(|project| {
            let name = &project.workload.name;
            (format!("workload {name}"), check_command(name))
        });
        let all = projects.chain([(self.runtime.name().to_owned(), probe)]);
        for (what, program) in all.collect::<Vec<_>>() {
            match supervisor.run("checks", &program, CHECK_WITHIN) {
                Ok(id) => self.checks.push((what, id)),
                Err(e) => self.found = Some(Err(crate::error::chain(&e))),
            }
        }
    }

    /// What the look has found, once it is complete.
    pub fn take_check(&mut self) -> Option<Result<(), String>> {
        self.found.take_if(|_| self.checks.is_empty())
    }

    fn ended(&mut self, index: usize, outcome: &Outcome, now: Duration) {
        let project = &mut self.projects[index];
        let name = project.workload.name.clone();
        if outcome.is_success() {
            log::line(&format!("workload {name}: up"));
            project.state = State::Up;
            project.failures = 0;
            return;
        }
        // The last one is part of the reason below.
        for line in outcome.tail.iter().rev().skip(1).rev() {
            log::line(&format!("{name}: {line}"));
        }
        self.failed(index, &outcome.reason(), now);
        self.images.distrust();
    }

    fn failed(&mut self, index: usize, why: &str, now: Duration) {
        let project = &mut self.projects[index];
        project.failures = project.failures.saturating_add(1);
        let pause = RETRY.delay(project.failures);
        let (name, seconds) = (&project.workload.name, pause.as_secs());
        log::warning(&format!("workload {name}: {why}; trying again in {seconds} s"));
        project.state = State::Waiting { until: now + pause };
    }

    fn bring_up(&mut self, index: usize, supervisor: &mut Supervisor, now: Duration) {
        let project = &self.projects[index];
        let started = compose_file(&project.workload).and_then(|file| {
            let env = environment(&self.facts, &self.hostname);
            let program = up_command(&project.workload, &file, &env);
            let log_name = format!("workload-{}", project.workload.name);
            note_known(&project.workload.name);
            supervisor.run(&log_name, &program, project.workload.timeout + GRACE)
        });
        match started {
            Ok(id) => self.projects[index].state = State::Running(id),
            Err(e) => self.failed(index, &crate::error::chain(&e), now),
        }
    }

    fn take_down_undeclared(&mut self, supervisor: &mut Supervisor) {
        let Ok(entries) = fs::read_dir(KNOWN) else { return };
        let known = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let declared: Vec<&str> = self.names().collect();
        let gone: Vec<String> = known.filter(|name| !declared.contains(&name.as_str())).collect();
        for name in gone {
            log::line(&format!("workload {name}: no longer declared, taking it down"));
            let program = compose_command(&["-p", &name, "down", "--remove-orphans"], &[]);
            match supervisor.run(&format!("workload-{name}"), &program, DOWN_WITHIN) {
                Ok(id) => self.leaving.push((name, id)),
                Err(e) => log::warning(&crate::error::chain(&e)),
            }
        }
    }
}

/// Asks the runtime for something that it can only answer when it works. Prints nothing.
fn probe_command(runtime: Runtime) -> Program {
    match runtime {
        Runtime::Docker => docker_command(&["ps", "--quiet", "--filter", "label=berth.none"]),
        Runtime::Containerd => ctr_command(&["--namespace", "berth.none", "tasks", "ls", "-q"]),
    }
}

/// Prints a line for each container of a project that is not well. One that has done its work and
/// ended is.
fn check_command(name: &str) -> Program {
    const BAD: &str = "{{$ended := and (eq .State \"exited\") (eq .ExitCode 0)}}\
        {{if not (or $ended (and (eq .State \"running\") (ne .Health \"unhealthy\")))}}\
        {{.Service}} is {{.State}} {{.Health}}{{end}}";
    compose_command(&["-p", name, "ps", "--all", "--format", BAD], &[])
}

/// Stops the containers of a project in the order that it asks for.
pub fn stop_command(name: &str) -> Program {
    compose_command(&["-p", name, "stop"], &[])
}

fn note_known(name: &str) {
    let noted = fs::create_dir_all(KNOWN).and_then(|()| fs::write(Path::new(KNOWN).join(name), ""));
    if let Err(e) = noted {
        log::warning(&format!("note {name} in {KNOWN}: {e}"));
    }
}

/// Where the Compose file lies, written there if need be.
fn compose_file(workload: &Workload) -> Result<PathBuf, Error> {
    match &workload.source {
        WorkloadSource::Inline(text) => {
            let directory = Path::new(FILES).join(&workload.name);
            fs::create_dir_all(&directory).on("make", directory.display())?;
            let path = directory.join("compose.yaml");
            fs::write(&path, text).on("write", path.display())?;
            Ok(path)
        }
        WorkloadSource::EspFile(file) => {
            let path = Path::new(ESP_FILES).join(file);
            fs::metadata(&path).on("find on the ESP", format!("berth/{file}"))?;
            Ok(path)
        }
    }
}

fn environment(facts: &Facts, hostname: &str) -> Vec<(String, String)> {
    [
        ("BERTH_SLOT", facts.slot.as_str()),
        ("BERTH_VERSION", &facts.version),
        ("BERTH_HOSTNAME", hostname),
        ("COMPOSE_ANSI", "never"),
        ("COMPOSE_PROGRESS", "plain"),
        ("DOCKER_CLI_HINTS", "false"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn up_command(workload: &Workload, file: &Path, env: &[(String, String)]) -> Program {
    let file = file.display().to_string();
    let seconds = workload.timeout.as_secs().to_string();
    let mut args = vec!["-p", &workload.name, "-f", &file, "up", "--detach", "--wait"];
    args.extend(["--wait-timeout", &seconds, "--no-build", "--pull", "missing"]);
    args.extend(["--quiet-pull", "--remove-orphans"]);
    compose_command(&args, env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::process::Exit;

    fn workload(name: &str) -> Workload {
        Workload {
            name: name.into(),
            source: WorkloadSource::Inline("services: {}".into()),
            timeout: Duration::from_secs(60),
        }
    }

    fn facts() -> Facts {
        Facts { slot: "b".into(), version: "1.2.3".into() }
    }

    fn workloads(runtime: Runtime, names: &[&str]) -> Workloads {
        let declared: Vec<Workload> = names.iter().map(|name| workload(name)).collect();
        let images = Preload::new(runtime, "default", "abc".into());
        Workloads::new(runtime, &declared, facts(), images)
    }

    #[test]
    fn compose_is_told_to_wait_and_not_to_build() {
        let env = environment(&facts(), "node");
        let program = up_command(&workload("demo"), Path::new("/run/x.yaml"), &env);
        assert_eq!(
            program.args.join(" "),
            "-p demo -f /run/x.yaml up --detach --wait --wait-timeout 60 --no-build \
             --pull missing --quiet-pull --remove-orphans"
        );
        let value = |key: &str| program.env.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        assert_eq!(value("BERTH_SLOT"), Some("b"));
        assert_eq!(value("BERTH_VERSION"), Some("1.2.3"));
        assert_eq!(value("BERTH_HOSTNAME"), Some("node"));
    }

    #[test]
    fn containerd_alone_refuses_workloads() {
        let workloads = workloads(Runtime::Containerd, &["demo"]);
        assert_eq!(workloads.count(), (0, 0));
    }

    #[test]
    fn a_failure_is_retried_later_and_later_and_success_counts() {
        let mut workloads = workloads(Runtime::Docker, &["a", "b"]);
        workloads.begun = true;
        let now = Duration::from_secs(100);
        let failed = Outcome { exit: Some(Exit::Code(1)), tail: vec!["no such image".into()] };
        let mut waits = Vec::new();
        for n in 0..8 {
            let id = TaskId::for_test(n);
            workloads.projects[0].state = State::Running(id);
            workloads.projects[1].state = State::Up;
            workloads.done(id, &failed, now);
            waits.push((workloads.deadline().expect("a retry") - now).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(workloads.count(), (1, 2));
        assert!(!workloads.all_up());
        let id = TaskId::for_test(9);
        workloads.projects[0].state = State::Running(id);
        workloads.done(id, &Outcome { exit: Some(Exit::Code(0)), tail: vec![] }, now);
        assert!(workloads.all_up());
        assert_eq!(workloads.deadline(), None);
    }
}
