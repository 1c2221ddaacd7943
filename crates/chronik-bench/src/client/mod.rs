//! A small blocking client for everything around the load: versions, topics, offsets, read back.
//!
//! One connection, one request at a time, bounded by a timeout; the load itself is not made with
//! it, except where a task waits for each answer anyway (metadata, round trips). Speaks the
//! public protocol only. After an error the connection must be dropped.

mod admin;
mod connection;
mod endpoint;
mod error;
mod fetch;
mod produce;

pub use admin::{NewTopic, Topic};
pub use connection::{Connection, Versions};
pub use endpoint::Endpoint;
pub use error::{ClientError, code_name};
pub use fetch::{FetchPlan, fetch_request, fetched_partitions};
pub use produce::{NEWEST_PRODUCE_BY_NAME, ProducePlan};

/// What this tool calls itself in requests.
pub const CLIENT_ID: &str = "chronik-bench";

/// Largest answer that is read, in bytes; fetches ask for less.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;
