//! From the runtime's start to the order to stop: one loop that waits for everything.

use crate::clock;
use crate::debug_shell::DebugShell;
use crate::error::Error;
use crate::log;
use crate::modules;
use crate::network::{Network, Status};
use crate::power::{self, Ending, PowerButtons};
use crate::preload::Preload;
use crate::registry;
use crate::runtime::{self, CONTAINERD, Runtime, UPDATER};
use crate::screen::{Screen, View};
use crate::shutdown;
use crate::supervisor::{Event, Supervisor, TaskId};
use crate::sysctl;
use crate::trial::{Do, Trial};
use crate::trim;
use crate::workload::{Facts, Workloads};
use contract::Slot;
use contract::console::Ready;
use contract::host_config::{HostConfig, ModuleLoading};
use std::convert::Infallible;
use std::time::Duration;
use sys::clock::since_boot;

/// The time within which a boot is expected to come to its workloads: the runtime may start twice,
/// and images are loaded.
const BOOT_WITHIN: Duration = Duration::from_secs(600);
/// The time within which modules are loaded, or what loads them is killed.
const MODULES_WITHIN: Duration = Duration::from_secs(75);
/// Beside what they may take themselves, the time within which workloads are expected to be up:
/// Compose is slow to start on a busy machine.
const WORKLOADS_MARGIN: Duration = Duration::from_secs(30);

/// When a boot that began to serve at `start` is overdue. `workloads`: when they were first brought
/// up, if they were, and the longest time that any may take. Each gets two attempts.
fn overdue_at(start: Duration, workloads: (Option<Duration>, Duration)) -> Duration {
    match workloads {
        (None, _) => start + BOOT_WITHIN,
        (Some(at), patience) => at + 2 * patience + WORKLOADS_MARGIN,
    }
}

/// What this boot is about.
#[derive(Clone, Debug)]
pub struct Host {
    /// The slot that runs.
    pub slot: Option<Slot>,
    /// Release version.
    pub version: String,
    /// What tells this image from every other: the root hash.
    pub image: String,
    /// The host configuration.
    pub config: HostConfig,
    /// Why nothing can be kept in `/var`: then no container may run either.
    pub var_problem: Option<String>,
    /// Whether a shell on the second serial line was built into the image.
    pub debug_shell: bool,
}

/// What else depends on how this boot goes.
pub trait Care {
    /// The modules for this machine are loaded, as far as they can be.
    fn modules_loaded(&mut self);
    /// Called every few seconds as long as PID 1 is well, during shutdown too: for the watchdog.
    fn alive(&mut self);
    /// Whether the slot that runs has yet to prove itself.
    fn is_on_trial(&self) -> bool;
    /// Everything that was asked for runs, and the slot's trial, if it was on one, has ended well.
    /// Called once.
    fn healthy(&mut self);
    /// Something that was asked for still does not run. Called at most once.
    fn overdue(&mut self, why: &str);
}

struct Serving<'a> {
    host: &'a Host,
    care: &'a mut dyn Care,
    runtime: Runtime,
    runtime_ready: bool,
    /// What still loads modules.
    modules: Option<TaskId>,
    /// Whether what comes after the boot was begun.
    settled: bool,
    /// What loads the last modules.
    last_modules: Option<TaskId>,
    network: Network,
    next_save: Duration,
    workloads: Workloads,
    buttons: PowerButtons,
    shell: Option<DebugShell>,
    start: Duration,
    /// Healthy, or known not to be in time.
    decided: bool,
    ready: bool,
    trial: Option<Trial>,
    screen: Screen,
}

