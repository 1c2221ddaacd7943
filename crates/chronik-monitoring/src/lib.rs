//! Metrics, logs and health, for any server: nothing here knows what is measured.
//!
//! * A crate declares its metrics in one table, [`metrics!`], and registers it with a
//!   [`Registry`]. The table also makes the reference page ([`markdown`]).
//! * Instruments are written with relaxed atomics on the cell of the calling thread and summed
//!   when somebody scrapes. No instrument takes a lock; finding a series of a [`Family`] does, so
//!   hot paths keep the handle.
//! * [`init_logs`] sends events to standard error.
//! * [`Liveness`] finds threads that no longer move, [`Readiness`] lists what a server still
//!   waits for. Both are told the time; this crate asks no clock.

mod cell;
mod descriptor;
mod exposition;
mod family;
mod health;
mod histogram;
mod instrument;
mod reference;
mod registry;
mod tracing;

pub use descriptor::{MetricDescriptor, MetricKind};
pub use exposition::{Format, Samples};
pub use family::Family;
pub use health::{Beat, Gate, LIVENESS_DEADLINE, Liveness, Readiness, Reason, StuckComponent};
pub use histogram::{Buckets, Histogram};
pub use instrument::{Counter, Gauge, Instrument};
pub use reference::markdown;
pub use registry::Registry;
pub use tracing::{InitLogsError, LogFormat, init_logs};
