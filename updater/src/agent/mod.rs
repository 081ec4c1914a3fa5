//! The agent: looks at the repository from time to time, installs, waits for the moment to restart,
//! and sees how it ends. Everything that it knows is on the disk; it may be killed at any time.

mod answer;
mod attempt;
mod scrub;

use crate::decide::{self, Found, Host, Wish};
use crate::disk::Disk;
use crate::error::Error;
use crate::install;
use crate::source::{Content, Source};
use crate::store::{FailedRelease, Saved, Store};
use crate::window::{Gate, gate};
use contract::Slot;
use contract::journal::Writer;
use contract::release::{ROOT_WARNING, expiry_warning};
use contract::update::{Reboot, Update};
use contract::update_status::{Event, State as Stand};
use contract::version::compare;
use jiff::Timestamp;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sys::block::BlockDevice;

/// A source of releases and of their content.
pub trait Repository: Source + Content {
    /// The newest time that signed metadata vouches for, seconds since 1970 UTC.
    fn signed_time(&self) -> Option<u64>;
    /// When what it is trusted by expires, seconds since 1970 UTC.
    fn root_expires(&self) -> Option<u64>;
    /// Calls `received` with the number of bytes whenever some arrive.
    fn listen(&mut self, received: Box<dyn FnMut(u64) + Send>);
}

/// What the agent needs of the outside.
pub trait World: Send + Sync {
    /// Opens the repository that the configuration names.
    fn repository(&self) -> Result<Box<dyn Repository>, Error>;
    /// Restarts the host in order.
    fn restart(&self) -> io::Result<()>;
    /// Tells people at the console.
    fn say(&self, text: &str);
    /// Tells the status screen where an update stands.
    fn tell(&self, status: &str);
    /// The last lines of the console before a start that failed, if they were kept.
    fn last_words(&self, slot: Slot) -> Vec<String>;
    /// Forgets them: the slot is written anew.
    fn forget_words(&self, slot: Slot);
    /// The clock must not be behind `time`, seconds since 1970 UTC.
    fn floor(&self, time: u64);
}

/// Look at the record so often while a new system is on trial.
const TRIAL_LOOK: Duration = Duration::from_secs(2);
/// The wait after a first failure; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Longest wait at all, so that a change of the clock is noticed.
const LONGEST: Duration = Duration::from_secs(600);

/// The agent.
pub struct Agent<D> {
    disk: Disk<D>,
    running: Slot,
    host: Host,
    config: Update,
    world: Box<dyn World>,
    shared: Mutex<Shared>,
    /// Held by what writes to the other slot.
    busy: Mutex<()>,
    wake: Condvar,
}

/// What several threads look at.
struct Shared {
    store: Store,
    stand: Stand,
    progress: Option<(u64, u64)>,
    downloaded: u64,
    problem: Option<String>,
    /// Whether the console was told that trust expires.
    warned: bool,
    failures: u32,
    next_check: Instant,
    /// A person asked for a restart at once.
    restart_now: bool,
    /// Something changed that the next step has to see.
    poked: bool,
    /// What the status screen was told.
    told: String,
}

/// How something that was asked for ended.
pub(crate) enum Outcome {
    /// Done, in words.
    Done(String),
    /// There is nothing to do, or it may not be done.
    Refused(String),
}

impl<D: BlockDevice + Send + Sync> Agent<D> {
    /// Looks at what became of what was begun before. Writes to no slot.
    pub fn new(
        disk: Disk<D>,
        running: Slot,
        host: Host,
        config: Update,
        folder: &Path,
        world: Box<dyn World>,
    ) -> Agent<D> {
        let (store, problems) = Store::open(folder);
        problems.iter().for_each(|problem| world.say(&format!("updater: {problem}")));
        let shared = Shared {
            store,
            stand: Stand::Idle,
            progress: None,
            downloaded: 0,
            problem: None,
            warned: false,
            failures: 0,
            next_check: Instant::now(),
            restart_now: false,
            poked: false,
            told: String::new(),
        };
        let agent = Agent {
            disk,
            running,
            host,
            config,
            world,
            shared: Mutex::new(shared),
            busy: Mutex::new(()),
            wake: Condvar::new(),
        };
        agent.look_back();
        let first = agent.around(agent.config.interval.min(Duration::from_secs(60)) / 2);
        agent.lock().next_check = Instant::now() + first;
        agent
    }