/// Serves until told to stop, and then ends the machine. `supervisor` was made before any other
/// thread, and control groups are set up. `modules` is what still loads modules. An error is one that
/// PID 1 cannot go on with.
pub fn run(
    host: &Host,
    modules: Option<TaskId>,
    mut supervisor: Supervisor,
    care: &mut dyn Care,
) -> Result<Infallible, Error> {
    let now = since_boot();
    sys::reboot::catch_ctrl_alt_del()
        .unwrap_or_else(|e| log::warning(&format!("Ctrl-Alt-Del: {e}")));
    let missing = sysctl::apply_defaults();
    if !missing.is_empty() {
        log::line(&format!("kernel without {}", missing.join(", ")));
    }
    let runtime = Runtime::detect()?;
    match &host.var_problem {
        None => {
            registry::write(&host.config.registries);
            supervisor.start(runtime::containerd(&host.config)?)?;
        }
        Some(why) => log::warning(&format!("no containers without /var: {why}")),
    }
    let facts =
        Facts { slot: host.slot.map_or("-", Slot::name).to_owned(), version: host.version.clone() };
    // Where a kubelet's images are.
    let namespace = if host.config.cri { "k8s.io" } else { "default" };
    let images = Preload::new(runtime, namespace, host.image.clone());
    let workloads = Workloads::new(runtime, &host.config.workloads, facts, images);
    let trial = care.is_on_trial().then(|| Trial::new(host.config.update.trial));
    let mut serving = Serving {
        host,
        care,
        runtime,
        runtime_ready: false,
        modules,
        settled: false,
        last_modules: None,
        network: Network::start(&host.config, now)?,
        next_save: now + clock::SAVE_EVERY,
        workloads,
        buttons: PowerButtons::open(),
        shell: DebugShell::new(host.debug_shell),
        start: now,
        decided: false,
        ready: false,
        trial,
        screen: Screen::default(),
    };
    if modules.is_none() {
        serving.modules_loaded(&mut supervisor)?;
    }
    let ending = serving.until_told(&mut supervisor)?;
    let services = &host.config.services;
    shutdown::run(ending, runtime, services, &serving.workloads, &mut supervisor, serving.care)
}

