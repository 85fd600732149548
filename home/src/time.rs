//! Instants, as commits keep them and as people write them.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

const DAY: i64 = 86_400;

/// An instant: seconds since 1970-01-01 UTC, and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    secs: i64,
    /// Below 1,000,000,000.
    nanos: u32,
}

impl Timestamp {
    /// Accepts any second and fewer than 10^9 nanoseconds.
    #[must_use]
    pub const fn new(secs: i64, nanos: u32) -> Option<Self> {
        if nanos < 1_000_000_000 {
            Some(Self { secs, nanos })
        } else {
            None
        }
    }

    /// Whole seconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.secs
    }

    /// What `secs` leaves, in nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> u32 {
        self.nanos
    }

    /// The instant `duration` earlier; the earliest there is where that lies before it.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let secs = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let (borrow, nanos) = match self.nanos.checked_sub(duration.subsec_nanos()) {
            Some(nanos) => (0, nanos),
            None => (1, self.nanos + 1_000_000_000 - duration.subsec_nanos()),
        };
        Self {
            secs: self.secs.saturating_sub(secs).saturating_sub(borrow),
            nanos,
        }
    }

    /// How long after `earlier` this instant is; nothing where it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        if self <= earlier {
            return Duration::ZERO;
        }
        let secs = self.secs.abs_diff(earlier.secs);
        match self.nanos.checked_sub(earlier.nanos) {
            Some(nanos) => Duration::new(secs, nanos),
            None => Duration::new(secs - 1, 1_000_000_000 + self.nanos - earlier.nanos),
        }
    }

    /// Reads `2026-11-25` (its beginning, UTC) or an instant as RFC 3339 has it: `2026-11-25T12:30:00Z`,
    /// `2026-11-25T13:30:00.25+01:00`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some((date, time)) = text.split_once(['T', 't']) else {
            return Some(Self {
                secs: day(text)? * DAY,
                nanos: 0,
            });
        };
        let (time, east) = zone(time)?;
        let (time, nanos) = match time.split_once('.') {
            Some((time, digits)) => (time, fraction(digits)?),
            None => (time, 0),
        };
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        (hour < 24 && minute < 60 && second < 60).then_some(Self {
            secs: day(date)? * DAY + hour * 3600 + minute * 60 + second - east,
            nanos,
        })
    }
}

/// Days since 1970-01-01 of `2026-11-25`.
fn day(text: &str) -> Option<i64> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
    days_from_civil(year, month, day)
}

/// Takes `Z` or `+01:00` off the end of a time: the rest, and how many seconds the zone is ahead of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let (time, zone) = time.split_at(time.rfind(['+', '-'])?);
    let (sign, zone) = zone.split_at_checked(1)?;
    let (hours, minutes) = zone.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    let east = hours * 3600 + minutes * 60;
    let sound = hours < 24 && minutes < 60;
    sound.then_some((time, if sign == "-" { -east } else { east }))
}

fn two_digits(text: &str) -> Option<i64> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The nanoseconds of what follows the dot: digits beyond the ninth are cut off.
fn fraction(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}").get(..9)?.parse().ok()
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let epoch = Self::default();
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self {
                secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(earlier) => epoch.before(earlier.duration()),
        }
    }
}

/// RFC 3339 in UTC, to the second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.secs.div_euclid(DAY));
        let second = self.secs.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Three numbers of exactly these many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Days since 1970-01-01 of a date that exists (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// The date of a day; the other half of the same paper.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // An instant of the far past or future is shown as the first or last day that fits.
    let z = days.saturating_add(719_468);
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-25T12:30:00Z", 1_795_609_800),
        ] {
            assert_eq!(Timestamp::parse(text), Timestamp::new(secs, 0), "{text}");
            assert_eq!(Timestamp::new(secs, 5).unwrap().to_string(), text);
        }
        let noon = Timestamp::parse("2026-11-25T12:00:00Z");
        for same in [
            "2026-11-25T13:30:00+01:30",
            "2026-11-24T22:00:00-14:00",
            "2026-11-25t12:00:00.000z",
        ] {
            assert_eq!(Timestamp::parse(same), noon, "{same}");
        }
        let quarter = Timestamp::parse("2026-11-25T12:00:00.2500000009Z").unwrap();
        assert_eq!(quarter.since(noon.unwrap()), Duration::from_millis(250));
        let far = Timestamp::new(i64::MIN, 0).unwrap();
        assert!(!far.to_string().is_empty());
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2026",
            "2026-2-3",
            "2026-02-30",
            "2026-13-01",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+01:60",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.-5Z",
            "2026-01-01T00:00:00é",
            "2026-01-01T00:00:00+é1:00",
            "+026-01-01",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn earlier_borrows_a_second() {
        let at = |secs, nanos| Timestamp::new(secs, nanos).unwrap();
        assert_eq!(at(10, 1).before(Duration::new(3, 2)), at(6, 999_999_999));
        assert_eq!(at(10, 1).since(at(6, 999_999_999)), Duration::new(3, 2));
        assert_eq!(at(6, 0).since(at(10, 0)), Duration::ZERO);
        assert_eq!(
            at(i64::MAX, 0).since(at(i64::MIN, 1)),
            Duration::new(u64::MAX - 1, 999_999_999)
        );
        let time = SystemTime::UNIX_EPOCH - Duration::new(0, 1);
        assert_eq!(Timestamp::from(time), at(-1, 999_999_999));
    }
}
