//! What the server measures. Hot paths write to their shard's cell; engines' counters are read
//! when somebody scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronik_monitoring::{
    Buckets, Counter, Family, MetricDescriptor, MetricKind, Registry, Samples, metrics,
};
use chronik_protocol::ApiKey;
use chronik_wal::LaneHandle;

use crate::api::CloseReason;
use crate::node::Node;

metrics! {
    /// Instruments of the request path.
    pub struct ServerMetrics {
        /// Requests received, by API.
        requests: Family<Counter> = "chronik_requests_total", labels("api");
        /// Bytes of record batches appended.
        produce_bytes: Counter = "chronik_produce_bytes_total";
        /// Records appended.
        produce_records: Counter = "chronik_produce_records_total";
        /// Bytes of record batches handed to consumers.
        fetch_bytes: Counter = "chronik_fetch_bytes_total";
        /// Connections refused because of a limit.
        connections_refused: Counter = "chronik_connections_refused_total";
        /// Connections ended by the server, by reason.
        connections_closed: Family<Counter> = "chronik_connections_closed_total", labels("reason");
    }
}

const fn observed(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDescriptor {
    MetricDescriptor::new(name, kind, labels, Buckets::SECONDS, help)
}

/// Numbers that are asked for at every scrape.
pub(crate) static OBSERVED: &[MetricDescriptor] = &[
    observed("chronik_wal_syncs_total", MetricKind::Counter, &["lane"], "Journal syncs."),
    observed("chronik_wal_groups_total", MetricKind::Counter, &["lane"], "Journal groups written."),
    observed("chronik_wal_frames_total", MetricKind::Counter, &["lane"], "Frames made durable."),
    observed(
        "chronik_wal_frame_bytes_total",
        MetricKind::Counter,
        &["lane"],
        "Bytes of frames made durable.",
    ),
    observed(
        "chronik_wal_journal_bytes_total",
        MetricKind::Counter,
        &["lane"],
        "Bytes written to the journal, padding included.",
    ),
    observed(
        "chronik_wal_bypass_bytes_total",
        MetricKind::Counter,
        &["lane"],
        "Bytes written straight to segments.",
    ),
    observed(
        "chronik_wal_ring_fill_ratio",
        MetricKind::Gauge,
        &["lane"],
        "Share of the journal ring that waits for a checkpoint.",
    ),
    observed("chronik_tail_bytes", MetricKind::Gauge, &[], "Memory of the newest frames."),
    observed(
        "chronik_tail_unwritten_bytes",
        MetricKind::Gauge,
        &[],
        "Memory of frames that are not in their segments yet.",
    ),
    observed("chronik_connections", MetricKind::Gauge, &[], "Open client connections."),
    observed("chronik_fetch_sessions", MetricKind::Gauge, &[], "Open fetch sessions."),
    observed("chronik_topics", MetricKind::Gauge, &[], "Topics."),
    observed("chronik_partitions", MetricKind::Gauge, &[], "Partitions on this node."),
    observed(
        "chronik_partition_log_end_offset",
        MetricKind::Gauge,
        &["topic", "partition"],
        "First offset behind the log. Left out above metrics.partition_limit partitions.",
    ),
    observed(
        "chronik_partition_size_bytes",
        MetricKind::Gauge,
        &["topic", "partition"],
        "Bytes of the partition's segments. Left out above metrics.partition_limit partitions.",
    ),
    observed(
        "chronik_replica_damaged",
        MetricKind::Gauge,
        &[],
        "Partitions that are read-only because their log is damaged or failed.",
    ),
    observed("chronik_disk_free_bytes", MetricKind::Gauge, &[], "Free space where the data is."),
    observed(
        "chronik_produce_paused",
        MetricKind::Gauge,
        &[],
        "1 while produce requests are refused because the disk is almost full.",
    ),
    observed(
        "chronik_build_info",
        MetricKind::Gauge,
        &["version"],
        "Always 1; the label says which release runs.",
    ),
];

/// Request counters by API, found once: finding a series takes a lock.
#[derive(Debug)]
pub(crate) struct RequestCounters {
    counters: Vec<(ApiKey, Counter)>,
}

impl RequestCounters {
    pub(crate) fn new(metrics: &ServerMetrics) -> Self {
        let counter = |api: &ApiKey| (*api, metrics.requests.series(&[api.name()]));
        Self { counters: ApiKey::ALL.iter().map(counter).collect() }
    }

    /// Counts a request.
    pub(crate) fn count(&self, shard: u16, api: ApiKey) {
        if let Some((_, counter)) = self.counters.iter().find(|(key, _)| *key == api) {
            counter.increment(usize::from(shard), 1);
        }
    }
}

/// Every metric of the server, for the reference page.
pub(crate) fn descriptors() -> Vec<MetricDescriptor> {
    ServerMetrics::DESCRIPTORS.iter().chain(OBSERVED).cloned().collect()
}

impl ServerMetrics {
    /// Counts an appended batch.
    pub(crate) fn count_produced(&self, shard: u16, bytes: usize, records: u64) {
        self.produce_bytes.increment(usize::from(shard), bytes as u64);
        self.produce_records.increment(usize::from(shard), records);
    }

    /// Counts bytes handed to a consumer.
    pub(crate) fn count_fetched(&self, shard: u16, bytes: usize) {
        self.fetch_bytes.increment(usize::from(shard), bytes as u64);
    }

    /// Counts a connection we ended.
    pub(crate) fn count_close(&self, shard: u16, reason: &CloseReason) {
        self.connections_closed.series(&[reason.name()]).increment(usize::from(shard), 1);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Lets `registry` ask `node` at every scrape.
pub(crate) fn observe(registry: &Registry, node: &Arc<Node>) {
    for descriptor in OBSERVED {
        let node = Arc::clone(node);
        registry.observe(descriptor, move |samples| sample(descriptor.name, &node, samples));
    }
}

fn sample(name: &str, node: &Node, samples: &mut Samples<'_>) {
    let lanes = [("meta", node.wal.meta_lane()), ("data", node.wal.data_lane())];
    let count_lanes = |samples: &mut Samples<'_>, counter: &dyn Fn(&LaneHandle) -> u64| {
        for (label, lane) in lanes {
            samples.count(&[label], counter(lane));
        }
    };
    match name {
        "chronik_wal_syncs_total" => count_lanes(samples, &|lane| read(&lane.counters().syncs)),
        "chronik_wal_groups_total" => count_lanes(samples, &|lane| read(&lane.counters().groups)),
        "chronik_wal_frames_total" => count_lanes(samples, &|lane| read(&lane.counters().frames)),
        "chronik_wal_frame_bytes_total" => {
            count_lanes(samples, &|lane| read(&lane.counters().frame_bytes));
        }
        "chronik_wal_journal_bytes_total" => {
            count_lanes(samples, &|lane| read(&lane.counters().journal_bytes));
        }
        "chronik_wal_bypass_bytes_total" => {
            count_lanes(samples, &|lane| read(&lane.counters().bypass_bytes));
        }
        "chronik_wal_ring_fill_ratio" => {
            for (label, lane) in lanes {
                samples.gauge(&[label], lane.ring_fill());
            }
        }
        "chronik_tail_bytes" => samples.gauge(&[], node.wal.tail_budget().used_bytes() as f64),
        "chronik_tail_unwritten_bytes" => {
            samples.gauge(&[], node.wal.tail_budget().unwritten_bytes() as f64);
        }
        "chronik_connections" => samples.gauge(&[], node.connection_limits.count() as f64),
        "chronik_fetch_sessions" => samples.gauge(&[], node.fetch_sessions.count() as f64),
        "chronik_topics" => samples.gauge(&[], node.metadata.image().topics().count() as f64),
        "chronik_partitions" => samples.gauge(&[], node.registry.partitions().len() as f64),
        "chronik_partition_log_end_offset" => sample_partitions(node, samples, |partition| {
            partition.numbers().log_end_offset.0 as f64
        }),
        "chronik_partition_size_bytes" => {
            sample_partitions(node, samples, |partition| partition.size_bytes() as f64);
        }
        "chronik_replica_damaged" => {
            let partitions = node.registry.partitions();
            let damaged = partitions.iter().filter(|partition| !partition.is_writable()).count();
            samples.gauge(&[], damaged as f64);
        }
        "chronik_disk_free_bytes" => samples.gauge(&[], node.free_bytes() as f64),
        "chronik_produce_paused" => {
            samples.gauge(&[], f64::from(u8::from(node.is_produce_paused())));
        }
        "chronik_build_info" => samples.gauge(&[env!("CARGO_PKG_VERSION")], 1.0),
        other => unreachable!("{other} is declared without a sample"),
    }
}

fn sample_partitions(
    node: &Node,
    samples: &mut Samples<'_>,
    value: impl Fn(&chronik_partition::Partition) -> f64,
) {
    let mut partitions = node.registry.partitions();
    if partitions.len() > node.config.metrics.partition_limit as usize {
        return;
    }
    partitions.sort_by(|a, b| a.name().cmp(b.name()));
    for partition in partitions {
        let index = partition.index().to_string();
        samples.gauge(&[&partition.name().topic, &index], value(&partition));
    }
}
