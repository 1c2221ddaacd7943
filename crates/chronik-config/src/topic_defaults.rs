//! `[topic]`: what holds for topics that do not say otherwise.

use crate::key::section;
use crate::kind::{Switch, bytes, millis, number};

section! {
    /// Defaults of topics, and limits that hold for all of them. A topic overrides the defaults
    /// with the topic configs listed further down.
    TopicSection at "topic", config => config.topic, {
        /// Partitions of a topic whose creator names no number, Kafka's `num.partitions`. More
        /// partitions let more consumers of one group work in parallel; each costs a directory,
        /// an open file and memory for its index. The number of a topic can grow, never shrink.
        num_partitions: u32 = 3, number(1, 10_000);

        /// Create a topic when a client asks for its metadata or writes to it, Kafka's
        /// `auto.create.topics.enable`. Convenient on a developer's machine; in production a
        /// typing error in a client becomes a topic.
        auto_create: bool = true, Switch;

        /// Largest record batch in bytes, after compression, for topics that do not set
        /// `max.message.bytes`; Kafka's `message.max.bytes` and Kafka's default. A batch is the
        /// unit of memory, of checksums and of replication: very large ones delay everything
        /// behind them.
        message_max_bytes: u64 = 1_048_588, bytes(1, 100 << 20);

        /// How long the server remembers an idle idempotent producer, Kafka's
        /// `producer.id.expiration.ms`. Too short a time forgets a producer that pauses, and its
        /// next retry could be stored twice; too long a time keeps memory for producers that are
        /// gone.
        producer_id_expiration_ms: u64 = 86_400_000, millis(1_000, 2_592_000_000);
    }
}
