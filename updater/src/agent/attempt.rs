//! One attempt: from a look at the repository to a slot that starts next.

use super::{Agent, Outcome, Repository, chain, is_busy, now, warnings};
use crate::assemble::{Old, Parcel};
use crate::decide::{self, Goal, Wish};
use crate::error::{Error, On, Result};
use crate::install::{self, Plan, Step};
use crate::store::Attempt;
use contract::record::{Record, State};
use contract::release::{Parts, Release};
use contract::update::Full;
use contract::update_status::State as Stand;
use contract::version::compare;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use sys::block::BlockDevice;

/// Releases that have to run one after the other, at most.
const MAX_STONES: usize = 8;

/// How a release gets here.
#[derive(Clone, Copy, Debug)]
enum Route<'a> {
    /// From exactly the release that runs.
    Patch(&'a Parts),
    /// From chunks, less those that the running slot has.
    Chunks(&'a Parts),
    /// All of it.
    Whole(&'a Parts),
}

impl<D: BlockDevice + Send + Sync> Agent<D> {
    /// What the channel names, without installing it.
    pub(super) fn look(&self) -> Result<Outcome> {
        let Ok(_busy) = self.busy.try_lock() else { return Ok(is_busy()) };
        let mut repository = self.world.repository()?;
        let goal = self.refresh(&mut *repository, &Wish::default())?;
        Ok(match goal {
            Goal::Install(version) => Outcome::Done(format!("{version} is to be installed")),
            Goal::Nothing(why) | Goal::Refuse(why) => Outcome::Refused(why),
        })
    }

    fn refresh(&self, repository: &mut dyn Repository, wish: &Wish) -> Result<Goal> {
        let channel = repository.refresh()?;
        let root_expires = repository.root_expires();
        if let Some(time) = repository.signed_time() {
            self.world.floor(time);
        }
        let mut shared = self.lock();
        shared.store.saved.checked = Some(now());
        shared.store.saved.offered = channel.version.clone();
        shared.store.saved.root_expires = root_expires;
        let warnings = warnings(&shared.store.saved, now());
        if !shared.warned {
            warnings.iter().for_each(|warning| self.world.say(&format!("updater: {warning}")));
        }
        shared.warned = !warnings.is_empty();
        self.save(&mut shared);
        Ok(decide::goal(&self.host, &channel, &shared.store.saved, wish))
    }

    /// Looks, and installs what is to be installed.
    pub(super) fn attempt(&self, wish: &Wish) -> Result<Outcome> {
        let Ok(_busy) = self.busy.try_lock() else { return Ok(is_busy()) };
        if let Some(refused) = self.not_now() {
            return Ok(refused);
        }
        if !wish.asked && self.waits_by_wish() {
            return Ok(Outcome::Refused("what a person chose waits for its restart".to_owned()));
        }
        let mut repository = self.world.repository()?;
        let version = match self.refresh(&mut *repository, wish)? {
            Goal::Install(version) => version,
            Goal::Nothing(why) | Goal::Refuse(why) => {
                self.drop_what_waits()?;
                return Ok(Outcome::Refused(why));
            }
        };
        let release = self.next_stone(&mut *repository, &version)?;
        let saved = self.lock().store.saved.clone();
        let wanted = release.version.clone();
        let objection = decide::objection(&self.host, &release, &wanted, &saved, wish);
        if let Some(why) = objection {
            return Ok(Outcome::Refused(why));
        }
        let plan = Plan::new(&self.disk, self.running, &release, self.config.trial.tries)?;
        if plan.is_staged(&self.disk)? {
            return Ok(Outcome::Done(format!("{wanted} starts next, on trial")));
        }
        self.begin(&release, &plan, wish);
        let installed = self.install(&release, &plan, repository);
        self.end(&release, &plan, installed)?;
        Ok(Outcome::Done(format!("{wanted} is installed and starts next, on trial")))
    }

    /// Whether a person's choice is installed and not started yet.
    fn waits_by_wish(&self) -> bool {
        let shared = self.lock();
        let waits = matches!(shared.stand, Stand::Staged { .. } | Stand::Waiting { .. });
        waits && shared.store.saved.attempt.as_ref().is_some_and(|attempt| attempt.asked)
    }

    /// The release itself, or one that has to run before it.
    fn next_stone(&self, repository: &mut dyn Repository, version: &str) -> Result<Release> {
        let mut release = repository.release(version)?;
        for _ in 0..MAX_STONES {
            let Some(stone) = release.min_from.clone() else { return Ok(release) };
            // A release that names itself would be looked at for ever.
            let helps = compare(&self.host.version, &stone).is_lt()
                && compare(&stone, &release.version).is_lt();
            if !helps {
                return Ok(release);
            }
            self.world.say(&format!("updater: {} needs {stone} to run first", release.version));
            release = repository.release(&stone)?;
        }
        Err(Error::Refused(format!("more than {MAX_STONES} releases have to run before {version}")))
    }

    /// A release that waits for its restart and is no longer wanted does not start.
    fn drop_what_waits(&self) -> Result<()> {
        let mut shared = self.lock();
        let (Stand::Staged { version } | Stand::Waiting { version, .. }) = shared.stand.clone()
        else {
            return Ok(());
        };
        let target = self.running.other();
        // It is whole, and stays as the last resort.
        let give_up = |record: &Record| {
            let mut next = *record;
            next.give_up(target, "no longer wanted");
            matches!(record[target].state, State::Trial { .. }).then_some(next)
        };
        self.disk.state.change(give_up).on("write", "the boot record")?;
        shared.store.saved.attempt = None;
        self.event(&mut shared, &version, Some(target), "dropped", "no longer wanted", Vec::new());
        self.go(&mut shared, Stand::Idle);
        self.save(&mut shared);
        Ok(())
    }

    fn begin(&self, release: &Release, plan: &Plan, wish: &Wish) {
        self.world.forget_words(plan.target());
        let mut shared = self.lock();
        let version = release.version.clone();
        shared.store.saved.attempt = Some(Attempt {
            version: version.clone(),
            root_hash: release.root.root_hash.clone(),
            slot: plan.target().name().to_owned(),
            from: self.host.version.clone(),
            min_version: release.min_version.clone(),
            asked: wish.asked,
            no_reboot: wish.no_reboot,
        });
        shared.progress = None;
        shared.downloaded = 0;
        self.go(&mut shared, Stand::Downloading { version: version.clone() });
        self.save(&mut shared);
        self.world.say(&format!("updater: installing {version} into slot {}", plan.target()));
    }

    fn end(&self, release: &Release, plan: &Plan, installed: Result<()>) -> Result<()> {
        let mut shared = self.lock();
        shared.progress = None;
        let (version, slot) = (release.version.clone(), Some(plan.target()));
        let downloaded = shared.downloaded;
        match &installed {
            Ok(()) => {
                let why =
                    format!("{downloaded} bytes downloaded; it replaces {}", self.host.version);
                self.event(&mut shared, &version, slot, "installed", &why, Vec::new());
                self.go(&mut shared, Stand::Staged { version: version.clone() });
                self.world.say(&format!(
                    "updater: {version} is installed, {downloaded} bytes downloaded"
                ));
            }
            Err(e) => {
                self.event(&mut shared, &version, slot, "interrupted", &chain(e), Vec::new());
                self.go(&mut shared, Stand::Idle);
            }
        }
        self.save(&mut shared);
        installed
    }

    /// Tries the ways that there are, the smallest first.
    fn install(
        &self,
        release: &Release,
        plan: &Plan,
        mut repository: Box<dyn Repository>,
    ) -> Result<()> {
        let record = install::read_record(&self.disk)?;
        let root_len = self.disk.root_len(self.running)?;
        let old = Old::new(&self.disk, self.running, record[self.running].uki_len, root_len);
        let none = Old::new(&self.disk, self.running, 0, 0);
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        repository.listen(Box::new(move |bytes| {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }));
        let mut last = Err(Error::Refused(format!(
            "{} cannot be had as a patch from {}, and update.full is `never`",
            release.version, self.host.version
        )));
        for route in routes(release, &self.host.root_hash, self.config.full) {
            let (parts, images, held) = match route {
                Route::Patch(parts) => (parts, old.images(), false),
                Route::Chunks(parts) => (parts, old.images(), true),
                Route::Whole(parts) => (parts, none.images(), false),
            };
            let mut tenth = 0;
            let mut progress = |step: Step| {
                let mut shared = self.lock();
                shared.downloaded = received.load(Ordering::Relaxed);
                shared.progress = match step {
                    Step::Looking(done, all) | Step::Writing(done, all) => Some((done, all)),
                    Step::Checking | Step::Committed => shared.progress,
                };
                self.tell(&mut shared);
                if let Step::Writing(done, all) = step
                    && done * 10 / all.max(1) > tenth
                {
                    tenth = done * 10 / all.max(1);
                    let version = &release.version;
                    self.world.say(&format!("updater: {version} {} % written", tenth * 10));
                }
            };
            last = Parcel::open(parts, images, held, &mut *repository, &mut |_, _| {})
                .and_then(|mut parcel| plan.run(&self.disk, &mut parcel, &mut progress));
            match &last {
                // A patch that does not apply: the running slot has rotted, or it was made wrong.
                Err(Error::Content(why)) => {
                    self.world
                        .say(&format!("updater: {}: {why}; trying another way", release.version));
                }
                _ => break,
            }
        }
        self.lock().downloaded = received.load(Ordering::Relaxed);
        last
    }
}

/// The ways to a release, the smallest first.
fn routes<'a>(release: &'a Release, running_root: &str, full: Full) -> Vec<Route<'a>> {
    let patch = release.patches.iter().find(|patch| patch.from_root_hash == running_root);
    let patch = patch.map(|patch| Route::Patch(&patch.content));
    let chunks = [Route::Chunks(&release.content), Route::Whole(&release.content)];
    match full {
        Full::Always => vec![Route::Whole(&release.content)],
        Full::Never => patch.into_iter().collect(),
        Full::Allowed => patch.into_iter().chain(chunks).collect(),
    }
}
