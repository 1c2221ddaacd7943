//! Reading as a consumer: below the high watermark, whole batches, verified bytes only.

use bytes::Bytes;
use chronik_common::{LeaderEpoch, Offset};
use chronik_record::{BatchHeader, DecompressionLimits, records};
use chronik_wal::{ReadBuffers, ReadMode, ReadPlan};

use crate::error::ReadError;
use crate::partition::{Partition, PartitionNumbers, PartitionState};

/// Bytes read at once while looking for a timestamp.
const LOOKUP_BYTES: usize = 1 << 20;
/// Largest decompressed batch while looking for a timestamp, in bytes.
const LOOKUP_DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// The end of a leader epoch in this log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest epoch not above the one asked for.
    pub epoch: LeaderEpoch,
    /// First offset behind it.
    pub end_offset: Offset,
}

/// What a consumer gets.
#[derive(Debug)]
pub struct FetchRead {
    /// Where the bytes are; a [`ReadPlan::Segment`] is read outside of the lock.
    pub plan: ReadPlan,
    /// The numbers at the moment of the read.
    pub numbers: PartitionNumbers,
    /// Set when the client's log diverged: its last fetched epoch ended before its offset
    /// (KIP-595); then `plan` is empty.
    pub diverging: Option<EpochEnd>,
}

/// A record found by its timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its own timestamp.
    pub timestamp: i64,
    /// Leader epoch under which it was appended.
    pub leader_epoch: LeaderEpoch,
}

impl Partition {
    /// Plans a read from `offset` up to the high watermark.
    ///
    /// # Errors
    /// A [`ReadError`]; `current_epoch` and `last_fetched_epoch` of -1 are not checked.
    pub fn read(
        &self,
        offset: Offset,
        bytes_max: usize,
        current_epoch: LeaderEpoch,
        last_fetched_epoch: LeaderEpoch,
    ) -> Result<FetchRead, ReadError> {
        let state = self.lock();
        if state.is_deleted {
            return Err(ReadError::Deleted);
        }
        check_epoch(&state, current_epoch)?;
        let numbers = PartitionNumbers {
            log_start_offset: state.log.log_start_offset(),
            high_watermark: state.replication.high_watermark(),
            log_end_offset: state.log.log_end_offset(),
            leader_epoch: state.leader_epoch,
        };
        if let Some(diverging) = diverging_epoch(&state, offset, last_fetched_epoch) {
            return Ok(FetchRead { plan: ReadPlan::Empty, numbers, diverging: Some(diverging) });
        }
        let plan = state.log.read(offset, numbers.high_watermark, bytes_max)?;
        Ok(FetchRead { plan, numbers, diverging: None })
    }

    /// Checks the leader epoch a client believes in; -1 is not checked.
    ///
    /// # Errors
    /// [`ReadError::FencedEpoch`] or [`ReadError::UnknownEpoch`].
    pub fn check_leader_epoch(&self, asked: LeaderEpoch) -> Result<(), ReadError> {
        check_epoch(&self.lock(), asked)
    }

    /// Leader epoch of the record at `offset`; -1 if unknown.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> LeaderEpoch {
        let state = self.lock();
        state.log.epochs().epoch_of_offset(offset).unwrap_or(LeaderEpoch::NONE)
    }

    /// The first record below the high watermark with a timestamp of at least `timestamp`.
    /// Blocks on disk reads.
    ///
    /// # Errors
    /// A failed or damaged read.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        // The lock is free again before an index may have to be read.
        let lookup = self.lock().log.lookup_start_for_time(timestamp);
        let Some(lookup) = lookup else { return Ok(None) };
        self.find_record(
            lookup.start()?,
            |batch| batch.max_timestamp >= timestamp,
            |found| found.timestamp >= timestamp,
        )
    }

    /// The first record that carries the log's largest timestamp. Blocks on disk reads.
    ///
    /// # Errors
    /// A failed or damaged read.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        let start = self.lock().log.lookup_start_for_max_time();
        let Some((start, timestamp)) = start else { return Ok(None) };
        self.find_record(
            start,
            |batch| batch.max_timestamp >= timestamp,
            |found| found.timestamp >= timestamp,
        )
    }

    /// Looks into batches from `offset` on until a record satisfies `is_wanted`.
    fn find_record(
        &self,
        mut offset: Offset,
        may_hold: impl Fn(&BatchHeader) -> bool,
        is_wanted: impl Fn(&TimestampedOffset) -> bool,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        loop {
            let plan = {
                let state = self.lock();
                let start = state.log.log_start_offset();
                offset = offset.max(start);
                state.log.read(offset, state.replication.high_watermark(), LOOKUP_BYTES)?
            };
            let bodies = match plan {
                ReadPlan::Empty => return Ok(None),
                ReadPlan::Memory(bodies) => bodies,
                ReadPlan::Segment(range) => range
                    .read(ReadMode::Blocking, &ReadBuffers::default())?
                    .expect("a blocking read has a result"),
            };
            let Some(last) = bodies.last() else { return Ok(None) };
            let next = batch_header(last)?.next_offset();
            for body in &bodies {
                let header = batch_header(body)?;
                if may_hold(&header)
                    && let Some(found) = find_in_batch(body, &header, offset, &is_wanted)?
                {
                    return Ok(Some(found));
                }
            }
            offset = next;
        }
    }
}

fn check_epoch(state: &PartitionState, asked: LeaderEpoch) -> Result<(), ReadError> {
    let current = state.leader_epoch;
    if asked == LeaderEpoch::NONE || asked == current {
        Ok(())
    } else if asked < current {
        Err(ReadError::FencedEpoch { asked, current })
    } else {
        Err(ReadError::UnknownEpoch { asked, current })
    }
}

fn diverging_epoch(
    state: &PartitionState,
    offset: Offset,
    last_fetched: LeaderEpoch,
) -> Option<EpochEnd> {
    if last_fetched == LeaderEpoch::NONE || offset > state.log.log_end_offset() {
        return None;
    }
    let log_end = state.log.log_end_offset();
    let (epoch, end_offset) = state.log.epochs().end_of(last_fetched, log_end)?;
    (epoch < last_fetched || end_offset < offset).then_some(EpochEnd { epoch, end_offset })
}

fn batch_header(body: &Bytes) -> Result<BatchHeader, ReadError> {
    BatchHeader::parse(body).map_err(|_| ReadError::Storage(chronik_wal::WalError::Failed))
}

fn find_in_batch(
    body: &Bytes,
    header: &BatchHeader,
    from: Offset,
    is_wanted: &impl Fn(&TimestampedOffset) -> bool,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let limits = DecompressionLimits::output_bytes(LOOKUP_DECOMPRESSED_BYTES_MAX);
    // A batch whose records do not decode was accepted under `chronik.validation=batch`; the
    // lookup passes over it as a consumer that skips it would.
    let Ok(records) = records(body, limits) else { return Ok(None) };
    for record in records.iter() {
        let Ok(record) = record else { return Ok(None) };
        let found = TimestampedOffset {
            offset: record.offset,
            timestamp: record.timestamp,
            leader_epoch: header.partition_leader_epoch,
        };
        if record.offset >= from && is_wanted(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