impl Serving<'_> {
    fn until_told(&mut self, supervisor: &mut Supervisor) -> Result<Ending, Error> {
        loop {
            if let Some(ending) = self.once(supervisor)? {
                return Ok(ending);
            }
        }
    }

    /// Waits once, and does what is due.
    fn once(&mut self, supervisor: &mut Supervisor) -> Result<Option<Ending>, Error> {
        let deadlines = [
            self.network.deadline(),
            self.workloads.deadline(),
            self.shell.as_ref().and_then(DebugShell::deadline),
            self.overdue(),
            self.trial.as_ref().and_then(Trial::wake),
            Some(self.next_save),
            self.modules.map(|_| self.start + MODULES_WITHIN),
            self.screen.deadline(),
        ];
        let mut files = self.network.files();
        files.extend(self.buttons.files());
        let (events, _) = supervisor.wait(&files, deadlines.into_iter().flatten().min())?;
        drop(files);
        self.care.alive();
        let now = since_boot();
        for event in events {
            match event {
                Event::Ready(name) => self.daemon_ready(name),
                Event::Done(id, outcome) if self.modules == Some(id) => {
                    if !outcome.is_success() {
                        log::warning(&format!("not all modules are loaded: {}", outcome.reason()));
                    }
                    self.modules_loaded(supervisor)?;
                }
                Event::Done(id, _) if self.last_modules == Some(id) => {
                    self.last_modules = None;
                    match modules::close() {
                        Ok(()) => log::line("the kernel takes no more modules"),
                        Err(e) => log::warning(&crate::error::chain(&e)),
                    }
                }
                Event::Done(id, outcome) => self.workloads.done(id, &outcome, now),
                Event::Signal(signal) => {
                    if let Some(ending) = power::meaning(signal) {
                        log::line(&format!("asked to end by {signal}"));
                        return Ok(Some(ending));
                    }
                }
                Event::Stopped(_) => {}
            }
        }
        if self.buttons.pressed() {
            log::line("power button pressed");
            return Ok(Some(Ending::PowerOff));
        }
        self.follow_modules(supervisor, now)?;
        self.network.advance(now);
        self.follow_network(supervisor, now);
        self.workloads.advance(supervisor, now);
        if let Some(shell) = &mut self.shell {
            shell.advance(now);
        }
        self.save_clock(now);
        self.say_ready(now);
        self.follow_trial(supervisor, now);
        self.judge(now);
        self.show(supervisor, now);
        self.settle(supervisor);
        Ok(None)
    }

    fn show(&mut self, supervisor: &Supervisor, now: Duration) {
        self.screen.update(now, || View {
            hostname: self.network.hostname().to_owned(),
            version: self.host.version.clone(),
            slot: self.host.slot,
            on_trial: self.trial.is_some(),
            runtime: self.runtime.name(),
            runtime_ready: supervisor.is_ready(self.runtime.daemon()),
            addresses: self.network.addresses(),
            workloads: self.workloads.states(),
            update: supervisor.status(UPDATER).to_owned(),
            problem: self.host.var_problem.clone(),
            lines: log::recent(),
        });
    }

    fn daemon_ready(&mut self, name: &str) {
        log::line(&format!("{name} is ready"));
        if name == CONTAINERD {
            clock::runtime_has_started();
        }
        if name == self.runtime.daemon() {
            self.runtime_ready = true;
        }
    }

    /// Starts dockerd, which looks for modules. It takes longer to start than containerd, and waits
    /// for it by itself.
    fn modules_loaded(&mut self, supervisor: &mut Supervisor) -> Result<(), Error> {
        self.modules = None;
        self.care.modules_loaded();
        sysctl::apply_configured(&self.host.config.sysctl);
        match supervisor.knows(CONTAINERD) && self.runtime == Runtime::Docker {
            true => supervisor.start(runtime::dockerd(&self.host.config)?),
            false => Ok(()),
        }
    }

    /// A driver that hangs, and cannot be killed, must not keep the host from serving without it.
    fn follow_modules(&mut self, supervisor: &mut Supervisor, now: Duration) -> Result<(), Error> {
        if self.modules.is_none() || now < self.start + MODULES_WITHIN {
            return Ok(());
        }
        log::warning("not all modules are loaded: a driver hangs");
        self.modules_loaded(supervisor)
    }

    /// What is left once it is known how the boot went. Nothing needs a module any more but an
    /// attacker, or a device that comes later: for that there is `module-loading`.
    fn settle(&mut self, supervisor: &mut Supervisor) {
        if !self.decided || self.modules.is_some() || self.settled {
            return;
        }
        self.settled = true;
        if self.host.var_problem.is_none() {
            trim::keep(self.host.config.data.trim);
        }
        if self.host.config.kernel.module_loading == ModuleLoading::UntilReady {
            match supervisor.run("modules-last", &modules::last(), modules::BOUND) {
                Ok(id) => self.last_modules = Some(id),
                Err(e) => log::warning(&crate::error::chain(&e)),
            }
        }
    }

    fn follow_network(&mut self, supervisor: &mut Supervisor, now: Duration) {
        let status = self.network.status(now);
        if status == Status::Up {
            let configured = self.host.config.time_servers.as_deref();
            clock::keep_right(configured, self.network.time_servers());
        }
        if status != Status::Waiting && self.runtime_ready {
            self.workloads.begin(self.network.hostname(), supervisor, now);
            self.start_services(supervisor);
        }
        // It works without containers too, and may bring a release that mends them.
        if status != Status::Waiting && self.host.slot.is_some() && !supervisor.knows(UPDATER) {
            supervisor.start(runtime::updater()).unwrap_or_else(|e| {
                log::warning(&crate::error::chain(&e));
            });
        }
    }

    /// Starts those that do not run yet.
    fn start_services(&self, supervisor: &mut Supervisor) {
        for told in &self.host.config.services {
            if !supervisor.knows(&told.name)
                && let Err(e) = supervisor.start(runtime::service(told))
            {
                log::warning(&crate::error::chain(&e));
            }
        }
    }

    fn save_clock(&mut self, now: Duration) {
        if now >= self.next_save {
            self.next_save = now + clock::SAVE_EVERY;
            if let Err(e) = clock::save() {
                log::warning(&crate::error::chain(&e));
            }
        }
    }

    /// When it will be too late; `None` when that no longer matters.
    fn overdue(&self) -> Option<Duration> {
        let workloads = (self.workloads.first_started(), self.workloads.patience());
        let soak = self.host.config.update.trial.soak;
        let at = match &self.trial {
            Some(trial) => trial
                .deadline(self.start)
                .unwrap_or_else(|| overdue_at(self.start, workloads) + 2 * soak),
            None => overdue_at(self.start, workloads),
        };
        (!self.decided).then_some(at)
    }

    /// What is missing, in words.
    fn well(&self, supervisor: &Supervisor, now: Duration) -> Result<(), String> {
        let name = self.runtime.name();
        let (up, all) = self.workloads.count();
        let mut telling = self.host.config.services.iter().filter(|service| service.notify);
        if !self.runtime_ready {
            Err(format!("{name} did not get ready"))
        } else if !supervisor.is_ready(self.runtime.daemon()) {
            Err(format!("{name} does not run"))
        } else if !self.workloads.all_up() {
            Err(format!("{up} of {all} workloads are up"))
        } else if let Some(service) = telling.find(|s| !supervisor.is_ready(&s.name)) {
            Err(format!("{} does not run", service.name))
        } else if self.network.status(now) != Status::Up {
            Err("no network link has an address".to_owned())
        } else {
            Ok(())
        }
    }

    fn say_ready(&mut self, now: Duration) {
        if self.ready || !self.runtime_ready || !self.workloads.all_up() {
            return;
        }
        self.ready = true;
        let (up, all) = self.workloads.count();
        let ready = Ready {
            slot: self.host.slot,
            version: self.host.version.clone(),
            runtime: self.runtime.name().to_owned(),
            workloads_up: up,
            workloads: all,
            boot: now,
        };
        // The line begins as every line does.
        let text = ready.to_string();
        log::line(text.strip_prefix("berth: ").unwrap_or(&text));
        if self.trial.is_none() {
            self.decided = true;
            self.care.healthy();
        }
    }

    /// A slot on trial has to go on running for a while.
    fn follow_trial(&mut self, supervisor: &mut Supervisor, now: Duration) {
        let well = self.well(supervisor, now);
        let Some(trial) = &mut self.trial else { return };
        if let Some(found) = self.workloads.take_check()
            && trial.checked(found)
        {
            self.trial = None;
            self.decided = true;
            self.care.healthy();
            return;
        }
        if let Some(Do::Check) = trial.step(now, well.as_ref().copied().map_err(String::as_str)) {
            self.workloads.check(supervisor);
        }
    }

    fn judge(&mut self, now: Duration) {
        if self.overdue().is_none_or(|at| now < at) {
            return;
        }
        self.decided = true;
        let (up, all) = self.workloads.count();
        let name = self.runtime.name();
        let known = self.trial.as_ref().and_then(Trial::problem).map(str::to_owned);
        let why = known.unwrap_or_else(|| match self.runtime_ready {
            false => format!("{name} did not get ready"),
            true => format!("{up} of {all} workloads are up"),
        });
        log::warning(&why);
        self.care.overdue(&why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_overdue_by_what_it_came_to() {
        let seconds = Duration::from_secs;
        for (start, first_started, patience, expected) in [
            (8, None, 0, 608),
            (8, None, 9000, 608),
            (8, Some(70), 0, 100),
            (8, Some(70), 300, 700),
            (8, Some(500), 300, 1130),
        ] {
            let at = overdue_at(seconds(start), (first_started.map(seconds), seconds(patience)));
            assert_eq!(at, seconds(expected), "{first_started:?} {patience}");
        }
    }
}
