//! The Chronik server: a Kafka-compatible broker over `chronik-partition` and `chronik-wal`.
//!
//! ```text
//! net/listener -> net/connection (on a shard) -> api/<name> -> partition, cluster
//!                      ^ one wake per shard per commit
//! ```
//!
//! `node` starts and stops everything in order; `shard` is one request thread; `metadata` is the
//! log of commands that a cluster will replicate and a single server keeps alone.

mod admin;
mod api;
mod cli;
mod data_directory;
mod metadata;
mod metrics;
mod net;
mod node;
mod producer_ids;
mod reference;
mod shard;
mod startup_error;
mod turns;

pub use cli::{DevOptions, ReadyInfo, main_with_args, run_dev};
pub use reference::{kafka_api_page, metrics_page};
pub use startup_error::StartError;
