//! One line per sample, for spreadsheets.

use std::fmt::Write as _;

use crate::series::{Interval, per};

const HEADING: &str = "start_seconds,seconds,messages,messages_per_second,megabytes_per_second,\
requests,messages_per_request,failed,late,p50_ms,p90_ms,p99_ms,p999_ms,max_ms,\
client_cpu_seconds,server_cpu_seconds,server_resident_bytes\n";

/// The intervals of a run. New columns go to the end.
pub(crate) fn csv(intervals: &[Interval]) -> String {
    let mut text = HEADING.to_owned();
    for interval in intervals {
        let counts = &interval.counts;
        let ms = |quantile: f64| interval.latency_at(quantile) as f64 / 1e3;
        let _ = write!(
            text,
            "{:.3},{:.3},{},{:.1},{:.3},{},{:.2},{},{},{:.3},{:.3},{:.3},{:.3},{:.3},{:.6},",
            interval.start_seconds,
            interval.seconds,
            counts.messages,
            interval.rate(),
            per(counts.bytes as f64, interval.seconds) / 1e6,
            counts.requests,
            per(counts.messages as f64, counts.requests as f64),
            counts.failed,
            counts.late,
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(0.999),
            ms(1.0),
            interval.client_cpu_seconds,
        );
        match &interval.server {
            Some(server) => {
                let _ = writeln!(text, "{:.6},{}", server.cpu_seconds, server.resident_bytes);
            }
            None => text.push_str(",\n"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_columns_of_the_heading() {
        let with = Interval { server: Some(Default::default()), ..Interval::default() };
        let text = csv(&[Interval::default(), with]);
        let columns: Vec<_> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [17, 17, 17]);
    }
}