    /// Works until the process ends.
    pub fn run(&self) -> ! {
        loop {
            let wait = self.step();
            let shared = self.lock();
            let waited = self.wake.wait_timeout_while(shared, wait.min(LONGEST), |s| !s.poked);
            waited.unwrap_or_else(PoisonError::into_inner).0.poked = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the wait of [`Agent::run`].
    fn poke(&self, shared: &mut Shared) {
        shared.poked = true;
        self.wake.notify_all();
    }

    /// Does what is due and says how long there is nothing more.
    pub fn step(&self) -> Duration {
        let stand = self.lock().stand.clone();
        match stand {
            Stand::Trial { .. } => {
                self.look_back();
                return TRIAL_LOOK;
            }
            Stand::Staged { .. } | Stand::Waiting { .. } => {
                if let Some(wait) = self.restart_if_due(&stand) {
                    return wait;
                }
            }
            Stand::Rebooting { .. } => return LONGEST,
            _ => {}
        }
        if !self.config.repository.is_empty() && Instant::now() >= self.lock().next_check {
            self.check_by_itself();
            return Duration::ZERO;
        }
        if self.scrub_due() {
            self.scrub(false);
        }
        let next = self.lock().next_check.saturating_duration_since(Instant::now());
        match self.config.repository.is_empty() {
            true => LONGEST,
            false => next,
        }
    }

    fn check_by_itself(&self) {
        let outcome = self.attempt(&Wish::default());
        let interval = self.config.interval;
        let mut shared = self.lock();
        let wait = match outcome {
            Ok(_) => {
                shared.failures = 0;
                shared.problem = None;
                interval
            }
            Err(e) => {
                let text = chain(&e);
                if shared.problem.as_ref() != Some(&text) {
                    self.world.say(&format!("updater: {text}"));
                }
                shared.problem = Some(text);
                shared.failures = (shared.failures + 1).min(16);
                (FIRST_RETRY * 2_u32.pow(shared.failures - 1)).min(interval)
            }
        };
        shared.next_check = Instant::now() + self.around(wait);
        self.tell(&mut shared);
    }

    /// Between three quarters and five quarters of `wait`: hosts that start together shall not ask
    /// together.
    fn around(&self, wait: Duration) -> Duration {
        let random = RandomState::new().build_hasher().finish() % 512;
        wait * 3 / 4 + wait * random as u32 / 1024
    }

    /// Compares what was begun with the record, and remembers how it ended.
    fn look_back(&self) {
        let record = match install::read_record(&self.disk) {
            Ok(record) => record,
            Err(e) => {
                self.lock().problem = Some(chain(&e));
                return;
            }
        };
        let mut shared = self.lock();
        let attempt = shared.store.saved.attempt.clone();
        let found = decide::find(&record, self.running, attempt.as_ref());
        match &found {
            Found::Healthy(version) => {
                if let Some(attempt) = &attempt {
                    let saved = &mut shared.store.saved;
                    raise(&mut saved.min_version, attempt.min_version.as_ref());
                    saved.failed.retain(|failed| failed.version != attempt.version);
                    saved.attempt = None;
                    let why = format!("everything runs; it replaces {}", attempt.from);
                    self.event(
                        &mut shared,
                        version,
                        Some(self.running),
                        "healthy",
                        &why,
                        Vec::new(),
                    );
                }
            }
            Found::Failed(version, why) => {
                if let Some(attempt) = &attempt {
                    let slot = Slot::from_name(&attempt.slot);
                    let failed = FailedRelease {
                        version: version.clone(),
                        root_hash: attempt.root_hash.clone(),
                        why: why.clone(),
                    };
                    let saved = &mut shared.store.saved;
                    saved.failed.retain(|f| f.root_hash != failed.root_hash);
                    saved.failed.push(failed);
                    saved.attempt = None;
                    let console = slot.map_or_else(Vec::new, |slot| self.world.last_words(slot));
                    self.event(&mut shared, version, slot, "rolled-back", why, console);
                    self.world.say(&format!(
                        "updater: {version} failed, back on {}: {why}",
                        self.host.version
                    ));
                }
            }
            _ => {}
        }
        let stand = found.stand();
        if stand != shared.stand {
            // What is found when the updater starts has no way that led to it.
            shared.stand = match shared.stand.clone().to(stand.clone()) {
                Ok(next) => next,
                Err(_) => stand,
            };
        }
        self.save(&mut shared);
    }

    /// Restarts if that may be now; else says how long to wait, at most until the next look.
    fn restart_if_due(&self, stand: &Stand) -> Option<Duration> {
        let version = stand.version().unwrap_or_default().to_owned();
        let mut shared = self.lock();
        let left_alone = shared.store.saved.attempt.as_ref().is_some_and(|a| a.no_reboot);
        let why = match &self.config.reboot {
            _ if shared.restart_now => None,
            _ if left_alone => Some("a person to restart the host".to_owned()),
            Reboot::Immediate => None,
            Reboot::Manual => Some("a person to restart the host".to_owned()),
            Reboot::Window(windows) => match gate(windows, Timestamp::now()) {
                Gate::Open => None,
                Gate::Opens(at) => Some(format!("the window that opens at {at}")),
                Gate::Never => Some("a window; none ever opens".to_owned()),
                Gate::UnknownZone(zone) => Some(format!("a window in the unknown zone {zone}")),
            },
        };
        if let Some(why) = why {
            let waiting = Stand::Waiting { version, why: format!("for {why}") };
            if *stand != waiting {
                self.world.say(&format!("updater: {waiting}"));
                self.go(&mut shared, waiting);
            }
            // A newer release may come meanwhile.
            let next = shared.next_check.saturating_duration_since(Instant::now());
            return (!next.is_zero()).then(|| next.min(Duration::from_secs(20)));
        }
        self.go(&mut shared, Stand::Rebooting { version: version.clone() });
        self.world.say(&format!("updater: restarting into {version}"));
        if let Err(e) = self.world.restart() {
            shared.problem = Some(format!("restart: {e}"));
        }
        Some(LONGEST)
    }

    /// Why nothing may be installed at this moment, if so.
    fn not_now(&self) -> Option<Outcome> {
        match &self.lock().stand {
            stand @ (Stand::Trial { .. } | Stand::Rebooting { .. }) => {
                Some(Outcome::Refused(format!("not now: {stand}")))
            }
            _ => None,
        }
    }

    /// Moves on, or says that this is not possible, which is a mistake of this program.
    fn go(&self, shared: &mut Shared, next: Stand) {
        match shared.stand.clone().to(next) {
            Ok(next) => shared.stand = next,
            Err(e) => {
                self.world.say(&format!("updater: internal error: {e}"));
                shared.problem = Some(e.to_string());
            }
        }
        self.tell(shared);
    }

    fn save(&self, shared: &mut Shared) {
        if let Err(e) = shared.store.save() {
            shared.problem = Some(format!("remember the state of updates: {e}"));
        }
        self.tell(shared);
    }

    /// Tells the status screen, if there is something new.
    fn tell(&self, shared: &mut Shared) {
        let follows = (!self.config.repository.is_empty()).then_some(self.config.channel.as_str());
        let status = summary(&shared.stand, shared.progress, follows, shared.problem.as_deref());
        if status != shared.told {
            self.world.tell(&status);
            shared.told = status;
        }
    }

    fn event(
        &self,
        shared: &mut Shared,
        version: &str,
        slot: Option<Slot>,
        what: &str,
        why: &str,
        console: Vec<String>,
    ) {
        let repeated = shared.store.events().last().is_some_and(|last| {
            (last.version.as_str(), last.what.as_str(), last.why.as_str()) == (version, what, why)
        });
        if repeated {
            return;
        }
        let event = Event {
            time: now(),
            version: version.to_owned(),
            slot: slot.map(|slot| slot.name().to_owned()),
            what: what.to_owned(),
            why: why.to_owned(),
            console,
        };
        if let Err(e) = shared.store.add(event) {
            shared.problem = Some(format!("remember what happened: {e}"));
        }
        let line = format!("{what} {version}: {why}");
        if let Err(e) = self.disk.state.journal(Writer::Updater, slot, &line) {
            shared.problem = Some(format!("write the boot journal: {e}"));
        }
    }
}

/// Where an update stands, in one line. `follows` is a channel.
fn summary(
    stand: &Stand,
    progress: Option<(u64, u64)>,
    follows: Option<&str>,
    problem: Option<&str>,
) -> String {
    let mut text = match (stand, progress, follows) {
        (Stand::Downloading { .. }, Some((done, all)), _) if all > 0 => {
            format!("{stand}, {} % written", done.saturating_mul(100) / all)
        }
        (Stand::Idle, _, Some(channel)) => format!("follows the channel {channel}"),
        (Stand::Idle, _, None) => "no repository is configured".to_owned(),
        _ => stand.to_string(),
    };
    if let Some(problem) = problem {
        text.push_str(&format!("; {problem}"));
    }
    text
}

/// What a person has to see to before it goes wrong.
fn warnings(saved: &Saved, now: u64) -> Vec<String> {
    let root = saved.root_expires.and_then(|expires| {
        let warning = expiry_warning("root", expires, now, ROOT_WARNING)?;
        Some(format!("{warning}; without a new one this host takes no updates"))
    });
    root.into_iter().collect()
}

fn is_busy() -> Outcome {
    Outcome::Refused("an update or a check is under way already".to_owned())
}

/// Raises `floor` to `to`, if that is higher.
fn raise(floor: &mut Option<String>, to: Option<&String>) {
    if let Some(to) = to
        && floor.as_ref().is_none_or(|floor| compare(floor, to).is_lt())
    {
        *floor = Some(to.clone());
    }
}

pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// An error with what led to it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(&format!(": {e}"));
        source = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_tells_where_an_update_stands() {
        let downloading = Stand::Downloading { version: "2".to_owned() };
        for (stand, progress, follows, problem, expected) in [
            (&Stand::Idle, None, None, None, "no repository is configured"),
            (&Stand::Idle, Some((1, 2)), Some("beta"), None, "follows the channel beta"),
            (&Stand::Idle, None, Some("beta"), Some("down"), "follows the channel beta; down"),
            (&downloading, None, Some("beta"), None, "downloading 2"),
            (&downloading, Some((1, 3)), Some("beta"), None, "downloading 2, 33 % written"),
            (&downloading, Some((0, 0)), Some("beta"), None, "downloading 2"),
        ] {
            assert_eq!(summary(stand, progress, follows, problem), expected);
        }
    }

    #[test]
    fn a_person_is_told_that_trust_expires() {
        let said = |root_expires, now| warnings(&Saved { root_expires, ..Saved::default() }, now);
        assert!(said(None, 5).is_empty(), "nothing is known yet");
        assert!(said(Some(5 + ROOT_WARNING), 5).is_empty());
        let warning = "the root metadata of the repository expires in 59 days; \
                       without a new one this host takes no updates";
        assert_eq!(said(Some(4 + ROOT_WARNING), 5), [warning]);
    }
}
