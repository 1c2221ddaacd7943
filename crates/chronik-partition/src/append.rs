//! Appending a batch as the leader.

use bytes::BytesMut;
use chronik_common::{Offset, WallMs};
use chronik_record::{
    BatchError, BatchHeader, TimestampType, clear_log_append_time, crc, recompress,
    set_base_offset, set_log_append_time, set_max_timestamp, set_partition_leader_epoch,
    validate_batch,
};
use chronik_wal::NewFrame;
use chronik_wal::frame::{FRAME_BODY_BYTES_MAX, FrameKind};

use crate::acks::Token;
use crate::error::AppendError;
use crate::partition::{Partition, PartitionState};
use crate::producer_state::ProducerVerdict;
use crate::topic_settings::TopicSettings;

/// Batches below this many bytes are copied next to each other, so that a small batch does not
/// keep its whole receive buffer alive; larger ones stay where they were received.
const COPY_BYTES_MAX: usize = 8 << 10;
/// Bytes of the chunk into which small batches are copied.
const ARENA_CHUNK_BYTES: usize = 64 << 10;

/// When a producer wants its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Never.
    None,
    /// When the leader has the batch as durable as the topic says.
    Leader,
    /// When it is committed.
    All,
}

/// A batch as it was received.
#[derive(Debug)]
pub enum BatchSource<'a> {
    /// Bytes somebody else owns; they are copied.
    Borrowed(&'a [u8]),
    /// A receive buffer's part that nobody else uses; it is patched and kept.
    Owned(BytesMut),
}

impl BatchSource<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A batch that satisfies its topic's rules. Made without any lock.
#[derive(Debug)]
pub struct PreparedBatch<'a> {
    source: BatchSource<'a>,
    header: BatchHeader,
    log_append_time: Option<i64>,
}

impl<'a> PreparedBatch<'a> {
    /// Validates a client's batch and makes it what the topic stores: codec, timestamps.
    ///
    /// # Errors
    /// [`AppendError::Batch`] with the rule the batch breaks.
    pub fn new(
        source: BatchSource<'a>,
        settings: &TopicSettings,
        now: WallMs,
        is_zstd_allowed: bool,
    ) -> Result<Self, AppendError> {
        let rules = settings.validation_rules(now, is_zstd_allowed);
        let valid = validate_batch(source.bytes(), &rules)?;
        let mut header = *valid.header();
        if header.attributes.is_transactional() {
            return Err(AppendError::Transactional);
        }
        let corrected =
            valid.max_timestamp_of_records().filter(|timestamp| *timestamp != header.max_timestamp);
        let must_recompress = settings
            .codec
            .is_some_and(|codec| header.attributes.codec().is_ok_and(|current| current != codec));
        let mut source = source;
        if let (true, Some(codec)) = (must_recompress, settings.codec) {
            let bytes = recompress(source.bytes(), codec, rules.decompression)?;
            source = BatchSource::Owned(BytesMut::from(&bytes[..]));
            header = BatchHeader::parse(&bytes)?;
        }
        let mut log_append_time = None;
        let stamps = rules.timestamp_type == TimestampType::LogAppendTime;
        // A client's claim that the broker set the time is not believed.
        let is_stamped_by_client =
            header.attributes.timestamp_type() == TimestampType::LogAppendTime;
        if stamps || is_stamped_by_client || corrected.is_some() {
            let mut bytes = match source {
                BatchSource::Borrowed(bytes) => BytesMut::from(bytes),
                BatchSource::Owned(bytes) => bytes,
            };
            if stamps {
                set_log_append_time(&mut bytes, now.0);
                log_append_time = Some(now.0);
            } else {
                if is_stamped_by_client {
                    clear_log_append_time(&mut bytes);
                }
                if let Some(timestamp) = corrected {
                    set_max_timestamp(&mut bytes, timestamp);
                }
            }
            header = BatchHeader::parse(&bytes)?;
            source = BatchSource::Owned(bytes);
        }
        // Recompression may have made it larger than what a restart would read.
        let size = source.bytes().len();
        if size > FRAME_BODY_BYTES_MAX {
            let limit = FRAME_BODY_BYTES_MAX;
            return Err(AppendError::Batch(BatchError::LargerThanSegment { size, limit }));
        }
        assert_eq!(size, header.size(), "a batch is as long as its header says");
        Ok(Self { source, header, log_append_time })
    }

    /// The batch's header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }
}

/// Where a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The time the topic stamped on it; `None` on `CreateTime` topics.
    pub log_append_time: Option<i64>,
    /// First readable offset of the partition.
    pub log_start_offset: Offset,
    /// True if the token was registered and will be completed; false if no wait is needed.
    pub must_wait: bool,
}

