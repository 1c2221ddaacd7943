//! Numbers as they are typed: lengths of time, rates, lists of processor cores.

use std::time::Duration;

/// Longest time that can be asked for. Latencies and schedules fit into 64 bits of nanoseconds.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A length of time: a bare whole number of seconds, or a whole number with a unit (`500ms`,
/// `20s`, `5m`, `1h`). At most seven days.
///
/// # Errors
/// A sentence for the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let expected = || format!("{text:?} is no time; expected for example 20s, 5m, 500ms or 30");
    let number: u64 = number.parse().map_err(|_| expected())?;
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" | "sec" | "secs" => 1_000,
        "m" | "min" | "mins" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let ms = number.checked_mul(unit_ms).ok_or_else(expected)?;
    let duration = Duration::from_millis(ms);
    if duration > DURATION_MAX {
        return Err(format!("{text} is longer than seven days"));
    }
    Ok(duration)
}

/// A rate per second: a whole number, with `k` or `m` for thousands and millions (`10k`).
///
/// # Errors
/// A sentence for the command line.
pub fn rate(text: &str) -> Result<u64, String> {
    let expected =
        || format!("{text:?} is no rate; expected messages per second such as 1000, 10k");
    let (number, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(factor).filter(|rate| *rate <= RATE_MAX).ok_or_else(expected)
}

/// Highest rate that can be asked for, in messages per second.
const RATE_MAX: u64 = 1_000_000_000;

/// A list of processor cores: `0`, `1,3`, `0-3`.
///
/// # Errors
/// A sentence for the command line.
pub fn cores(text: &str) -> Result<Cores, String> {
    let expected = || format!("{text:?} is no list of cores; expected for example 1 or 0-3,6");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.parse().map_err(|_| expected())?;
        let last: usize = last.parse().map_err(|_| expected())?;
        if first > last || last >= rustix::thread::CpuSet::MAX_CPU {
            return Err(expected());
        }
        cores.extend(first..=last);
    }
    Ok(Cores(cores))
}

/// Processor cores, by number, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cores(pub Vec<usize>);

/// `number` with commas between groups of three digits.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_seconds_and_units_are_understood() {
        for (text, ms) in
            [("30", 30_000), ("20s", 20_000), ("5m", 300_000), ("500ms", 500), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1", "1.5s", "10 s", "9d", "200h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates_and_cores_are_lists_of_whole_numbers() {
        assert_eq!(rate("250"), Ok(250));
        assert_eq!(rate("10k"), Ok(10_000));
        assert_eq!(rate("2M"), Ok(2_000_000));
        assert!(rate("fast").is_err() && rate("").is_err() && rate("-1").is_err());
        assert_eq!(cores("0-2,5"), Ok(Cores(vec![0, 1, 2, 5])));
        assert!(cores("2-1").is_err() && cores("a").is_err() && cores("0,").is_err());
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234), "1,234");
        assert_eq!(grouped(987_654_321), "987,654,321");
    }
}
