//! Transaction markers: control batches of one record that end a producer's transaction.
//!
//! ```text
//!   key    version i16 = 0 | type i16: 0 abort, 1 commit
//!   value  version i16 = 0 | coordinator epoch i32
//! ```
//!
//! Big-endian. The batch is transactional and control, carries the producer's id and epoch and
//! base sequence -1, and takes one offset. Source:
//! `org.apache.kafka.common.record.EndTransactionMarker`.

use bytes::Bytes;
use chronik_common::ProducerId;

use crate::batch::BatchHeader;
use crate::builder::BatchBuilder;
use crate::compression::{Codec, DecompressionLimits};
use crate::error::{BatchError, Violation};
use crate::record::records;

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransactionOutcome {
    /// Its records must not be delivered to read_committed consumers.
    Abort,
    /// Its records become visible.
    Commit,
}

/// The content of a marker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EndTransactionMarker {
    /// How the transaction ended.
    pub outcome: TransactionOutcome,
    /// Epoch of the transaction coordinator that decided; an older one than seen before is
    /// fenced by the partition.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Size of every marker batch, in bytes.
    pub const BATCH_SIZE: usize = BatchHeader::SIZE + 17;

    /// The marker as a batch at offset 0, to be patched by the leader like any other.
    /// `timestamp_ms` is in ms since the Unix epoch.
    #[must_use]
    pub fn to_batch(
        self,
        producer_id: ProducerId,
        producer_epoch: i16,
        timestamp_ms: i64,
    ) -> Bytes {
        let kind = match self.outcome {
            TransactionOutcome::Abort => ABORT,
            TransactionOutcome::Commit => COMMIT,
        };
        let [v0, v1] = VERSION.to_be_bytes();
        let [k0, k1] = kind.to_be_bytes();
        let [e0, e1, e2, e3] = self.coordinator_epoch.to_be_bytes();
        let mut builder = BatchBuilder::new(Codec::None)
            .producer(producer_id, producer_epoch, -1)
            .transactional()
            .control();
        builder.append(timestamp_ms, Some(&[v0, v1, k0, k1]), Some(&[v0, v1, e0, e1, e2, e3]), &[]);
        let batch = builder.build();
        assert_eq!(batch.len(), Self::BATCH_SIZE, "a marker has a fixed size");
        batch
    }

    /// Reads a marker from exactly one batch. Newer versions of key and value are read by their
    /// known fields, as Kafka does.
    ///
    /// # Errors
    /// Those of [`records`] and of its iterator; [`Violation::NotAMarker`] for anything that is
    /// not a transactional control batch of one abort or commit record.
    pub fn parse(batch: &[u8]) -> Result<Self, BatchError> {
        // Markers are never compressed, so nothing needs to be expanded.
        let records = records(batch, DecompressionLimits::output_bytes(0))?;
        let attributes = records.header().attributes;
        if !attributes.is_control() || !attributes.is_transactional() {
            return Err(Violation::NotAMarker.into());
        }
        let mut records = records.iter();
        let record = records.next().ok_or(Violation::NotAMarker)??;
        if let Some(next) = records.next() {
            next?;
            return Err(Violation::NotAMarker.into());
        }
        let marker = Self::from_record(record.key, record.value).ok_or(Violation::NotAMarker)?;
        Ok(marker)
    }

    fn from_record(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Self> {
        let (key, value) = (key?, value?);
        let key_version = i16::from_be_bytes(*key.first_chunk()?);
        let kind = i16::from_be_bytes(*key[2..].first_chunk()?);
        let value_version = i16::from_be_bytes(*value.first_chunk()?);
        let coordinator_epoch = i32::from_be_bytes(*value[2..].first_chunk()?);
        let outcome = match kind {
            ABORT => TransactionOutcome::Abort,
            COMMIT => TransactionOutcome::Commit,
            _ => return None,
        };
        (key_version >= VERSION && value_version >= VERSION)
            .then_some(Self { outcome, coordinator_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RecordDefect;

    const KEY: &[u8] = &[0, 0, 0, 1];
    const VALUE: &[u8] = &[0, 0, 0, 0, 0, 7];

    type KeyAndValue = (Option<&'static [u8]>, Option<&'static [u8]>);

    fn parse(records: &[KeyAndValue]) -> Result<i32, BatchError> {
        let mut builder = BatchBuilder::new(Codec::None).transactional().control();
        for (key, value) in records {
            builder.append(0, *key, *value, &[]);
        }
        EndTransactionMarker::parse(&builder.build()).map(|marker| marker.coordinator_epoch)
    }

    #[test]
    fn newer_versions_of_a_marker_are_read_by_their_known_fields() {
        assert_eq!(parse(&[(Some(KEY), Some(VALUE))]), Ok(7));
        assert_eq!(parse(&[(Some(&[0, 1, 0, 1, 9]), Some(&[0, 1, 0, 0, 0, 7, 9]))]), Ok(7));
    }

    #[test]
    fn what_is_not_one_abort_or_commit_record_is_not_a_marker() {
        let not_a_marker = Err(Violation::NotAMarker.into());
        let marker = (Some(KEY), Some(VALUE));
        for records in [
            [marker, marker].as_slice(),
            &[(None, Some(VALUE))],
            &[(Some(KEY), None)],
            &[(Some(&[0]), Some(VALUE))],
            &[(Some(&KEY[..3]), Some(VALUE))],
            &[(Some(KEY), Some(&VALUE[..5]))],
            &[(Some(&[0xff, 0xff, 0, 1]), Some(VALUE))],
            &[(Some(&[0, 0, 0, 2]), Some(VALUE))],
        ] {
            assert_eq!(parse(records), not_a_marker, "{records:?}");
        }
        for builder in [
            BatchBuilder::new(Codec::None).transactional(),
            BatchBuilder::new(Codec::None).control(),
        ] {
            let mut builder = builder;
            builder.append(0, Some(KEY), Some(VALUE), &[]);
            let parsed = EndTransactionMarker::parse(&builder.build());
            assert_eq!(parsed, Err(Violation::NotAMarker.into()));
        }
    }

    #[test]
    fn a_damaged_marker_is_reported_as_damaged() {
        let marker =
            EndTransactionMarker { outcome: TransactionOutcome::Abort, coordinator_epoch: 0 };
        let mut batch = marker.to_batch(ProducerId(1), 0, 0).to_vec();
        // The length of its only record.
        batch[BatchHeader::SIZE] = 0x7e;
        let defect = RecordDefect::Truncated;
        let error = Violation::Record { record_index: 0, defect };
        assert_eq!(EndTransactionMarker::parse(&batch), Err(error.into()));
    }
}
