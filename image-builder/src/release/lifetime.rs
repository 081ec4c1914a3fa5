//! How long signatures are good for.

use crate::{Error, Result};
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::str::FromStr;

/// A length of time as a person writes it: `12h`, `30d`, `8w`, `10y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime {
    hours: u32,
}

impl Lifetime {
    /// So many days.
    pub const fn days(days: u32) -> Lifetime {
        Lifetime { hours: days * 24 }
    }

    /// Root metadata. It changes by hand, with keys that lie in a safe: ten years, like the sizes
    /// of partitions. What bounds an attacker who holds back newer metadata is the timestamp.
    pub const ROOT: Lifetime = Lifetime::days(3650);

    /// The moment this long after `now`, in whole seconds.
    pub fn after(self, now: Timestamp) -> Result<Timestamp> {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let too_far = |_| Error::refused(format!("{self} from now is beyond the calendar"));
        now.checked_add(SignedDuration::from_hours(self.hours.into())).map_err(too_far)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hours {
            h if h % 8760 == 0 => write!(f, "{}y", h / 8760),
            h if h % 24 == 0 => write!(f, "{}d", h / 24),
            h => write!(f, "{h}h"),
        }
    }
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Lifetime, String> {
        let wrong = || format!("`{text}` is not a time like 12h, 30d, 8w or 10y");
        let (number, hours) = match text.split_at_checked(text.len().saturating_sub(1)) {
            Some((number, "h")) => (number, 1),
            Some((number, "d")) => (number, 24),
            Some((number, "w")) => (number, 7 * 24),
            Some((number, "y")) => (number, 365 * 24),
            _ => return Err(wrong()),
        };
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        match number.parse::<u32>().ok().and_then(|n| n.checked_mul(hours)) {
            Some(hours) if digits && (1..=100 * 8760).contains(&hours) => Ok(Lifetime { hours }),
            Some(_) if digits => Err(format!("{text} is not between 1h and 100y")),
            _ => Err(wrong()),
        }
    }
}

/// Lifetimes of what is signed when something is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The list of releases and channels.
    pub targets: Lifetime,
    /// Which list counts.
    pub snapshot: Lifetime,
    /// That it still counts. This one bounds how long an attacker can hide a newer list.
    pub timestamp: Lifetime,
}

impl Default for Lifetimes {
    fn default() -> Lifetimes {
        Lifetimes {
            targets: Lifetime::days(3 * 365),
            snapshot: Lifetime::days(90),
            timestamp: Lifetime::days(30),
        }
    }
}

/// Whether less than half of `lifetime` is left until `expires`.
pub fn is_due(expires: Timestamp, lifetime: Lifetime, now: Timestamp) -> bool {
    expires.duration_since(now) < SignedDuration::from_hours(lifetime.hours.into()) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_writes() {
        for (text, shown) in [("12h", "12h"), ("48h", "2d"), ("8w", "56d"), ("10y", "10y")] {
            assert_eq!(text.parse::<Lifetime>().map(|l| l.to_string()), Ok(shown.to_owned()));
        }
        for bad in ["", "d", "0d", "-1d", "+1d", "1", "1m", "101y", "99999999999y", "1é"] {
            assert!(bad.parse::<Lifetime>().is_err(), "{bad}");
        }
    }

    #[test]
    fn due_in_the_second_half() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let lifetime = Lifetime::days(30);
        for (days, due) in [(0, true), (14, true), (15, false), (30, false)] {
            let expires = now + SignedDuration::from_hours(days * 24);
            assert_eq!(is_due(expires, lifetime, now), due, "{days}");
        }
    }
}
