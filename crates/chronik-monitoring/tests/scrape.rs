//! What a scrape looks like, in both formats.

use chronik_monitoring::{
    Buckets, Counter, Family, Format, Gauge, Histogram, MetricDescriptor, Registry, markdown,
};

chronik_monitoring::metrics! {
    /// Metrics of a test.
    pub struct TestMetrics {
        /// Requests answered, by API
        /// and error.
        requests: Family<Counter> = "chronik_requests_total", labels("api", "error");
        /// Bytes taken in.
        bytes: Counter = "chronik_produce_bytes_total";
        /// Elections, under the name the plan gave them.
        elections: Gauge = "chronik_raft_election_count";
        /// Time of one sync.
        sync: Histogram = "chronik_wal_sync_latency_seconds";
        /// Frames of one group.
        group: Histogram = "chronik_wal_group_requests", buckets(Buckets::powers_of_two(0, 2, 1));
    }
}

static FREE: MetricDescriptor =
    MetricDescriptor::gauge("chronik_disk_free_bytes", &["dir"], "Free \"space\" with \\ inside.");

fn scraped(format: Format) -> String {
    let registry = Registry::new(2);
    let metrics = TestMetrics::register(&registry);
    registry.observe(&FREE, |samples| {
        samples.gauge(&["a\"b\\c\nd"], 1.5);
        samples.gauge(&["e"], f64::INFINITY);
    });
    let produce = metrics.requests.series(&["produce", "none"]);
    produce.increment(0, 2);
    produce.increment(1, 3);
    metrics.requests.series(&["fetch", "none"]).increment(0, 1);
    metrics.requests.series(&["gone", "none"]).increment(0, 1);
    metrics.requests.remove(&["gone", "none"]);
    metrics.bytes.increment(7, 1 << 53);
    metrics.bytes.increment(0, 1);
    metrics.elections.set(4);
    metrics.elections.add(-1);
    for (thread, value) in [(0, 1), (1, 2), (0, 2), (1, 5)] {
        metrics.group.observe(thread, value);
    }
    registry.render(format)
}

