//! Where `consume -s` starts: parsing and meaning.
//!
//! Which offset a position is in a partition is decided from the log's two ends, so everything
//! but a time needs no further question to the cluster.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Where to start in every partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartPosition {
    /// At the oldest record.
    Start,
    /// Behind the newest record.
    End,
    /// So many records before the end of each partition.
    BeforeEnd(i64),
    /// At this offset of each partition.
    Offset(i64),
    /// At the first record with this timestamp or a later one.
    Time(Moment),
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// In ms since the Unix epoch.
    At(i64),
    /// So long before the command starts.
    Ago(Duration),
}

/// Text that is no start position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "expected start, end, -N (N before the end), an offset, or @TIME, where TIME is like \
     2026-11-21, 2026-11-21T10:00, 2026-11-21T10:00:00Z, -1h, or seconds or milliseconds since \
     1970"
)]
pub struct InvalidPosition;

impl FromStr for StartPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        match text {
            "start" => return Ok(Self::Start),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return moment(time).map(Self::Time).ok_or(InvalidPosition);
        }
        if let Some(count) = text.strip_prefix('-') {
            return number(count).map(Self::BeforeEnd).ok_or(InvalidPosition);
        }
        number(text.strip_prefix('+').unwrap_or(text)).map(Self::Offset).ok_or(InvalidPosition)
    }
}

/// Digits only: `parse` alone would take a second sign.
fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn moment(text: &str) -> Option<Moment> {
    if let Some(age) = text.strip_prefix('-') {
        return duration(age).map(Moment::Ago);
    }
    if let Some(count) = number(text) {
        // Seconds have 10 digits until the year 2286, milliseconds have 13.
        return match text.len() {
            0..=11 => Some(Moment::At(count * 1_000)),
            12..=14 => Some(Moment::At(count)),
            _ => None,
        };
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(Moment::At(timestamp.as_millisecond()));
    }
    let local = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from));
    let zoned = local.ok()?.to_zoned(TimeZone::system()).ok()?;
    Some(Moment::At(zoned.timestamp().as_millisecond()))
}

/// A length of time: a bare number of seconds, or one with units (`90s`, `500ms`, `1h30m`).
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Some(seconds) = number(text) {
        return Some(Duration::from_secs(seconds.unsigned_abs()));
    }
    text.parse::<SignedDuration>().ok()?.try_into().ok()
}

impl Moment {
    /// In ms since the Unix epoch.
    #[must_use]
    pub fn epoch_ms(self) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Ago(age) => {
                now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}

/// Wall-clock time in ms since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_position_parses() {
        for (text, position) in [
            ("start", StartPosition::Start),
            ("end", StartPosition::End),
            ("-10", StartPosition::BeforeEnd(10)),
            ("+7", StartPosition::Offset(7)),
            ("7", StartPosition::Offset(7)),
            ("@1763719200", StartPosition::Time(Moment::At(1_763_719_200_000))),
            ("@1763719200000", StartPosition::Time(Moment::At(1_763_719_200_000))),
            ("@2025-11-21T10:00:00Z", StartPosition::Time(Moment::At(1_763_719_200_000))),
            ("@2025-11-21T11:00+01:00", StartPosition::Time(Moment::At(1_763_719_200_000))),
            ("@-90m", StartPosition::Time(Moment::Ago(Duration::from_secs(5_400)))),
        ] {
            assert_eq!(text.parse(), Ok(position), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_local() {
        let local = |text: &str| match text.parse() {
            Ok(StartPosition::Time(Moment::At(ms))) => ms,
            other => panic!("{text}: {other:?}"),
        };
        let midnight = local("@2026-11-21");
        assert_eq!(local("@2026-11-21T10:00") - midnight, 10 * 3_600_000);
        assert_eq!(local("@2026-11-21 10:00:01.5") - midnight, 36_001_500);
    }

    #[test]
    fn text_that_is_no_position_is_refused() {
        for text in
            ["", "begin", "-", "+", "+-1", "--1", "1.5", "@", "@-", "@soon", "@123456789012345678"]
        {
            assert_eq!(text.parse::<StartPosition>(), Err(InvalidPosition), "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(duration("30"), Some(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("-1s"), None);
        assert_eq!(duration("soon"), None);
    }
}
