//! Maintenance windows: times of the week, in a time zone.

use contract::update::Window;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// Whether one of `windows` is open, or when the next one opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Now.
    Open,
    /// Then.
    Opens(Timestamp),
    /// Never: no window has a day.
    Never,
    /// A window names a time zone that is not known.
    UnknownZone(String),
}

/// Looks at all windows.
pub fn gate(windows: &[Window], now: Timestamp) -> Gate {
    let mut next: Option<Timestamp> = None;
    for window in windows {
        let Ok(zone) = TimeZone::get(&window.time_zone) else {
            return Gate::UnknownZone(window.time_zone.clone());
        };
        let here = now.to_zoned(zone);
        // A window that began yesterday may still be open; the next begins within a week.
        for day in -1..=7 {
            let Some((from, to)) = on_day(window, &here, day) else { continue };
            if from <= now && now < to {
                return Gate::Open;
            }
            if from > now {
                next = Some(next.map_or(from, |known| known.min(from)));
                break;
            }
        }
    }
    next.map_or(Gate::Never, Gate::Opens)
}

/// Begin and end of the window that begins `day` days from `here`, if one does.
fn on_day(window: &Window, here: &Zoned, day: i64) -> Option<(Timestamp, Timestamp)> {
    let date = here.date().checked_add(Span::new().days(day)).ok()?;
    let weekday = date.weekday().to_monday_zero_offset() as usize;
    if !*window.days.get(weekday)? {
        return None;
    }
    let at = |minutes: u16, date: jiff::civil::Date| {
        let time = Time::new((minutes / 60) as i8, (minutes % 60) as i8, 0, 0).ok()?;
        // Times that a change of the clocks skips or repeats are taken as jiff's default does.
        date.to_datetime(time).to_zoned(here.time_zone().clone()).ok().map(|z| z.timestamp())
    };
    let end = if window.to > window.from { date } else { date.tomorrow().ok()? };
    Some((at(window.from, date)?, at(window.to, end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[usize], from: u16, to: u16, zone: &str) -> Window {
        let mut set = [false; 7];
        days.iter().for_each(|day| set[*day] = true);
        Window { days: set, from, to, time_zone: zone.to_owned() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn table() {
        // 2026-11-22 is a Sunday.
        let sunday_night = window(&[6], 22 * 60, 4 * 60, "UTC");
        let berlin = window(&[6], 2 * 60, 3 * 60, "Europe/Berlin");
        let all_day = window(&[0, 1, 2, 3, 4, 5, 6], 0, 0, "UTC");
        let never = window(&[], 0, 60, "UTC");
        let cases = [
            (&sunday_night, "2026-11-22T23:00:00Z", Gate::Open),
            (&sunday_night, "2026-11-23T03:59:59Z", Gate::Open),
            (&sunday_night, "2026-11-23T04:00:00Z", Gate::Opens(at("2026-11-29T22:00:00Z"))),
            (&sunday_night, "2026-11-22T12:00:00Z", Gate::Opens(at("2026-11-22T22:00:00Z"))),
            (&berlin, "2026-11-22T01:30:00Z", Gate::Open),
            (&berlin, "2026-11-22T02:30:00Z", Gate::Opens(at("2026-11-29T01:00:00Z"))),
            (&all_day, "2026-11-25T13:00:00Z", Gate::Open),
            (&never, "2026-11-25T13:00:00Z", Gate::Never),
        ];
        for (window, now, expected) in cases {
            assert_eq!(gate(std::slice::from_ref(window), at(now)), expected, "{now}");
        }
        // In summer Berlin is two hours ahead.
        assert_eq!(gate(std::slice::from_ref(&berlin), at("2026-07-05T00:30:00Z")), Gate::Open);
        let unknown = window(&[0], 0, 60, "Moon/Base");
        let both = gate(&[sunday_night.clone(), berlin.clone()], at("2026-11-23T12:00:00Z"));
        assert_eq!(both, Gate::Opens(at("2026-11-29T01:00:00Z")), "the earlier one");
        assert_eq!(
            gate(&[unknown], at("2026-11-23T12:00:00Z")),
            Gate::UnknownZone("Moon/Base".into())
        );
    }

    #[test]
    fn the_hour_that_is_skipped_is_no_panic() {
        // In Berlin 02:00 to 03:00 does not exist on 2026-03-29.
        let window = window(&[6], 2 * 60, 3 * 60, "Europe/Berlin");
        let gate = gate(&[window], at("2026-03-29T00:59:00Z"));
        assert!(matches!(gate, Gate::Open | Gate::Opens(_)), "{gate:?}");
    }
}
