//! One reading connection as a pure step: positions in, fetches out, batches in.
//!
//! One fetch is under way at a time and asks for every partition that is not at its target. Every
//! batch's CRC is computed, and offsets must never go back; records are decoded if the mode says
//! so. Knows no socket, no clock and no thread.

use chronik_common::Uuid;
use chronik_protocol::{
    ApiKey, EncodeError, OutputBuffer, Reader, RequestHeader, decode_response_header,
    encode_request_frame,
};
use chronik_record::{BatchHeader, DecompressionLimits, records};

use crate::client::{CLIENT_ID, FetchPlan, code_name, fetch_request, fetched_partitions};
use crate::clock::Moment;
use crate::identity::Identity;
use crate::recorder::Recorder;

/// Longest wait of a broker for the first byte.
const WAIT_MS: i32 = 500;

/// Bytes of one answer, and of one partition in it.
const ANSWER_BYTES: i32 = 16 << 20;
const PARTITION_BYTES: i32 = 1 << 20;

/// Decompressed bytes of one batch at most.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// What is done with batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Checked and counted.
    Batches,
    /// Every record is decoded.
    Records,
    /// Every record is decoded, and the latency of those of this run is measured.
    EndToEnd {
        /// Number of the run.
        run: u32,
    },
}

/// A partition and how far it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadPosition {
    /// Index of the partition.
    pub partition: i32,
    /// Offset of the next record.
    pub next_offset: i64,
    /// Offset at which reading ends, exclusive.
    pub target: i64,
}

/// Why a connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// An answer that is none.
    #[error("an answer that cannot be read: {0}")]
    Malformed(String),
    /// The broker refused.
    #[error("the broker refused to give {what}: {}", code_name(*code))]
    Refused {
        /// What was asked for.
        what: String,
        /// Kafka's error code.
        code: i16,
    },
    /// Bytes with a wrong checksum, or a log that goes back.
    #[error("partition {partition}, offset {offset}: {what}")]
    Damaged {
        /// The partition.
        partition: i32,
        /// Offset of the batch.
        offset: i64,
        /// What is wrong with it.
        what: String,
    },
}

/// See the module.
#[derive(Debug)]
pub struct ConsumerEngine {
    topic: String,
    topic_id: Uuid,
    version: i16,
    reading: Reading,
    positions: Vec<ReadPosition>,
    next_correlation_id: i32,
    /// When the fetch under way was sent.
    sent: Option<Moment>,
}

