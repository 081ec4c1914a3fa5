//! Calendar time as firmware tells it, as seconds.

/// `EFI_TIME` (UEFI 2.10, section 8.3), as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// 1900 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// Minutes that UTC is ahead of this time; 2047: unspecified, and taken for UTC.
    pub zone: i16,
}

/// Seconds since 1970 UTC; 0 for what is no time, or none since then.
pub fn unix_seconds(time: Calendar) -> u64 {
    let Calendar { year, month, day, hour, minute, second, zone } = time;
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return 0;
    }
    // Years begin in March, so that the leap day is the last of its year.
    let (year, month) = (i64::from(year), i64::from(month));
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    let zone = if (-1440..=1440).contains(&zone) { i64::from(zone) * 60 } else { 0 };
    let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    u64::try_from(days * 86_400 + of_day + zone).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: u16, month: u8, day: u8, hour: u8, zone: i16) -> u64 {
        unix_seconds(Calendar { year, month, day, hour, minute: 0, second: 0, zone })
    }

    #[test]
    fn table() {
        let cases = [
            (at(1970, 1, 1, 0, 2047), 0),
            (at(1970, 1, 1, 1, 0), 3600),
            (at(1970, 1, 1, 1, -60), 0),
            (at(1970, 1, 1, 0, -60), 0),
            (at(2000, 2, 29, 0, 0), 951_782_400),
            (at(2000, 3, 1, 0, 0), 951_868_800),
            (at(2026, 11, 21, 12, 2047), 1_795_262_400),
            (at(2100, 3, 1, 0, 0), 4_107_542_400),
            (at(2026, 13, 1, 0, 0), 0),
            (at(0, 0, 0, 0, 0), 0),
        ];
        for (i, (seconds, expected)) in cases.into_iter().enumerate() {
            assert_eq!(seconds, expected, "case {i}");
        }
    }
}
