//! The durable log: frames, journal with group commit, segments, indexes, recovery.
//!
//! ```text
//! PartitionLog --submit--> lane queue --commit thread--> journal (one sync per group = ack point)
//!      |                                                     |
//!      | tail in memory <--- reads                           v FlushSink
//!      v                                                 owner: on_flushed
//! background worker --> segments + offset_index <--- reads, recovery
//! ```
//!
//! Owns bytes on disk and their order. Knows nothing of replication, leadership or requests: who
//! may append, and what a durable frame means, is the owner's business. One value per partition,
//! [`PartitionLog`], lives inside the owner's mutex; everything that blocks runs on commit
//! threads and the background worker.

pub mod envelope;
pub mod frame;
pub mod io;
pub mod layout;

mod checkpoint;
mod epoch_history;
mod error;
mod group_buffer;
mod group_commit;
mod invariants;
mod journal;
mod log_state;
mod manager;
mod nonce;
mod offset_index;
mod partition_log;
mod read_buffers;
mod reader;
mod recovery;
mod ring_file;
mod segment;
mod tail;

pub use checkpoint::{CheckpointConfig, LogAccess};
pub use epoch_history::{EpochHistory, EpochStart};
pub use error::{DamageReason, Verdict, WalError};
pub use group_commit::{FlushSink, Flushed, LaneCounters, LaneHandle};
pub use journal::LogId;
pub use log_state::StateSnapshot;
pub use manager::{OpenedLog, WalConfig, WalManager};
pub use partition_log::{
    Durability, LogConfig, LogIdentity, NewFrame, PartitionLog, ReadPlan, SealWork, SyncWork,
    TimeLookup, WriteBehind,
};
pub use read_buffers::ReadBuffers;
pub use reader::{ReadMode, SegmentPiece, SegmentRange};
pub use segment::{
    InspectedHeader, SEGMENT_FOOTER_SIZE, SEGMENT_HEADER_SIZE, SEGMENT_HEADER_USED, SegmentFooter,
    SegmentHeader,
};
pub use tail::TailBudget;
