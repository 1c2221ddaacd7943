//! The rig of the integration tests: real server processes, a client that speaks the raw wire,
//! a producer and a consumer with real clients' retries, and the checker of acked records.
//!
//! ```text
//! test --> TestServer (child process, own data directory, captured log)
//!      --> Client (bytes, frames, any request at any version)
//!      --> Producer, Consumer --> History --> check: what was lost, doubled, reordered, forged
//! ```
//!
//! Tests only: nothing that ships imports this crate. Everything here panics with a sentence when
//! the rig itself breaks, and blocks; every wait has a deadline and ends as soon as its condition
//! holds. Servers listen on free loopback ports and die with their [`TestServer`].

mod client;
mod consumer;
pub mod history;
mod http;
mod producer;
mod record;
mod server;
mod temp_dir;
mod topic;

pub use client::{Call, Client, Reply};
pub use consumer::{Consumer, ListedOffset, list_offset};
pub use http::{HttpAnswer, Metrics, http_get};
pub use producer::{Producer, ProducerOptions};
pub use record::{OwnedRecord, RecordId, batch_of, decode_batches, produce_request, value_of};
pub use server::{Address, ServerCommand, TestServer, WAIT_MAX};
pub use temp_dir::TempDir;
pub use topic::{NewTopic, create_topic, topic_configs, topic_id};

/// The server of this package's build, to be configured and started:
/// `test_server!().set("listener.fetch_sessions_max=0").start()`.
#[macro_export]
macro_rules! test_server {
    () => {
        $crate::ServerCommand::new(env!("CARGO_BIN_EXE_test-server"))
    };
}
