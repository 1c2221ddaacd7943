//! Calendar dates as day numbers, for review dates.

use std::time::{SystemTime, UNIX_EPOCH};

/// Days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Day(pub i64);

/// Today, in UTC.
pub fn today() -> Day {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Day(i64::try_from(since_epoch.as_secs() / 86_400).unwrap_or(i64::MAX))
}

impl Day {
    /// Parses `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || [year.len(), month.len(), day.len()] != [4, 2, 2] {
            return None;
        }
        let (year, month, day): (i64, i64, i64) =
            (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
        let month_days = match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        (1..=month_days).contains(&day).then(|| Self::from_civil(year, month, day))
    }

    /// Counts days in years that begin in March, so that the leap day is the last of its year.
    fn from_civil(year: i64, month: i64, day: i64) -> Self {
        let shifted_year = if month <= 2 { year - 1 } else { year };
        let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
        let leap_days = shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
        const DAYS_BEFORE_1970: i64 = 719_468;
        Self(shifted_year * 365 + leap_days + days_before_month + day - 1 - DAYS_BEFORE_1970)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_the_unix_epoch() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1970-03-01", 59),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2024-12-31", 20_088),
            ("2026-11-21", 20_778),
        ] {
            assert_eq!(Day::parse(text), Some(Day(days)), "{text}");
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in ["2026-02-29", "1900-02-29", "2026-13-01", "2026-00-10", "2026-04-31", "26-1-1"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }
}
