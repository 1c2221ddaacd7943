//! What the flags of this tool are called in librdkafka.

use rdkafka::ClientConfig;

use super::STATISTICS_STEP;
use crate::client::CLIENT_ID;
use crate::plan::Plan;

/// What librdkafka may hold of messages that are under way, in KiB: 2 GiB.
const BUFFER_KILOBYTES_MAX: u32 = 2 << 20;

/// Largest request, unless batches or messages are larger: librdkafka's default, in bytes.
const REQUEST_BYTES: u32 = 1_000_000;

/// Room for what a batch of one message has besides its value, in bytes.
const MESSAGE_OVERHEAD: u32 = 1_024;

/// Messages in one batch at most, as many as librdkafka allows: --batch-size is the limit.
const BATCH_MESSAGES_MAX: u32 = 1_000_000;

/// Time in ms for which a consumer fetches nothing after its queue was full.
const QUEUE_BACKOFF_MS: u32 = 1;

/// A group that nobody joins and nothing is committed for; librdkafka reads only with a name.
const GROUP: &str = "chronik-bench";

/// The settings of a producer. How many messages are under way is the tool's to decide: librdkafka
/// would count those that are being reported as well.
///
/// Like the native client, only an idempotent producer repeats a message: of another, a message
/// that failed may be stored or not, and is never stored twice.
pub(super) fn producer_settings(plan: &Plan) -> ClientConfig {
    let flags = &plan.flags;
    let request_bytes = flags.batch_size.max(flags.message_size).saturating_add(MESSAGE_OVERHEAD);
    let mut settings = common(plan);
    settings
        .set("acks", plan.acks().to_string())
        .set("linger.ms", flags.linger_ms.to_string())
        .set("batch.size", flags.batch_size.to_string())
        .set("batch.num.messages", BATCH_MESSAGES_MAX.to_string())
        .set("message.max.bytes", request_bytes.max(REQUEST_BYTES).to_string())
        .set("compression.codec", flags.compression.name())
        .set("request.timeout.ms", flags.request_timeout_ms.to_string())
        .set("message.timeout.ms", flags.message_timeout_ms.to_string())
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", BUFFER_KILOBYTES_MAX.to_string());
    if plan.is_idempotent {
        settings.set("enable.idempotence", "true");
    } else {
        settings.set("message.send.max.retries", "0");
    }
    settings
}

/// The settings of a consumer: librdkafka's defaults, without a group's offsets, and without the
/// second for which it would fetch nothing whenever its queue is full.
pub(super) fn consumer_settings(plan: &Plan) -> ClientConfig {
    let mut settings = common(plan);
    settings
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS.to_string())
        .set("check.crcs", "false");
    settings
}

fn common(plan: &Plan) -> ClientConfig {
    let brokers: Vec<_> = plan.endpoints.iter().map(ToString::to_string).collect();
    let mut settings = ClientConfig::new();
    settings
        .set("client.id", CLIENT_ID)
        .set("bootstrap.servers", brokers.join(","))
        .set("statistics.interval.ms", STATISTICS_STEP.as_millis().to_string());
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    #[test]
    fn flags_reach_librdkafka_under_its_names() {
        let line = "-b 127.0.0.1:9,127.0.0.1:10 --linger-ms 7 --batch-size 2000000 --acks all \
                    --compression lz4 --request-timeout-ms 1500 --message-timeout-ms 2500";
        let plan = plan(&line.split_whitespace().collect::<Vec<_>>());
        let settings = producer_settings(&plan);
        for (key, value) in [
            ("bootstrap.servers", "127.0.0.1:9,127.0.0.1:10"),
            ("linger.ms", "7"),
            ("batch.size", "2000000"),
            ("message.max.bytes", "2001024"),
            ("acks", "-1"),
            ("compression.codec", "lz4"),
            ("request.timeout.ms", "1500"),
            ("message.timeout.ms", "2500"),
            ("queue.buffering.max.messages", "0"),
            ("message.send.max.retries", "0"),
        ] {
            assert_eq!(settings.get(key), Some(value), "{key}");
        }
        assert!(settings.create_native_config().is_ok(), "librdkafka takes them");
        assert!(consumer_settings(&plan).create_native_config().is_ok(), "and these");
    }

    #[test]
    fn only_idempotent_producers_repeat() {
        let settings = producer_settings(&plan(&["--idempotence"]));
        assert_eq!(settings.get("enable.idempotence"), Some("true"));
        assert_eq!(
            (settings.get("acks"), settings.get("message.send.max.retries")),
            (Some("-1"), None)
        );
        assert_eq!(producer_settings(&plan(&[])).get("enable.idempotence"), None);
    }
}
