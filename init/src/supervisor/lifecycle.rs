//! What becomes of a daemon: a pure state machine. Inputs and the time go in, one thing to do
//! comes out. Times are since the kernel's start.

use super::back_off::BackOff;
use std::time::Duration;

/// Waits between restarts.
const RESTART: BackOff =
    BackOff { first: Duration::from_millis(250), longest: Duration::from_secs(60) };
/// A daemon that ran this long has got over its earlier failures.
const STEADY: Duration = Duration::from_secs(60);

/// Limits of a daemon's patience, and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Within this time after its start it says `READY=1`.
    pub ready: Duration,
    /// Within this time after SIGTERM it ends; then comes SIGKILL.
    pub stop: Duration,
}

/// Where a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not wanted.
    Stopped,
    /// Wanted, to be started at this time.
    Waiting {
        /// When.
        until: Duration,
    },
    /// Runs, and has not said `READY=1` yet.
    Starting {
        /// Start of the process.
        since: Duration,
    },
    /// Serves.
    Ready {
        /// Start of the process.
        since: Duration,
    },
    /// Was asked to end.
    Ending {
        /// SIGKILL is due at this time; `None`: it was sent.
        kill_at: Option<Duration>,
        /// Whether to start it again.
        again: bool,
    },
}

/// What happens to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// It is wanted.
    Start,
    /// It is no longer wanted.
    Stop,
    /// It said `READY=1`.
    Ready,
    /// It ended, or could not be started.
    Ended,
    /// Time passes.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// Start the process.
    Spawn,
    /// Send SIGTERM to it alone: containers' shims live in its control group.
    Terminate,
    /// Send SIGKILL to it alone.
    Kill,
    /// Tell that it serves now.
    TellReady,
    /// Tell that it ended by itself, and will be started again.
    TellDied,
    /// Tell that it was not ready in time, and send SIGTERM.
    TellLate,
    /// Tell that it has stopped.
    TellStopped,
}

/// A daemon's state with its history.
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle {
    state: State,
    limits: Limits,
    failures: u32,
}

