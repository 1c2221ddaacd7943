//! The reference page of the metrics, generated from their declarations.

use crate::{MetricDescriptor, MetricKind};

const HEAD: &str = "\
# Metrics

<!-- Generated from the metric declarations by `cargo xtask docs`; edit those instead. -->

`GET /metrics` on the HTTP port answers in the Prometheus text format, or in OpenMetrics to clients
that accept it. Histograms have buckets at powers of two, from the first to the last bound below.

| Name | Type | Labels | Meaning |
|---|---|---|---|
";

/// The whole page, sorted by name, as it is checked in under `docs/reference/metrics.md`.
#[must_use]
pub fn markdown(descriptors: &[MetricDescriptor]) -> String {
    let mut sorted: Vec<_> = descriptors.iter().collect();
    sorted.sort_by_key(|descriptor| descriptor.name);
    let mut page = HEAD.to_owned();
    for descriptor in sorted {
        let labels: Vec<_> = descriptor.labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            descriptor.name,
            kind(descriptor),
            labels.join(", "),
            descriptor.help().replace('|', "\\|"),
        ));
    }
    page
}

fn kind(descriptor: &MetricDescriptor) -> String {
    let bounds: Vec<_> = descriptor.buckets.bounds().collect();
    match (descriptor.kind, bounds.as_slice()) {
        (MetricKind::Histogram, [first, .., last]) => format!("histogram, {first} to {last}"),
        (kind, _) => kind.name().to_owned(),
    }
}
