//! What a host says about its updates: the states that one goes through, and the words of the
//! updater's socket.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The socket of the updater: one JSON [`Request`] a line in, one JSON [`Response`] a line out.
pub const SOCKET: &str = "/run/berth/updater.sock";

/// Where an update stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nothing is to be done.
    Idle,
    /// A release is on its way into the other slot.
    Downloading {
        /// Its version.
        version: String,
    },
    /// It is there, whole, and starts at the next restart.
    Staged {
        /// Its version.
        version: String,
    },
    /// It is there and the host may not restart yet.
    Waiting {
        /// Its version.
        version: String,
        /// For what.
        why: String,
    },
    /// The host restarts into it.
    Rebooting {
        /// Its version.
        version: String,
    },
    /// It runs and has yet to prove itself.
    Trial {
        /// Its version.
        version: String,
    },
    /// It runs and has proved itself.
    Healthy {
        /// Its version.
        version: String,
    },
    /// It failed, and the host runs the system before it again.
    RolledBack {
        /// The version that failed.
        version: String,
        /// Why.
        why: String,
    },
}

/// A step that an update cannot make from where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an update that is {from} cannot become {to}")]
pub struct IllegalMove {
    from: &'static str,
    to: &'static str,
}

impl State {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Downloading { .. } => "downloading",
            State::Staged { .. } => "staged",
            State::Waiting { .. } => "waiting",
            State::Rebooting { .. } => "rebooting",
            State::Trial { .. } => "trial",
            State::Healthy { .. } => "healthy",
            State::RolledBack { .. } => "rolled-back",
        }
    }

    /// The release that it is about.
    pub fn version(&self) -> Option<&str> {
        match self {
            State::Idle => None,
            State::Downloading { version }
            | State::Staged { version }
            | State::Waiting { version, .. }
            | State::Rebooting { version }
            | State::Trial { version }
            | State::Healthy { version }
            | State::RolledBack { version, .. } => Some(version),
        }
    }

    /// The move to `next`, if there is one.
    pub fn to(self, next: State) -> Result<State, IllegalMove> {
        use State::*;
        let legal = match (&self, &next) {
            // Another release, or an end without a change.
            (Idle | Healthy { .. } | RolledBack { .. }, Downloading { .. } | Idle) => true,
            // What was found staged, on trial or given up when the updater started; and the system in
            // the other slot, to which a person goes back.
            (Idle, Staged { .. } | Trial { .. } | RolledBack { .. }) => true,
            (Healthy { .. } | RolledBack { .. } | Waiting { .. }, Staged { .. }) => true,
            (Downloading { version: a }, Staged { version: b }) => a == b,
            (Downloading { .. }, Idle) => true,
            (Staged { version: a } | Waiting { version: a, .. }, Waiting { version: b, .. }) => {
                a == b
            }
            (Staged { version: a } | Waiting { version: a, .. }, Rebooting { version: b }) => {
                a == b
            }
            // A newer release takes the place of one that waits.
            (Staged { .. } | Waiting { .. }, Downloading { .. } | Idle) => true,
            (Rebooting { .. }, Rebooting { .. }) => true,
            (Trial { version: a }, Healthy { version: b }) => a == b,
            (Trial { version: a }, RolledBack { version: b, .. }) => a == b,
            _ => false,
        };
        match legal {
            true => Ok(next),
            false => Err(IllegalMove { from: self.name(), to: next.name() }),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Idle => f.write_str("idle"),
            State::Waiting { version, why } => write!(f, "waiting {version}: {why}"),
            State::RolledBack { version, why } => write!(f, "rolled-back {version}: {why}"),
            other => write!(f, "{} {}", other.name(), other.version().unwrap_or_default()),
        }
    }
}

/// What the updater is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How things stand.
    Status,
    /// Look at the repository now.
    Check,
    /// Install now, whatever the interval says.
    Apply {
        /// A release other than the channel's.
        #[serde(default)]
        version: Option<String>,
        /// Also one that failed before.
        #[serde(default)]
        force: bool,
        /// Leave the restart to someone else.
        #[serde(default)]
        no_reboot: bool,
    },
    /// Go back to the other slot.
    Rollback {
        /// Leave the restart to someone else.
        #[serde(default)]
        no_reboot: bool,
    },
    /// Stay with a release, whatever the channel says.
    Pin {
        /// The running one when none is named.
        #[serde(default)]
        version: Option<String>,
    },
    /// Follow the channel again.
    Unpin,
    /// Check both slots and the record now, and repair.
    Verify,
    /// What happened.
    History,
}

/// What the updater answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Response {
    /// How things stand.
    Status(Box<Status>),
    /// Done, or under way; in words.
    Done {
        /// What was done.
        text: String,
    },
    /// What happened, oldest first.
    History {
        /// The events.
        events: Vec<Event>,
    },
    /// There is nothing to do, or it may not be done.
    Refused {
        /// Why.
        why: String,
    },
    /// It went wrong.
    Failed {
        /// What.
        why: String,
    },
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The slot that runs, `a` or `b`.
    pub slot: String,
    /// The release that runs.
    pub version: String,
    /// Where an update stands.
    pub state: State,
    /// Bytes done and of all, while one is written.
    pub progress: Option<(u64, u64)>,
    /// Bytes downloaded by this attempt.
    pub downloaded: u64,
    /// What the other slot holds, in words.
    pub other: String,
    /// The channel that is followed.
    pub channel: String,
    /// The release that the channel named when it was last looked at.
    pub offered: Option<String>,
    /// The release that the host stays with.
    pub pinned: Option<String>,
    /// When the repository was last looked at with success, seconds since 1970 UTC.
    pub checked: Option<u64>,
    /// What went wrong last, if nothing has gone right since.
    pub problem: Option<String>,
    /// What a person has to see to before it goes wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Something that happened to this host's slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970 UTC by the host's clock.
    pub time: u64,
    /// The release that it is about.
    pub version: String,
    /// The slot that it is about.
    pub slot: Option<String>,
    /// What happened: `installed`, `healthy`, `failed`, `rolled-back`, `repaired`...
    pub what: String,
    /// Why, in words for a person.
    pub why: String,
    /// The last lines of the console, where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_goes_its_way_and_no_other() {
        let v = || "2".to_owned();
        let why = || "why".to_owned();
        let way = [
            State::Idle,
            State::Downloading { version: v() },
            State::Staged { version: v() },
            State::Waiting { version: v(), why: why() },
            State::Rebooting { version: v() },
        ];
        for pair in way.windows(2) {
            assert_eq!(pair[0].clone().to(pair[1].clone()), Ok(pair[1].clone()));
        }
        let trial = State::Trial { version: v() };
        assert!(State::Idle.to(trial.clone()).is_ok());
        assert!(trial.clone().to(State::Healthy { version: v() }).is_ok());
        assert!(trial.clone().to(State::RolledBack { version: v(), why: why() }).is_ok());
        let illegal = [
            (State::Idle, State::Rebooting { version: v() }),
            (State::Downloading { version: v() }, State::Rebooting { version: v() }),
            (State::Downloading { version: "1".into() }, State::Staged { version: v() }),
            (trial, State::Downloading { version: "3".into() }),
            (State::Rebooting { version: v() }, State::Idle),
        ];
        for (from, to) in illegal {
            assert!(from.clone().to(to.clone()).is_err(), "{from} to {to}");
        }
    }
}
