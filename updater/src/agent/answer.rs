//! What a person or a program asks the agent for.

use super::{Agent, Outcome, chain, is_busy, now, warnings};
use crate::decide::{self, Wish};
use crate::error::Error;
use crate::install;
use crate::store::{Attempt, FailedRelease};
use contract::Slot;
use contract::journal::Writer;
use contract::record::{Record, SlotEntry, State};
use contract::update_status::{Event, Request, Response, State as Stand, Status};
use std::time::Instant;
use sys::block::BlockDevice;

impl<D: BlockDevice + Send + Sync> Agent<D> {
    /// Answers a person or a program.
    pub fn answer(&self, request: &Request) -> Response {
        let outcome = match request {
            Request::Status => return self.status(),
            Request::History => return self.history(),
            Request::Check => self.look(),
            Request::Apply { version, force, no_reboot } => {
                let (version, force, no_reboot) = (version.clone(), *force, *no_reboot);
                self.apply(&Wish { asked: true, version, force, no_reboot })
            }
            Request::Rollback { no_reboot } => self.roll_back(*no_reboot),
            Request::Pin { version } => self.pin(version.as_deref()),
            Request::Unpin => self.unpin(),
            Request::Verify => return self.verify(),
        };
        match outcome {
            Ok(Outcome::Done(text)) => Response::Done { text },
            Ok(Outcome::Refused(why)) => Response::Refused { why },
            Err(e) => Response::Failed { why: chain(&e) },
        }
    }

    fn apply(&self, wish: &Wish) -> Result<Outcome, Error> {
        let outcome = self.attempt(wish)?;
        if let Outcome::Done(_) = outcome {
            let mut shared = self.lock();
            shared.restart_now = !wish.no_reboot;
            self.poke(&mut shared);
        }
        Ok(outcome)
    }

    fn roll_back(&self, no_reboot: bool) -> Result<Outcome, Error> {
        let Ok(_busy) = self.busy.try_lock() else { return Ok(is_busy()) };
        if let Some(refused) = self.not_now() {
            return Ok(refused);
        }
        let other = install::read_record(&self.disk)?[self.running.other()].version;
        if let Some(why) = decide::too_old(other.as_str(), &self.lock().store.saved) {
            return Ok(Outcome::Refused(why));
        }
        let tries = self.config.trial.tries;
        let version = install::roll_back(&self.disk, self.running, tries, &mut || {})?;
        let record = install::read_record(&self.disk)?;
        let target = self.running.other();
        let mut shared = self.lock();
        let left = FailedRelease {
            version: self.host.version.clone(),
            root_hash: self.host.root_hash.clone(),
            why: "a person went back from it".to_owned(),
        };
        let saved = &mut shared.store.saved;
        saved.failed.retain(|f| f.root_hash != left.root_hash);
        saved.failed.push(left);
        saved.attempt = Some(Attempt {
            version: version.as_str().to_owned(),
            root_hash: contract::hex::encode(&record[target].root_hash),
            slot: target.name().to_owned(),
            from: self.host.version.clone(),
            min_version: None,
            asked: true,
            no_reboot,
        });
        self.event(
            &mut shared,
            version.as_str(),
            Some(target),
            "rollback",
            &format!("a person asked to go back from {}", self.host.version),
            Vec::new(),
        );
        self.go(&mut shared, Stand::Staged { version: version.as_str().to_owned() });
        shared.restart_now = !no_reboot;
        self.save(&mut shared);
        self.poke(&mut shared);
        Ok(Outcome::Done(format!("{version} starts next, on trial")))
    }

    fn pin(&self, version: Option<&str>) -> Result<Outcome, Error> {
        let version = version.unwrap_or(&self.host.version);
        if !contract::version::is_valid(version) {
            return Ok(Outcome::Refused(format!("`{version}` is not a version")));
        }
        let mut shared = self.lock();
        shared.store.saved.pinned = Some(version.to_owned());
        shared.next_check = Instant::now();
        self.save(&mut shared);
        self.poke(&mut shared);
        Ok(Outcome::Done(format!("this host stays with {version}")))
    }

    fn unpin(&self) -> Result<Outcome, Error> {
        let mut shared = self.lock();
        let was = shared.store.saved.pinned.take();
        shared.next_check = Instant::now();
        self.save(&mut shared);
        self.poke(&mut shared);
        Ok(match was {
            None => Outcome::Refused("this host is not pinned".to_owned()),
            Some(_) => Outcome::Done(format!("this host follows channel {}", self.config.channel)),
        })
    }

    fn status(&self) -> Response {
        let other = match install::read_record(&self.disk) {
            Ok(record) => describe(&record, self.running.other()),
            Err(e) => chain(&e),
        };
        let shared = self.lock();
        let saved = &shared.store.saved;
        Response::Status(Box::new(Status {
            slot: self.running.name().to_owned(),
            version: self.host.version.clone(),
            state: shared.stand.clone(),
            progress: shared.progress,
            downloaded: shared.downloaded,
            other,
            channel: self.config.channel.clone(),
            offered: saved.offered.clone(),
            pinned: saved.pinned.clone(),
            checked: saved.checked,
            problem: shared.problem.clone(),
            warnings: warnings(saved, now()),
        }))
    }

    /// What the updater remembers and what picker and `init` wrote into the boot journal, by time.
    fn history(&self) -> Response {
        let mut events = self.lock().store.events().to_vec();
        match self.disk.state.entries() {
            Err(e) => return Response::Failed { why: format!("read the boot journal: {e}") },
            Ok(entries) => {
                let others = entries.iter().filter(|entry| entry.writer != Writer::Updater);
                events.extend(others.map(|entry| Event {
                    time: entry.time,
                    version: String::new(),
                    slot: entry.slot.map(|slot| slot.name().to_owned()),
                    what: entry.writer.to_string(),
                    why: entry.text.as_str().to_owned(),
                    console: Vec::new(),
                }));
            }
        }
        events.sort_by_key(|event| event.time);
        Response::History { events }
    }
}

fn describe(record: &Record, slot: Slot) -> String {
    let SlotEntry { state, version, reason, .. } = &record[slot];
    match state {
        State::Empty => format!("slot {slot} is empty"),
        State::Healthy => format!("slot {slot} holds {version}, healthy"),
        State::Trial { tries } => format!("slot {slot} holds {version}, {tries} starts left"),
        State::GivenUp => format!("slot {slot} holds {version}, given up: {reason}"),
    }
}
