//! From a boot record to a started system.

use crate::failure::Failure;
use crate::layout::{self, Layout};
use crate::machine::Machine;
use crate::store::{self, Stored};
use contract::Slot;
use contract::boot::{Choice, Failed, Why, choose};
use contract::layout::{BLOCK, RECORD_OFFSETS};
use contract::record::{Record, SlotEntry, State};
use contract::text::Text;
use contract::trailer;
use core::fmt::{self, Write};
use sha2::{Digest, Sha256};

/// Bytes that are read at once: large enough that firmware is not the bottleneck, small enough to
/// be hashed out of the processor's cache.
const CHUNK: usize = 1 << 20;

/// Starts a slot of this machine's disk. Comes back only when none could be started; why was said
/// by then.
pub fn pick<M: Machine>(machine: &mut M) {
    let layout = match layout::find(machine) {
        Ok(layout) => layout,
        Err(why) => return machine.say(format_args!("nothing is bootable: {why}")),
    };
    let Stored { record, lost } = store::read_record(machine, &layout);
    for (i, lost) in lost.into_iter().enumerate() {
        if let Some(lost) = lost {
            machine.say(format_args!("boot record copy {}: {lost}", i + 1));
        }
    }
    let (record, next_offset) = match record {
        Some((record, offset)) => (record, Some(offset)),
        None => match recover(machine, &layout) {
            // No record is written over the lost ones. They may be of a later format, or only
            // unreadable today; and what is known of health is not enough to vouch for. `init`
            // writes a new record once the system is up.
            Some(record) => (record, None),
            None => {
                let text =
                    "nothing is bootable: boot record lost, no whole trailer in boot-a, boot-b";
                store::journal(machine, &layout, None, false, format_args!("{text}"));
                return machine.say(format_args!("{text}"));
            }
        },
    };
    let failures = [Failure::Empty; 2];
    let mut run = Run { machine, layout, record, next_offset, failures };
    run.slots();
    let [a, b] = run.failures;
    run.report(None, false, format_args!("nothing is bootable: slot a: {a}; slot b: {b}"));
}

/// The record as the boot partitions tell it, when both copies are lost.
fn recover(machine: &mut impl Machine, layout: &Layout) -> Option<Record> {
    let trailers = Slot::ALL.map(|slot| store::read_trailer(machine, layout, slot));
    let record = trailer::recover(trailers)?;
    let text = format_args!("boot record lost: slots are known from their own partitions");
    store::journal(machine, layout, None, false, text);
    machine.say(text);
    Some(record)
}

struct Run<'m, M> {
    machine: &'m mut M,
    layout: Layout,
    record: Record,
    /// Where the next record goes; `None` when none is to be written.
    next_offset: Option<u64>,
    failures: [Failure; 2],
}

