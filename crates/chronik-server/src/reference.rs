//! The generated reference pages that need the server's tables.

use std::fmt::Write;

use chronik_protocol::ApiKey;

/// `docs/reference/metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    chronik_monitoring::markdown(&crate::metrics::descriptors())
}

/// `docs/reference/kafka-api.md`: exactly what ApiVersions answers.
#[must_use]
pub fn kafka_api_page() -> String {
    let mut page = String::from(
        "# Kafka APIs\n\n\
         What the server offers to clients, as its ApiVersions answer says it. The ranges are \
         those of Apache Kafka 4.2; an API that is not listed is not offered, and a request for \
         it closes the connection with log line I050.\n\n\
         | Key | API | Versions shown | Versions served |\n|---|---|---|---|\n",
    );
    for api in ApiKey::ALL {
        let (shown, served) = (api.shown(), api.served());
        let _ = writeln!(
            page,
            "| {} | {} | {}-{} | {}-{} |",
            api.number(),
            api.name(),
            shown.min,
            shown.max,
            served.min,
            served.max
        );
    }
    page.push_str(
        "\nVersions that are shown and not served answer UNSUPPORTED_VERSION on every partition: \
         old clients read compression support from the range.\n",
    );
    page
}
