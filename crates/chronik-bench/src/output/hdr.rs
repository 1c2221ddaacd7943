//! Histograms in the forms that other tools read: HdrHistogram's V2 encoding, deflated, as
//! base64, and its text file of percentiles.
//!
//! ```text
//!   cookie 0x1c849314 | length | zlib of:
//!   cookie 0x1c849313 | length | normalizing offset 0 | digits | lowest i64 | highest i64 |
//!   ratio f64 1.0 | counts, each a zig-zag LEB128; a negative number is a run of zeroes
//! ```

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use hdrhistogram::Histogram;

use super::base64;

const COOKIE: u32 = 0x1c84_9313;
const COMPRESSED_COOKIE: u32 = 0x1c84_9314;

/// The histogram as base64 of its deflated V2 encoding.
pub(crate) fn encoded(histogram: &Histogram<u64>) -> String {
    base64::encode(&deflated(&plain(histogram)))
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    let block = written.expect("compressing into memory cannot fail");
    let mut bytes = COMPRESSED_COOKIE.to_be_bytes().to_vec();
    bytes.extend_from_slice(&length(block.len()).to_be_bytes());
    bytes.extend_from_slice(&block);
    bytes
}

fn plain(histogram: &Histogram<u64>) -> Vec<u8> {
    let counts = counts(histogram);
    let mut bytes = COOKIE.to_be_bytes().to_vec();
    bytes.extend_from_slice(&length(counts.len()).to_be_bytes());
    bytes.extend_from_slice(&0_u32.to_be_bytes());
    bytes.extend_from_slice(&u32::from(histogram.sigfig()).to_be_bytes());
    bytes.extend_from_slice(&histogram.low().to_be_bytes());
    bytes.extend_from_slice(&histogram.high().to_be_bytes());
    bytes.extend_from_slice(&1.0_f64.to_be_bytes());
    bytes.extend_from_slice(&counts);
    bytes
}

/// Counts of all buckets up to the last that is not empty.
fn counts(histogram: &Histogram<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut zeroes = 0_i64;
    for step in histogram.iter_all() {
        let count = step.count_at_value();
        if count == 0 {
            zeroes += 1;
            continue;
        }
        if zeroes > 0 {
            put_zigzag(&mut bytes, -zeroes);
            zeroes = 0;
        }
        put_zigzag(&mut bytes, i64::try_from(count).unwrap_or(i64::MAX));
    }
    bytes
}

fn put_zigzag(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a histogram takes kilobytes")
}

/// Percentiles in milliseconds, as HdrHistogram's plotter reads them.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    let mut seen = 0;
    for step in histogram.iter_quantiles(5) {
        seen += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:>12.3} {quantile:>14.12} {seen:>10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let ms = |micros: f64| micros / 1e3;
    let _ = writeln!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        ms(histogram.mean()),
        ms(histogram.stdev())
    );
    let _ = writeln!(
        text,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        ms(histogram.max() as f64),
        histogram.len()
    );
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::recorder::latency_histogram;

    #[test]
    fn counts_come_back_from_the_encoding() {
        let mut histogram = latency_histogram();
        for (value, count) in [(1, 3), (250, 1_000), (251, 1), (70_000, 90), (59_000_000, 2)] {
            histogram.record_n(value, count).unwrap();
        }
        let bytes = deflated(&plain(&histogram));
        assert_eq!(bytes[..4], COMPRESSED_COOKIE.to_be_bytes());
        assert_eq!(u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize, bytes.len() - 8);
        let mut payload = Vec::new();
        flate2::read::ZlibDecoder::new(&bytes[8..]).read_to_end(&mut payload).unwrap();
        assert_eq!(payload, plain(&histogram));
        let mut rest = &payload[40..];
        let mut next = || {
            let (mut value, mut shift) = (0_u64, 0);
            loop {
                let (byte, tail) = rest.split_first()?;
                rest = tail;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return Some((value >> 1) as i64 ^ -((value & 1) as i64));
                }
            }
        };
        let expected: Vec<_> = histogram.iter_all().map(|step| step.count_at_value()).collect();
        let mut found = Vec::new();
        while let Some(value) = next() {
            match u64::try_from(value) {
                Ok(count) => found.push(count),
                Err(_) => found.extend(vec![0; value.unsigned_abs() as usize]),
            }
        }
        found.resize(expected.len(), 0);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_percentile_file_ends_at_the_maximum() {
        let mut histogram = latency_histogram();
        (1..=1_000).for_each(|value| histogram.record(value * 100).unwrap());
        let text = percentiles(&histogram);
        let last = text.lines().rev().find(|line| !line.starts_with('#')).unwrap();
        assert!(last.trim_start().starts_with("100.0"), "{last}");
        assert!(last.contains("1.000000000000       1000"), "{last}");
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
