//! What a slot on trial has to show before it counts as healthy: everything that was asked for
//! runs, goes on running for a while, and the network is up.
//!
//! A pure state machine; `serve` asks it what to do next.

use contract::update;
use std::time::Duration;

/// Where a trial stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Something does not run yet.
    Waiting,
    /// Everything has run since then.
    Soaking { since: Duration },
    /// It is being looked whether it still does.
    Checking,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// Look whether everything still runs, and tell [`Trial::checked`].
    Check,
}

/// The trial of the slot that runs.
#[derive(Clone, Debug)]
pub struct Trial {
    rules: update::Trial,
    state: State,
    problem: Option<String>,
}

impl Trial {
    /// It begins.
    pub fn new(rules: update::Trial) -> Trial {
        Trial { rules, state: State::Waiting, problem: None }
    }

    /// When it will have failed, if the configuration says so; `start` is the start of this boot.
    pub fn deadline(&self, start: Duration) -> Option<Duration> {
        Some(start + self.rules.deadline?)
    }

    /// When [`Trial::step`] is due.
    pub fn wake(&self) -> Option<Duration> {
        match self.state {
            State::Soaking { since } => Some(since + self.rules.soak),
            State::Waiting | State::Checking => None,
        }
    }

    /// What keeps it from ending well, if that is known.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes in how things are; `Err` says what is missing.
    pub fn step(&mut self, now: Duration, well: Result<(), &str>) -> Option<Do> {
        match (well, &self.state) {
            (Err(why), _) => {
                self.problem = Some(why.to_owned());
                // A check that is under way has nothing more to say.
                self.state = State::Waiting;
                None
            }
            (Ok(()), State::Waiting) => {
                self.state = State::Soaking { since: now };
                self.step(now, Ok(()))
            }
            (Ok(()), State::Soaking { since }) if now >= *since + self.rules.soak => {
                self.state = State::Checking;
                Some(Do::Check)
            }
            (Ok(()), State::Soaking { .. } | State::Checking) => None,
        }
    }

    /// Takes in what a check found; true: the trial has ended well.
    pub fn checked(&mut self, found: Result<(), String>) -> bool {
        if self.state != State::Checking {
            return false;
        }
        match found {
            Ok(()) => true,
            Err(why) => {
                self.problem = Some(why);
                self.state = State::Waiting;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(soak: u64) -> Trial {
        let soak = Duration::from_secs(soak);
        Trial::new(update::Trial { tries: 3, deadline: Some(Duration::from_secs(60)), soak })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_runs_long_enough_and_still_does_is_healthy() {
        let mut trial = trial(30);
        assert_eq!(trial.step(at(5), Err("no network")), None);
        assert_eq!(trial.problem(), Some("no network"));
        assert_eq!(trial.step(at(10), Ok(())), None);
        assert_eq!(trial.wake(), Some(at(40)));
        assert_eq!(trial.step(at(39), Ok(())), None);
        assert_eq!(trial.step(at(40), Ok(())), Some(Do::Check));
        assert_eq!(trial.step(at(41), Ok(())), None, "one check is enough");
        assert!(trial.checked(Ok(())));
        assert_eq!(trial.deadline(at(8)), Some(at(68)));
    }

    #[test]
    fn what_fails_in_between_begins_anew() {
        let mut trial = trial(30);
        assert_eq!(trial.step(at(0), Ok(())), None);
        assert_eq!(trial.step(at(20), Err("docker does not run")), None);
        assert_eq!(trial.step(at(25), Ok(())), None);
        assert_eq!(trial.step(at(30), Ok(())), None);
        assert_eq!(trial.step(at(55), Ok(())), Some(Do::Check));
        assert!(!trial.checked(Err("workload app: web is unhealthy".to_owned())));
        assert_eq!(trial.problem(), Some("workload app: web is unhealthy"));
        assert_eq!(trial.step(at(60), Ok(())), None, "it soaks again");
        assert_eq!(trial.step(at(90), Ok(())), Some(Do::Check));
    }

    #[test]
    fn a_check_that_was_overtaken_does_not_count() {
        let mut trial = trial(0);
        assert_eq!(trial.step(at(1), Ok(())), Some(Do::Check), "no soak is allowed");
        assert_eq!(trial.step(at(2), Err("no network")), None);
        assert!(!trial.checked(Ok(())));
    }
}
