//! Which slot boots. One pure function, used by the slot picker, the updater, `berth inspect` and
//! the tests: there is no second implementation.

use crate::layout::Slot;
use crate::record::{Record, State};

/// Slots that already failed since the machine was switched on, by [`Slot::index`].
pub type Failed = [bool; 2];

/// Why a slot was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the preferred healthy slot. Such boots are not counted: power cycling cannot flip
    /// slots.
    Healthy,
    /// It is on trial, with this many starts left after this one.
    Trial {
        /// Starts left.
        left: u8,
    },
    /// It was given up, and there is nothing better.
    LastResort,
}

/// What to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The slot to start.
    pub slot: Slot,
    /// Why this one.
    pub why: Why,
    /// The record to write, and flush, *before* the slot is started; `None` when nothing changes.
    /// Its sequence number is already raised.
    pub record: Option<Record>,
}

/// Chooses a slot that has not `failed` in this boot.
///
/// Healthy slots and slots with tries left come first, by priority; then slots that were given
/// up, because a machine that starts an unhealthy system can be repaired from afar and one that
/// starts nothing cannot. A trial without tries left counts as given up, and the returned record
/// says so. `None`: no slot is left.
pub fn choose(record: &Record, failed: Failed) -> Option<Choice> {
    let mut next = *record;
    for slot in Slot::ALL {
        if next[slot].state == (State::Trial { tries: 0 }) {
            next.give_up(slot, "no tries left");
        }
    }
    let rank = |slot: Slot| match next[slot].state {
        State::Healthy | State::Trial { .. } => Some((2, next[slot].priority)),
        State::GivenUp => Some((1, next[slot].priority)),
        State::Empty => None,
    };
    let slot = match Slot::ALL.map(|slot| rank(slot).filter(|_| !failed[slot.index()])) {
        [None, None] => return None,
        [a, b] if a >= b => Slot::A,
        _ => Slot::B,
    };
    let why = match next[slot].state {
        State::Trial { tries } => {
            next[slot].state = State::Trial { tries: tries - 1 };
            Why::Trial { left: tries - 1 }
        }
        State::Healthy => Why::Healthy,
        _ => Why::LastResort,
    };
    let changed = (next != *record).then(|| next.successor());
    Some(Choice { slot, why, record: changed })
}

impl Record {
    /// The same record with the next sequence number: what a write puts on the disk.
    pub fn successor(&self) -> Record {
        Record { sequence: self.sequence.saturating_add(1), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SlotEntry;
    use proptest::prelude::*;

    fn entry(state: State, priority: u8) -> SlotEntry {
        SlotEntry { state, priority, ..SlotEntry::EMPTY }
    }

    fn record(a: SlotEntry, b: SlotEntry) -> Record {
        Record { sequence: 1, slots: [a, b] }
    }

    #[test]
    fn table() {
        use State::*;
        let trial = |tries| Trial { tries };
        let none = [false; 2];
        let cases = [
            // a, b, failed, expected slot and reason
            ((Healthy, 1), (Empty, 0), none, Some((Slot::A, Why::Healthy))),
            ((Healthy, 1), (trial(3), 2), none, Some((Slot::B, Why::Trial { left: 2 }))),
            ((Healthy, 1), (trial(1), 2), none, Some((Slot::B, Why::Trial { left: 0 }))),
            ((Healthy, 1), (trial(0), 2), none, Some((Slot::A, Why::Healthy))),
            ((Healthy, 1), (Healthy, 2), none, Some((Slot::B, Why::Healthy))),
            ((Healthy, 2), (Healthy, 2), none, Some((Slot::A, Why::Healthy))),
            ((Healthy, 1), (GivenUp, 9), none, Some((Slot::A, Why::Healthy))),
            ((GivenUp, 1), (GivenUp, 2), none, Some((Slot::B, Why::LastResort))),
            ((Healthy, 1), (Healthy, 2), [false, true], Some((Slot::A, Why::Healthy))),
            ((GivenUp, 1), (Healthy, 2), [false, true], Some((Slot::A, Why::LastResort))),
            ((Healthy, 1), (Empty, 0), [true, false], None),
            ((Empty, 0), (Empty, 0), none, None),
        ];
        for (a, b, failed, expected) in cases {
            let choice = choose(&record(entry(a.0, a.1), entry(b.0, b.1)), failed);
            assert_eq!(choice.map(|c| (c.slot, c.why)), expected, "{a:?} {b:?} {failed:?}");
        }
    }

    #[test]
    fn sequence_numbers_do_not_start_again() {
        let last = Record { sequence: u64::MAX, ..record(SlotEntry::EMPTY, SlotEntry::EMPTY) };
        assert_eq!(last.successor().sequence, u64::MAX);
    }

    fn any_entry() -> impl Strategy<Value = SlotEntry> {
        let state = prop_oneof![
            Just(State::Empty),
            Just(State::Healthy),
            Just(State::GivenUp),
            (0..4u8).prop_map(|tries| State::Trial { tries }),
        ];
        (state, 0..3u8).prop_map(|(state, priority)| entry(state, priority))
    }

    proptest! {
        #[test]
        fn something_that_was_ever_written_boots(a in any_entry(), b in any_entry()) {
            let record = record(a, b);
            let empty = a.state == State::Empty && b.state == State::Empty;
            prop_assert_eq!(choose(&record, [false; 2]).is_none(), empty);
        }

        #[test]
        fn healthy_boots_change_nothing(a in any_entry(), b in any_entry()) {
            let record = record(a, b);
            if let Some(choice) = choose(&record, [false; 2])
                && choice.why == Why::Healthy
                && let Some(written) = choice.record
            {
                // Only a spent trial of the other slot may have been noted, and only once.
                prop_assert_eq!(choose(&written, [false; 2]).and_then(|c| c.record), None);
            }
        }

        #[test]
        fn a_trial_ends_by_itself(a in any_entry(), tries in 0..4u8, priority in 0..3u8) {
            let mut now = record(a, entry(State::Trial { tries }, priority));
            // Slot A may be on trial too, and preferred.
            for _ in 0..16 {
                if let Some(written) = choose(&now, [false; 2]).and_then(|c| c.record) {
                    prop_assert_eq!(written.sequence, now.sequence + 1);
                    now = written;
                }
            }
            let end = choose(&now, [false; 2]).expect("slot B was written");
            let b_on_trial = end.slot == Slot::B && matches!(end.why, Why::Trial { .. });
            prop_assert!(!b_on_trial);
        }

        #[test]
        fn a_failed_slot_is_not_chosen_again(a in any_entry(), b in any_entry(), i in 0..2usize) {
            let mut failed = [false; 2];
            failed[i] = true;
            if let Some(choice) = choose(&record(a, b), failed) {
                prop_assert_ne!(choice.slot.index(), i);
            }
        }
    }
}