impl ConsumerEngine {
    /// A reader of partitions with one leader, in this version of Fetch.
    #[must_use]
    pub fn new(
        (topic, topic_id): (&str, Uuid),
        version: i16,
        reading: Reading,
        positions: Vec<ReadPosition>,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            topic_id,
            version,
            reading,
            positions,
            next_correlation_id: 0,
            sent: None,
        }
    }

    /// True if every partition is at its target.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.positions.iter().all(|it| it.next_offset >= it.target)
    }

    /// True if a fetch is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.sent.is_some()
    }

    /// Puts the next fetch, unless one is under way or there is nothing to ask for.
    ///
    /// # Errors
    /// If the version cannot carry it.
    pub fn pump(&mut self, now: Moment, out: &mut OutputBuffer) -> Result<(), EncodeError> {
        if self.is_waiting() || self.is_at_end() {
            return Ok(());
        }
        let wanted: Vec<_> = self
            .positions
            .iter()
            .filter(|it| it.next_offset < it.target)
            .map(|it| (it.partition, it.next_offset))
            .collect();
        let plan = FetchPlan {
            topic: &self.topic,
            topic_id: self.topic_id,
            max_wait_ms: WAIT_MS,
            max_bytes: ANSWER_BYTES,
            partition_max_bytes: PARTITION_BYTES,
        };
        let request = fetch_request(&plan, &wanted);
        let header = RequestHeader {
            api: ApiKey::Fetch,
            version: self.version,
            correlation_id: self.next_correlation_id,
            client_id: Some(CLIENT_ID),
        };
        encode_request_frame(out, header, |out| request.encode(out, self.version))?;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        self.sent = Some(now);
        Ok(())
    }

    /// Takes the answer to the fetch under way, from a frame's payload, and returns how many
    /// messages it brought.
    ///
    /// # Errors
    /// See [`ReadError`]; the connection is then of no use any more.
    pub fn on_answer(
        &mut self,
        payload: &[u8],
        now: Moment,
        recorder: &mut Recorder,
    ) -> Result<u64, ReadError> {
        let malformed =
            |error: chronik_protocol::DecodeError| ReadError::Malformed(error.to_string());
        let (_, body) =
            decode_response_header(payload, ApiKey::Fetch, self.version).map_err(malformed)?;
        let (code, partitions) =
            fetched_partitions(&mut Reader::new(body), self.version).map_err(malformed)?;
        if code != 0 {
            return Err(ReadError::Refused { what: self.topic.clone(), code });
        }
        let sent = self.sent.take();
        recorder.request();
        let mut messages = 0;
        for partition in partitions {
            let (index, code) = (partition.index, partition.error_code);
            if code != 0 {
                let what = format!("{}-{index}", self.topic);
                return Err(ReadError::Refused { what, code });
            }
            messages += self.take(index, partition.records, now, recorder)?;
        }
        if let Some(sent) = sent
            && messages > 0
            && !matches!(self.reading, Reading::EndToEnd { .. })
        {
            recorder.request_latency(now, sent);
        }
        Ok(messages)
    }

    /// Takes the batches of a partition and returns how many messages they hold.
    fn take(
        &mut self,
        partition: i32,
        mut bytes: &[u8],
        now: Moment,
        recorder: &mut Recorder,
    ) -> Result<u64, ReadError> {
        let reading = self.reading;
        let Some(position) = self.positions.iter_mut().find(|it| it.partition == partition) else {
            return Ok(0);
        };
        let mut total = 0;
        while let Ok(header) = BatchHeader::parse(bytes) {
            let Some((batch, rest)) = bytes.split_at_checked(header.size()) else { break };
            bytes = rest;
            let offset = header.base_offset.0;
            let damaged =
                |what: &str| ReadError::Damaged { partition, offset, what: what.to_owned() };
            header.verify_crc(batch).map_err(|error| damaged(&error.to_string()))?;
            let next = header.next_offset().0;
            if next <= position.next_offset {
                // A compressed answer may begin before the offset asked for.
                continue;
            }
            position.next_offset = next;
            if header.attributes.is_control() {
                continue;
            }
            let count = u64::try_from(header.record_count).unwrap_or(0);
            total += count;
            match reading {
                Reading::Batches => {
                    let bytes = batch.len().saturating_sub(BatchHeader::SIZE) as u64;
                    recorder.received(now, count, bytes);
                }
                Reading::Records => {
                    let bytes = decode(batch, |_| {}).map_err(|what| damaged(&what))?;
                    recorder.received(now, count, bytes);
                }
                Reading::EndToEnd { run } => {
                    decode(batch, |value| {
                        let ours = Identity::read(value).filter(|identity| identity.run == run);
                        if let Some(identity) = ours {
                            recorder.success(now, identity.intended, 1, value.len() as u64);
                        }
                    })
                    .map_err(|what| damaged(&what))?;
                }
            }
        }
        Ok(total)
    }
}

/// Decodes every record of a batch, gives each value to `take`, and returns their bytes.
fn decode(batch: &[u8], mut take: impl FnMut(&[u8])) -> Result<u64, String> {
    let limits = DecompressionLimits::output_bytes(BATCH_BYTES_MAX);
    let mut bytes = 0;
    for record in &records(batch, limits).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        if let Some(value) = record.value {
            bytes += value.len() as u64;
            take(value);
        }
    }
    Ok(bytes)
}