#[test]
fn prometheus_text_describes_counters_under_their_full_name() {
    let text = scraped(Format::Prometheus);
    let expected = "\
# HELP chronik_requests_total Requests answered, by API and error.
# TYPE chronik_requests_total counter
chronik_requests_total{api=\"fetch\",error=\"none\"} 1
chronik_requests_total{api=\"produce\",error=\"none\"} 5
# HELP chronik_produce_bytes_total Bytes taken in.
# TYPE chronik_produce_bytes_total counter
chronik_produce_bytes_total 9007199254740993
# HELP chronik_raft_election_count Elections, under the name the plan gave them.
# TYPE chronik_raft_election_count gauge
chronik_raft_election_count 3
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains(
        "# HELP chronik_disk_free_bytes Free \"space\" with \\\\ inside.\n\
         # TYPE chronik_disk_free_bytes gauge\n\
         chronik_disk_free_bytes{dir=\"a\\\"b\\\\c\\nd\"} 1.5\n\
         chronik_disk_free_bytes{dir=\"e\"} +Inf\n"
    ));
    assert!(
        text.ends_with(
            "chronik_wal_group_requests_bucket{le=\"1\"} 1\n\
         chronik_wal_group_requests_bucket{le=\"2\"} 3\n\
         chronik_wal_group_requests_bucket{le=\"4\"} 3\n\
         chronik_wal_group_requests_bucket{le=\"+Inf\"} 4\n\
         chronik_wal_group_requests_sum 10\n\
         chronik_wal_group_requests_count 4\n\
         # HELP chronik_disk_free_bytes Free \"space\" with \\\\ inside.\n\
         # TYPE chronik_disk_free_bytes gauge\n\
         chronik_disk_free_bytes{dir=\"a\\\"b\\\\c\\nd\"} 1.5\n\
         chronik_disk_free_bytes{dir=\"e\"} +Inf\n"
        ),
        "{text}"
    );
}

#[test]
fn openmetrics_text_is_what_prometheus_client_writes() {
    use prometheus_client::metrics::{counter, family, gauge, histogram};

    let mut registry = prometheus_client::registry::Registry::default();
    let requests = family::Family::<Vec<(String, String)>, counter::Counter>::default();
    let labels = |api: &str| {
        vec![("api".to_owned(), api.to_owned()), ("error".to_owned(), "none".to_owned())]
    };
    requests.get_or_create(&labels("produce")).inc_by(5);
    registry.register("chronik_requests", "Requests answered, by API and error", requests);
    let bytes: counter::Counter = counter::Counter::default();
    bytes.inc_by((1 << 53) + 1);
    registry.register("chronik_produce_bytes", "Bytes taken in", bytes);
    let elections: gauge::Gauge = gauge::Gauge::default();
    elections.set(3);
    let help = "Elections, under the name the plan gave them";
    registry.register("chronik_raft_election_count", help, elections);
    let group = histogram::Histogram::new([1.0, 2.0, 4.0]);
    for value in [1.0, 2.0, 2.0, 5.0] {
        group.observe(value);
    }
    registry.register("chronik_wal_group_requests", "Frames of one group", group);
    let mut oracle = String::new();
    prometheus_client::encoding::text::encode(&mut oracle, &registry).expect("memory is writable");

    let ours = scraped(Format::OpenMetrics);
    let ours: Vec<_> = ours.lines().collect();
    for line in oracle.lines() {
        let line = line.replace("_sum 10.0", "_sum 10");
        assert!(ours.contains(&line.as_str()), "{line} is missing in {ours:#?}");
    }
    assert_eq!(ours.last(), Some(&"# EOF"));
}

#[test]
fn the_format_follows_the_accept_header() {
    let prometheus_server = "application/openmetrics-text;version=1.0.0;q=0.6,\
                             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, format) in [
        (None, Format::Prometheus),
        (Some("*/*"), Format::Prometheus),
        (Some("text/plain"), Format::Prometheus),
        (Some("application/openmetrics-text"), Format::OpenMetrics),
        (Some(prometheus_server), Format::OpenMetrics),
        (Some("text/plain;q=0.9, application/openmetrics-text;q=0.3"), Format::Prometheus),
        (Some("application/openmetrics-text;q=0"), Format::Prometheus),
    ] {
        assert_eq!(Format::from_accept(accept), format, "{accept:?}");
    }
}

#[test]
fn a_family_without_series_is_still_described() {
    let registry = Registry::new(1);
    let _metrics = TestMetrics::register(&registry);
    let text = registry.render(Format::Prometheus);
    for descriptor in TestMetrics::DESCRIPTORS {
        assert!(text.contains(&format!("# TYPE {} ", descriptor.name)), "{}", descriptor.name);
    }
}

#[test]
#[should_panic(expected = "chronik_requests_total is registered once")]
fn a_name_is_registered_once() {
    let registry = Registry::new(1);
    let _first = TestMetrics::register(&registry);
    let _second = TestMetrics::register(&registry);
}

#[test]
#[should_panic(expected = "exactly the names of counters end in _total")]
fn a_gauge_whose_name_ends_in_total_is_refused() {
    static WRONG: MetricDescriptor = MetricDescriptor::gauge("chronik_x_total", &[], "Wrong.");
    Registry::new(1).observe(&WRONG, |_| {});
}

#[test]
fn the_reference_page_lists_name_type_labels_and_help() {
    let page = markdown(TestMetrics::DESCRIPTORS);
    for row in [
        "| `chronik_requests_total` | counter | `api`, `error` | Requests answered, by API and \
         error. |",
        "| `chronik_wal_group_requests` | histogram, 1 to 4 |  | Frames of one group. |",
        "| `chronik_wal_sync_latency_seconds` | histogram, 0.000032 to 33.554432 |  | Time of one \
         sync. |",
    ] {
        assert!(page.contains(row), "{row}\n{page}");
    }
    assert!(page.find("chronik_produce_bytes") < page.find("chronik_requests"), "sorted");
}