impl Lifecycle {
    /// A daemon that is not wanted yet.
    pub fn new(limits: Limits) -> Lifecycle {
        Lifecycle { state: State::Stopped, limits, failures: 0 }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Stopped | State::Ready { .. } => None,
            State::Waiting { until } => Some(until),
            State::Starting { since } => Some(since + self.limits.ready),
            State::Ending { kill_at, .. } => kill_at,
        }
    }

    /// Takes in what happened.
    pub fn step(&mut self, now: Duration, input: Input) -> Option<Do> {
        let ending = |again| State::Ending { kill_at: Some(now + self.limits.stop), again };
        let (state, what) = match (self.state, input) {
            (State::Stopped, Input::Start) => (State::Starting { since: now }, Some(Do::Spawn)),
            (State::Waiting { until }, Input::Tick) if until <= now => {
                (State::Starting { since: now }, Some(Do::Spawn))
            }
            (State::Waiting { .. }, Input::Stop) => (State::Stopped, Some(Do::TellStopped)),
            (State::Stopped, Input::Stop) => (State::Stopped, Some(Do::TellStopped)),
            (State::Starting { since }, Input::Ready) => {
                (State::Ready { since }, Some(Do::TellReady))
            }
            (State::Starting { since }, Input::Tick) if since + self.limits.ready <= now => {
                self.failures = self.failures.saturating_add(1);
                (ending(true), Some(Do::TellLate))
            }
            (State::Starting { since } | State::Ready { since }, Input::Ended) => {
                let steady = now >= since + STEADY && matches!(self.state, State::Ready { .. });
                self.failures = if steady { 1 } else { self.failures.saturating_add(1) };
                let until = now + RESTART.delay(self.failures);
                (State::Waiting { until }, Some(Do::TellDied))
            }
            (State::Starting { .. } | State::Ready { .. }, Input::Stop) => {
                (ending(false), Some(Do::Terminate))
            }
            (State::Ending { kill_at, .. }, Input::Stop) => {
                (State::Ending { kill_at, again: false }, None)
            }
            (State::Ending { kill_at, .. }, Input::Start) => {
                (State::Ending { kill_at, again: true }, None)
            }
            (State::Ending { kill_at: Some(at), again }, Input::Tick) if at <= now => {
                (State::Ending { kill_at: None, again }, Some(Do::Kill))
            }
            (State::Ending { again: true, .. }, Input::Ended) => {
                let until = now + RESTART.delay(self.failures);
                (State::Waiting { until }, None)
            }
            (State::Ending { again: false, .. }, Input::Ended) => {
                (State::Stopped, Some(Do::TellStopped))
            }
            // A second READY=1, an end that was told twice, an early tick.
            (state, _) => (state, None),
        };
        self.state = state;
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { ready: Duration::from_secs(30), stop: Duration::from_secs(10) };

    fn run(inputs: &[(u64, Input)]) -> (Lifecycle, Vec<Do>) {
        let mut life = Lifecycle::new(LIMITS);
        let done = inputs
            .iter()
            .filter_map(|(at, input)| life.step(Duration::from_secs(*at), *input))
            .collect();
        (life, done)
    }

    #[test]
    fn table() {
        use Input::*;
        type Case = (&'static [(u64, Input)], &'static [Do]);
        let cases: [Case; 8] = [
            (&[(0, Start), (1, Ready)], &[Do::Spawn, Do::TellReady]),
            (&[(0, Start), (1, Ready), (2, Ready)], &[Do::Spawn, Do::TellReady]),
            (&[(0, Start), (1, Ended), (1, Tick)], &[Do::Spawn, Do::TellDied]),
            (&[(0, Start), (1, Ended), (2, Tick)], &[Do::Spawn, Do::TellDied, Do::Spawn]),
            (
                &[(0, Start), (30, Tick), (40, Tick), (41, Ended), (43, Tick)],
                &[Do::Spawn, Do::TellLate, Do::Kill, Do::Spawn],
            ),
            (
                &[(0, Start), (1, Ready), (5, Stop), (6, Ended)],
                &[Do::Spawn, Do::TellReady, Do::Terminate, Do::TellStopped],
            ),
            (
                &[(0, Start), (1, Stop), (11, Tick), (12, Tick), (12, Ended)],
                &[Do::Spawn, Do::Terminate, Do::Kill, Do::TellStopped],
            ),
            (&[(0, Stop), (1, Start)], &[Do::TellStopped, Do::Spawn]),
        ];
        for (inputs, expected) in cases {
            assert_eq!(run(inputs).1, expected, "{inputs:?}");
        }
    }

    #[test]
    fn restarts_come_slower_until_it_ran_for_a_while() {
        let mut life = Lifecycle::new(LIMITS);
        let mut now = Duration::ZERO;
        life.step(now, Input::Start);
        let mut waits = Vec::new();
        for round in 0..6 {
            if round == 4 {
                life.step(now, Input::Ready);
                now += STEADY;
            }
            life.step(now, Input::Ended);
            let until = life.deadline().expect("a restart");
            waits.push((until - now).as_millis());
            now = until;
            assert_eq!(life.step(now, Input::Tick), Some(Do::Spawn));
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 250, 500]);
    }

    proptest! {
        #[test]
        fn what_was_stopped_stays_stopped_and_what_is_wanted_goes_on(
            inputs in proptest::collection::vec((0..20u64, 0..5usize), 0..100),
        ) {
            let kinds = [Input::Start, Input::Stop, Input::Ready, Input::Ended, Input::Tick];
            let mut life = Lifecycle::new(LIMITS);
            let (mut now, mut wanted) = (Duration::ZERO, false);
            for (later, kind) in inputs {
                now += Duration::from_secs(later);
                let what = life.step(now, kinds[kind]);
                match kinds[kind] {
                    Input::Start => wanted = true,
                    Input::Stop => wanted = false,
                    _ => {}
                }
                prop_assert!(what != Some(Do::Spawn) || wanted);
                let asleep = life.state() == State::Stopped;
                let waits_for_process = matches!(
                    life.state(), State::Ready { .. } | State::Ending { kill_at: None, .. });
                prop_assert!(!wanted || !asleep);
                prop_assert!(asleep || waits_for_process || life.deadline().is_some());
            }
        }
    }
}
