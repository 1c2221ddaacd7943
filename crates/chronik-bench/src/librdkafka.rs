//! librdkafka as a witness: a client that we did not write makes the same load, and is measured
//! and read back like the one of this tool.
//!
//! ```text
//!   plan -> settings -> librdkafka's configuration
//!   producer:  message_book (pure) -> send -> librdkafka's threads -> report -> message_book
//!   consumer:  librdkafka's threads -> poll -> offsets and counts
//! ```
//!
//! Everything else is shared with the native client: topics, schedule, recorder, ledgers, audit.
//! librdkafka does not say which batches it made, so ledgers are sums over messages; it counts its
//! requests only in statistics, which come every [`STATISTICS_STEP`]. Its CPU is that of its own
//! threads as well, so the process's time is charged to the first worker.
//!
//! Builds without the feature `rdkafka` have `librdkafka_absent.rs` in its place.

mod consumer;
mod message_book;
mod producer;
mod settings;
mod statistics;

use std::time::Duration;

pub use consumer::Consumer;
pub use producer::Producer;

use crate::clock::process_cpu;
use crate::failure::Failure;
use crate::recorder::Recorder;

/// True if this build can use librdkafka.
pub const IS_BUILT_IN: bool = true;

/// Time between two looks at librdkafka's counters.
const STATISTICS_STEP: Duration = Duration::from_millis(100);

/// Longest sleep before a worker looks whether the run was ended from outside. rust-rdkafka spins
/// through the last millisecond of a wait.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The version of librdkafka.
#[must_use]
pub fn version() -> Option<String> {
    Some(rdkafka::util::get_rdkafka_version().1)
}

/// Settings that librdkafka takes.
fn checked(settings: rdkafka::ClientConfig) -> Result<rdkafka::ClientConfig, Failure> {
    settings.create_native_config().map_err(|error| refused(&error))?;
    Ok(settings)
}

/// What librdkafka says while it is set up, as a failure of the run.
fn refused(error: &rdkafka::error::KafkaError) -> Failure {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, reason, key, value) => {
            Failure::Usage(format!("librdkafka refuses {key}={value}: {reason}"))
        }
        other => Failure::Server(format!("librdkafka: {other}")),
    }
}

/// Charges the CPU of the process, which has librdkafka's threads, to the first worker of a run.
fn charged(recorder: Recorder, worker: usize) -> Recorder {
    recorder.charging(if worker == 0 { process_cpu } else { || Duration::ZERO })
}