impl Partition {
    /// Appends a batch. Its answer waits for `token` unless `acks` is none; the frames leave
    /// with the next [`Partition::submit`].
    ///
    /// # Errors
    /// An [`AppendError`]; then nothing was appended and no token registered.
    pub fn append(
        &self,
        batch: PreparedBatch<'_>,
        acks: Acks,
        token: Token,
        now: WallMs,
    ) -> Result<Appended, AppendError> {
        let mut state = self.lock();
        if state.is_deleted {
            return Err(AppendError::Deleted);
        }
        if !state.log.accepts_appends() {
            return Err(AppendError::StorageUnavailable);
        }
        if acks == Acks::All {
            self.check_in_sync(&state)?;
        }
        let (base_offset, end_offset, log_append_time) =
            match state.producers.check(&batch.header)? {
                ProducerVerdict::Duplicate { base_offset, end_offset, timestamp } => {
                    let is_stamped = batch.log_append_time.is_some();
                    (base_offset, end_offset, is_stamped.then_some(timestamp))
                }
                ProducerVerdict::Append => {
                    let log_append_time = batch.log_append_time;
                    let (base_offset, end_offset) = self.append_fresh(&mut state, batch, now)?;
                    (base_offset, end_offset, log_append_time)
                }
            };
        let must_wait = match acks {
            Acks::None => false,
            Acks::Leader => wait(&mut state, AckClass::Flushed, end_offset, token),
            Acks::All => wait(&mut state, AckClass::Committed, end_offset, token),
        };
        let log_start_offset = state.log.log_start_offset();
        Ok(Appended { base_offset, log_append_time, log_start_offset, must_wait })
    }

    fn check_in_sync(&self, state: &PartitionState) -> Result<(), AppendError> {
        let in_sync = state.replication.in_sync_replicas();
        let needed = usize::from(self.settings().config.min_insync_replicas);
        let needed = needed.min(state.replication.replication_factor());
        if in_sync < needed {
            return Err(AppendError::NotEnoughReplicas { in_sync, needed });
        }
        Ok(())
    }

    fn append_fresh(
        &self,
        state: &mut PartitionState,
        batch: PreparedBatch<'_>,
        now: WallMs,
    ) -> Result<(Offset, Offset), AppendError> {
        let mut body = match batch.source {
            BatchSource::Owned(bytes) if bytes.len() >= COPY_BYTES_MAX => bytes,
            small => {
                let bytes = small.bytes();
                if state.arena.capacity() < bytes.len() {
                    state.arena = BytesMut::with_capacity(ARENA_CHUNK_BYTES.max(bytes.len()));
                }
                state.arena.extend_from_slice(bytes);
                state.arena.split()
            }
        };
        let base_offset = state.log.log_end_offset();
        let epoch = state.leader_epoch;
        set_base_offset(&mut body, base_offset);
        set_partition_leader_epoch(&mut body, epoch);
        let header = BatchHeader { base_offset, partition_leader_epoch: epoch, ..batch.header };
        let body = body.freeze();
        debug_assert_eq!(
            BatchHeader::parse(&body).as_ref(),
            Ok(&header),
            "the stored bytes are those of the header that was judged"
        );
        let frame = state.log.append(NewFrame {
            kind: FrameKind::Data,
            flags: frame_flags(&header),
            epoch,
            record_count: u32::try_from(header.record_count).unwrap_or(0),
            last_offset_delta: header.last_offset_delta,
            body_crc: crc::whole_batch_crc(&body, &header),
            body,
            append_time_ms: now.0,
            max_timestamp: header.max_timestamp,
        });
        let frame = frame.map_err(|_| AppendError::StorageUnavailable)?;
        assert_eq!(frame.base_offset, base_offset, "the log appends where it said it would");
        assert_eq!(
            frame.next_offset(),
            header.next_offset(),
            "the log gives a batch as many offsets as its header claims"
        );
        state.producers.note_appended(&header, now.0);
        self.publish(state);
        Ok((base_offset, frame.next_offset()))
    }
}

fn frame_flags(header: &BatchHeader) -> u8 {
    u8::from(header.attributes.is_transactional()) | u8::from(header.attributes.is_control()) << 1
}

#[derive(Clone, Copy)]
enum AckClass {
    Flushed,
    Committed,
}

/// Registers a waiter unless what it waits for has happened: a duplicate of a batch that was
/// acknowledged long ago. A fresh batch is never durable before it is submitted.
fn wait(state: &mut PartitionState, class: AckClass, end_offset: Offset, token: Token) -> bool {
    let (reached, queue) = match class {
        AckClass::Flushed => (state.log.flushed_offset(), &mut state.waiting_for_flush),
        AckClass::Committed => (state.replication.high_watermark(), &mut state.waiting_for_commit),
    };
    let log_end_offset = state.log.log_end_offset();
    assert!(
        end_offset <= log_end_offset,
        "a wait for {end_offset:?} in a log that ends at {log_end_offset:?}"
    );
    let must_wait = end_offset > reached;
    if must_wait {
        queue.push(end_offset, token);
    }
    must_wait
}
