//! Scrubbing: what nobody reads rots unnoticed. Both copies of the record and the slot that does not
//! run are checked from time to time, and repaired.

use super::{Agent, chain, now};
use crate::assemble::{Old, Parcel};
use crate::disk::{Expected, Flaw};
use crate::error::{Error, On, Result};
use crate::install::{self, Plan};
use contract::Slot;
use contract::record::{Record, State};
use contract::update_status::Response;
use std::time::Duration;
use sys::block::BlockDevice;

/// The pause after each megabyte when nobody waits: at most some 20 MB a second are read.
const PAUSE: Duration = Duration::from_millis(50);

impl<D: BlockDevice + Send + Sync> Agent<D> {
    pub(super) fn scrub_due(&self) -> bool {
        let Some(every) = self.config.scrub else { return false };
        let last = self.lock().store.saved.scrubbed;
        // A host that was just installed was just verified.
        match last {
            Some(last) => now().saturating_sub(last) >= every.as_secs(),
            None => {
                let mut shared = self.lock();
                shared.store.saved.scrubbed = Some(now());
                self.save(&mut shared);
                false
            }
        }
    }

    /// Checks now, and says what was found.
    pub(super) fn verify(&self) -> Response {
        match self.scrub(true) {
            None => {
                Response::Refused { why: "an update or a check is under way already".to_owned() }
            }
            Some(Ok(lines)) => Response::Done { text: lines.join("\n") },
            Some(Err(why)) => Response::Failed { why },
        }
    }

    /// `None` when something else is under way.
    pub(super) fn scrub(&self, at_once: bool) -> Option<std::result::Result<Vec<String>, String>> {
        let _busy = self.busy.try_lock().ok()?;
        let result = self.scrub_all(at_once);
        let mut shared = self.lock();
        shared.store.saved.scrubbed = Some(now());
        self.save(&mut shared);
        Some(result.map_err(|e| {
            let text = chain(&e);
            self.world.say(&format!("updater: check of the slots: {text}"));
            shared.problem = Some(text.clone());
            text
        }))
    }

    fn scrub_all(&self, at_once: bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let repaired = self.disk.state.repair().on("repair", "the boot record")?;
        lines.push(match repaired {
            false => "boot record: both copies are whole".to_owned(),
            true => "boot record: one copy was lost and is written anew".to_owned(),
        });
        let record = install::read_record(&self.disk)?;
        let mut alive = || {
            if !at_once {
                std::thread::sleep(PAUSE);
            }
        };
        let mut rotted = None;
        for slot in [self.running, self.running.other()] {
            let entry = &record[slot];
            if entry.state == State::Empty {
                lines.push(format!("slot {slot}: empty"));
                continue;
            }
            match self.disk.check(slot, &Expected::from(entry), &mut alive)? {
                None => lines.push(format!("slot {slot}: {} is whole", entry.version)),
                Some(flaw) => {
                    let version = entry.version;
                    self.world.say(&format!("updater: slot {slot}, {version}, has rotted: {flaw}"));
                    lines.push(self.mend(slot, &record, &flaw)?);
                    rotted = rotted.or((slot == self.running).then_some(flaw));
                }
            }
        }
        match rotted {
            None => Ok(lines),
            Some(flaw) => Err(Error::Refused(format!(
                "the running slot {} has rotted ({flaw}); install a release to replace it",
                self.running
            ))),
        }
    }

    /// Repairs a slot from the repository, or sees to it that nothing relies on it.
    fn mend(&self, slot: Slot, record: &Record, flaw: &Flaw) -> Result<String> {
        let entry = record[slot];
        let version = entry.version.as_str();
        if slot == self.running {
            return Ok(format!("slot {slot}: {version} has rotted: {flaw}"));
        }
        let mended = self.fetch_again(slot, version, record);
        let mut shared = self.lock();
        match mended {
            Ok(()) => {
                let why = format!("it had rotted: {flaw}");
                self.event(&mut shared, version, Some(slot), "repaired", &why, Vec::new());
                Ok(format!("slot {slot}: {version} had rotted ({flaw}) and is repaired"))
            }
            Err(e) => {
                let reason = format!("rotted: {flaw}");
                let give_up = |record: &Record| {
                    let mut next = *record;
                    next.give_up(slot, &reason);
                    (record[slot].state != State::GivenUp).then_some(next)
                };
                self.disk.state.change(give_up).on("write", "the boot record")?;
                let why = format!("{flaw}; it cannot be repaired: {}", chain(&e));
                self.event(&mut shared, version, Some(slot), "rotted", &why, Vec::new());
                Ok(format!("slot {slot}: {version} has rotted and is given up: {why}"))
            }
        }
    }

    fn fetch_again(&self, slot: Slot, version: &str, record: &Record) -> Result<()> {
        if self.config.repository.is_empty() {
            return Err(Error::Refused("update.repository names none".to_owned()));
        }
        let mut repository = self.world.repository()?;
        repository.refresh()?;
        let release = repository.release(version)?;
        let plan = Plan::new(&self.disk, self.running, &release, self.config.trial.tries)?;
        if plan.target() != slot {
            return Err(Error::Refused(format!("slot {slot} runs")));
        }
        let root_len = self.disk.root_len(self.running)?;
        let old = Old::new(&self.disk, self.running, record[self.running].uki_len, root_len);
        let content = &release.content;
        let mut parcel =
            Parcel::open(content, old.images(), true, &mut *repository, &mut |_, _| {})?;
        plan.repair(&self.disk, &mut parcel, &mut |_| {})
    }
}