impl<M: Machine> Run<'_, M> {
    /// Tries slots until one starts or none is left.
    fn slots(&mut self) {
        let mut failed: Failed = [false; 2];
        // Trials that cannot be counted, because the record cannot be written, would never end.
        // They have to wait for everything else.
        let mut uncounted: Failed = [false; 2];
        let mut patient = true;
        loop {
            let set_aside = [0, 1].map(|i| failed[i] || (patient && uncounted[i]));
            let Some(choice) = choose(&self.record, set_aside) else {
                if patient && uncounted != [false; 2] {
                    patient = false;
                    continue;
                }
                return;
            };
            let slot = choice.slot;
            let trial = matches!(choice.why, Why::Trial { .. });
            if let Some(next) = choice.record {
                let written = self.write(&next);
                if !written && trial && patient {
                    uncounted[slot.index()] = true;
                    let text = format_args!("slot {slot} set aside: its start cannot be counted");
                    self.report(Some(slot), true, text);
                    continue;
                }
                self.adopt(next, written);
            }
            let failure = self.start(choice);
            failed[slot.index()] = true;
            self.failures[slot.index()] = failure;
            self.give_up(slot, failure);
        }
    }

    /// Checks and starts a slot. Comes back with the reason why that did not work.
    fn start(&mut self, Choice { slot, why, .. }: Choice) -> Failure {
        self.machine.rearm_watchdog();
        let SlotEntry { version, reason, .. } = self.record[slot];
        let image = match self.load(slot) {
            Ok(image) => image,
            Err(failure) => return failure,
        };
        match why {
            Why::Healthy => {
                self.machine.say(format_args!("slot {slot}, version {version}, healthy"));
            }
            Why::Trial { left } => {
                let text = format_args!(
                    "slot {slot}, version {version}, on trial, {left} {} left",
                    if left == 1 { "start" } else { "starts" }
                );
                self.report(Some(slot), true, text);
            }
            Why::LastResort => self.machine.say(format_args!(
                "slot {slot}, version {version}, last resort, given up before: {reason}"
            )),
        }
        Failure::CameBack(self.machine.start(slot, image))
    }

    /// Reads the UKI of `slot`, checks it against the record, and hands it to the firmware, which
    /// would accept half a UKI and stop dead in it.
    fn load(&mut self, slot: Slot) -> Result<M::Image, Failure> {
        let Some(boot) = self.layout.boot[slot.index()] else {
            return Err(Failure::NoPartition(slot));
        };
        let SlotEntry { uki_len, uki_sha256, .. } = self.record[slot];
        let room = boot.len().saturating_sub(BLOCK as u64);
        let len = match usize::try_from(uki_len) {
            Ok(len) if len > 0 && uki_len <= room => len,
            _ => return Err(Failure::Length(uki_len, slot)),
        };
        let mut pages = self.machine.pages(len).map_err(|fault| Failure::Memory(len, fault))?;
        let mut hasher = Sha256::new();
        // Whole blocks: the last one reaches into the room of the trailer at most.
        for at in (0..len).step_by(CHUNK) {
            let end = (at + CHUNK).min(len.next_multiple_of(BLOCK));
            boot.read(self.machine, at as u64, &mut pages[at..end])
                .map_err(|fault| Failure::Read(slot, at, fault))?;
            hasher.update(&pages[at..end.min(len)]);
        }
        if hasher.finalize()[..] != uki_sha256[..] {
            return Err(Failure::Digest);
        }
        self.machine.load(&pages[..len]).map_err(Failure::Load)
    }

    /// Gives `slot` up; writes the record only when that is new.
    fn give_up(&mut self, slot: Slot, failure: Failure) {
        let mut reason = Text::<128>::EMPTY;
        // A reason that is cut short is better than none.
        let _ = write!(reason, "{failure}");
        let mut next = self.record;
        next.give_up(slot, reason.as_str());
        let changed = next != self.record;
        if changed {
            let next = next.successor();
            let written = self.write(&next);
            self.adopt(next, written);
        } else {
            self.report(Some(slot), false, format_args!("slot {slot} given up: {reason}"));
        }
    }

    /// Writes `next` to the disk. False when it is not there.
    fn write(&mut self, next: &Record) -> bool {
        let Some(offset) = self.next_offset else {
            return false;
        };
        match store::write_record(self.machine, &self.layout, offset, next) {
            Ok(()) => {
                let [first, second] = RECORD_OFFSETS;
                self.next_offset = Some(if offset == first { second } else { first });
                true
            }
            Err(fault) => {
                // Not tried again in this boot: the other copy is the one that counts.
                self.next_offset = None;
                self.report(None, true, format_args!("write boot record: {fault}"));
                false
            }
        }
    }

    /// Goes on with `next` and reports the slots that it newly gives up.
    fn adopt(&mut self, next: Record, written: bool) {
        let before = core::mem::replace(&mut self.record, next);
        for slot in Slot::ALL {
            let SlotEntry { state, reason, .. } = next[slot];
            if state == State::GivenUp && before[slot] != next[slot] {
                let text = format_args!("slot {slot} given up: {reason}");
                self.report(Some(slot), written, text);
            }
        }
    }

    /// Journals and says `text`, in this order: what one reads on the console is on the disk.
    fn report(&mut self, slot: Option<Slot>, anew: bool, text: fmt::Arguments) {
        store::journal(self.machine, &self.layout, slot, anew, text);
        self.machine.say(text);
    }
}

#[cfg(test)]
mod tests;
