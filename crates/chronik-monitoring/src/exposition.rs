//! The two text formats of a scrape: Prometheus 0.0.4, and OpenMetrics 1.0 for who asks for it.
//!
//! They differ in the name under which a counter is described (OpenMetrics leaves `_total` out of
//! it), in how whole bounds are written, in what a help text escapes, and in the closing line.

use std::fmt::Write as _;

use crate::{MetricDescriptor, MetricKind};

/// A text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics text format, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for a request with this `Accept` header: OpenMetrics if it is named with a
    /// weight above 0 and no lower than that of plain text, else Prometheus.
    #[must_use]
    pub fn from_accept(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let wanted = weight(accept, "application/openmetrics-text");
        let plain = weight(accept, "text/plain");
        if wanted > 0.0 && wanted >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of the text.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(crate) const fn end(self) -> &'static str {
        match self {
            Self::Prometheus => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }
}

/// The weight that `accept` gives to `media_type`; 0 if it does not name it.
fn weight(accept: &str, media_type: &str) -> f64 {
    let mut ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
    ranges
        .find_map(|mut parts| {
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
            let mut weights = parts.filter_map(|part| part.strip_prefix("q="));
            named.then(|| weights.next().and_then(|q| q.parse().ok()).unwrap_or(1.0))
        })
        .unwrap_or(0.0)
}

/// Receives the samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    format: Format,
    descriptor: &'a MetricDescriptor,
}

impl<'a> Samples<'a> {
    /// Writes the help and type lines of `descriptor`.
    pub(crate) fn begin(
        text: &'a mut String,
        format: Format,
        descriptor: &'a MetricDescriptor,
    ) -> Self {
        let family = match format {
            Format::Prometheus => descriptor.name,
            Format::OpenMetrics => descriptor.name.trim_end_matches("_total"),
        };
        let mut help = descriptor.help().replace('\\', "\\\\");
        if format == Format::OpenMetrics {
            help = help.replace('"', "\\\"");
        }
        let kind = descriptor.kind.name();
        let _ = writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}");
        Self { text, format, descriptor }
    }

    /// Writes the value of a counter.
    ///
    /// # Panics
    /// If the metric is not a counter, or the number of label values is not that of its labels.
    pub fn count(&mut self, labels: &[&str], value: u64) {
        self.expect_kind(MetricKind::Counter);
        self.line("", labels, None, &value.to_string());
    }

    /// Writes the value of a gauge.
    ///
    /// # Panics
    /// If the metric is not a gauge, or the number of label values is not that of its labels.
    pub fn gauge(&mut self, labels: &[&str], value: f64) {
        self.expect_kind(MetricKind::Gauge);
        self.line("", labels, None, &number(value));
    }

    /// Writes one cumulative bucket of a histogram.
    pub(crate) fn bucket(&mut self, labels: &[&str], bound: f64, cumulative: u64) {
        self.expect_kind(MetricKind::Histogram);
        let bound = match self.format {
            Format::OpenMetrics if bound.is_finite() && bound.fract() == 0.0 => {
                format!("{bound:.1}")
            }
            _ => number(bound),
        };
        self.line("_bucket", labels, Some(("le", &bound)), &cumulative.to_string());
    }

    /// Writes sum and count of a histogram, after its buckets.
    pub(crate) fn sum(&mut self, labels: &[&str], sum: f64, count: u64) {
        self.expect_kind(MetricKind::Histogram);
        self.line("_sum", labels, None, &number(sum));
        self.line("_count", labels, None, &count.to_string());
    }

    fn expect_kind(&self, kind: MetricKind) {
        assert_eq!(self.descriptor.kind, kind, "{} is sampled as it is declared", self.name());
    }

    fn name(&self) -> &'static str {
        self.descriptor.name
    }

    fn line(&mut self, suffix: &str, values: &[&str], extra: Option<(&str, &str)>, sample: &str) {
        let names = self.descriptor.labels;
        assert_eq!(values.len(), names.len(), "{} has labels {names:?}", self.name());
        self.text.push_str(self.descriptor.name);
        self.text.push_str(suffix);
        let labels = names.iter().copied().zip(values.iter().copied()).chain(extra);
        for (index, (name, value)) in labels.enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{separator}{name}=\"{}\"", escaped(value));
        }
        let close = if names.is_empty() && extra.is_none() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {sample}");
    }
}

/// A label value with backslash, quote and line feed escaped, the same in both formats.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}
