//! `[monitoring]` and `[metrics]`: logs, and the bound on metric series.

use crate::key::section;
use crate::kind::{Choice, LogFilter, Named, number};

section! {
    /// Logs. They go to standard error.
    MonitoringConfig at "monitoring", config => config.monitoring, {
        /// Level, or levels per module, separated by commas: `info`, or `info,chronik_wal=debug`.
        /// At `info` a healthy server writes a line when its state changes and none per request;
        /// `trace` slows it down visibly.
        log_level: String = "info".to_owned(), LogFilter, variables(&["CHRONIK_LOG", "RUST_LOG"]);

        /// `text` for people, `json` for one object per line, with the fields of an event by name.
        log_format: LogFormat = LogFormat::Text, Choice;
    }
}

section! {
    /// The metrics of the HTTP port.
    MetricsConfig at "metrics", config => config.metrics, {
        /// Partitions with metric series of their own. With more partitions than this, the
        /// series are summed per topic, so that a large cluster does not overwhelm the system
        /// that stores them. 0 always sums.
        partition_limit: u32 = 2_000, number(0, 1_000_000);
    }
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

impl Named for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}
