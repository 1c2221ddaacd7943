//! The Produce request around a batch, encoded once: one topic, one partition, one batch, as
//! librdkafka sends it.
//!
//! ```text
//!   [length | header | ... topic ... | partition index] [records length] [batch] [tags]
//!    `---------------- head, patched ---------------'   `-- varint -'            `tail'
//! ```

use std::borrow::Cow;

use chronik_common::Uuid;
use chronik_protocol::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use chronik_protocol::{
    ApiKey, DecodeError, EncodeError, FRAME_PREFIX_BYTES, OutputBuffer, Reader, Records,
    RequestHeader, decode_response_header, encode_request_frame,
};

use crate::client::CLIENT_ID;

/// Where the correlation id lies in a frame.
const CORRELATION_ID: usize = FRAME_PREFIX_BYTES + 4;

/// First version with compact lengths and tags.
const FIRST_FLEXIBLE: i16 = 9;

/// What all requests of a connection share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestShape {
    /// Version of the API.
    pub version: i16,
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic, for version 13 and later.
    pub topic_id: Uuid,
    /// Acknowledgements to wait for.
    pub acks: i16,
    /// Milliseconds that the broker may wait for replicas.
    pub timeout_ms: i32,
}

/// See the module.
#[derive(Debug)]
pub struct RequestTemplate {
    version: i16,
    /// Everything up to the partition index, then room for the length of the records.
    head: Vec<u8>,
    /// Length of `head` without the length of the records.
    fixed_bytes: usize,
    tail: &'static [u8],
}

/// A request in three pieces; what surrounds the batch, and the batch as given.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// From the frame's length to the length of the records.
    pub head: &'a [u8],
    /// The batch.
    pub batch: &'a [u8],
    /// What follows the batch.
    pub tail: &'a [u8],
}

impl RequestParts<'_> {
    /// Bytes of the whole frame.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head.len() + self.batch.len() + self.tail.len()
    }
}

impl RequestTemplate {
    /// Encodes what all requests share.
    ///
    /// # Errors
    /// If the version cannot carry it.
    pub fn new(shape: &RequestShape) -> Result<Self, EncodeError> {
        let version = shape.version;
        let request = ProduceRequest {
            transactional_id: None,
            acks: shape.acks,
            timeout_ms: shape.timeout_ms,
            topic_data: vec![TopicProduceData {
                name: Cow::Borrowed(&shape.topic),
                topic_id: shape.topic_id,
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(Records::EMPTY),
                }],
            }],
        };
        let header = RequestHeader {
            api: ApiKey::Produce,
            version,
            correlation_id: 0,
            client_id: Some(CLIENT_ID),
        };
        let mut out = OutputBuffer::new();
        encode_request_frame(&mut out, header, |out| request.encode(out, version))?;
        let mut head = out.to_vec();
        // Empty records end the frame: their length, then the tags of three levels.
        let is_flexible = version >= FIRST_FLEXIBLE;
        let (length_bytes, tail): (_, &[u8]) = if is_flexible { (1, &[0; 3]) } else { (4, &[]) };
        head.truncate(head.len() - length_bytes - tail.len());
        Ok(Self { version, fixed_bytes: head.len(), head, tail })
    }

    /// Version of the requests.
    #[must_use]
    pub fn version(&self) -> i16 {
        self.version
    }

    /// The request that brings `batch` to `partition`.
    pub fn request<'a>(
        &'a mut self,
        correlation_id: i32,
        partition: i32,
        batch: &'a [u8],
    ) -> RequestParts<'a> {
        self.head.truncate(self.fixed_bytes);
        let length = u32::try_from(batch.len()).expect("a batch is shorter than 4 GiB");
        if self.version >= FIRST_FLEXIBLE {
            put_uvarint(&mut self.head, length + 1);
        } else {
            self.head.extend_from_slice(&length.to_be_bytes());
        }
        let payload = self.head.len() + batch.len() + self.tail.len() - FRAME_PREFIX_BYTES;
        let payload = u32::try_from(payload).expect("a frame is shorter than 4 GiB");
        self.head[..FRAME_PREFIX_BYTES].copy_from_slice(&payload.to_be_bytes());
        self.head[CORRELATION_ID..CORRELATION_ID + 4]
            .copy_from_slice(&correlation_id.to_be_bytes());
        let partition_at = self.fixed_bytes - 4;
        self.head[partition_at..self.fixed_bytes].copy_from_slice(&partition.to_be_bytes());
        RequestParts { head: &self.head, batch, tail: self.tail }
    }
}

/// What the broker says to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceAnswer {
    /// The request's number.
    pub correlation_id: i32,
    /// Kafka's error code.
    pub error_code: i16,
    /// Offset of the first message.
    pub base_offset: i64,
}

/// Reads the answer to a request of this template from a frame's payload.
///
/// # Errors
/// If the bytes are no such answer.
pub fn decode_answer(payload: &[u8], version: i16) -> Result<ProduceAnswer, DecodeError> {
    let (correlation_id, body) = decode_response_header(payload, ApiKey::Produce, version)?;
    let answer = ProduceResponse::decode(&mut Reader::new(body), version)?;
    let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    let unknown = chronik_common::ErrorCode::UnknownServerError.code();
    Ok(ProduceAnswer {
        correlation_id,
        error_code: partition.map_or(unknown, |it| it.error_code),
        base_offset: partition.map_or(-1, |it| it.base_offset),
    })
}

fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use chronik_protocol::produce::PartitionProduceResponse;
    use chronik_protocol::produce::TopicProduceResponse;
    use chronik_protocol::{RequestPrefix, encode_response_frame};

    use super::*;

    fn template(version: i16) -> RequestTemplate {
        RequestTemplate::new(&RequestShape {
            version,
            topic: "orders".to_owned(),
            topic_id: Uuid([7; 16]),
            acks: -1,
            timeout_ms: 30_000,
        })
        .unwrap()
    }

    #[test]
    fn every_version_and_size_decodes_as_the_request_it_stands_for() {
        for version in 3..=13 {
            let mut template = template(version);
            for size in [0, 1, 126, 127, 128, 16_382, 16_383, 70_000] {
                let batch = vec![0xab; size];
                let parts = template.request(77, 5, &batch);
                let frame = [parts.head, parts.batch, parts.tail].concat();
                let (length, payload) = frame.split_at(FRAME_PREFIX_BYTES);
                assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, payload.len());
                let prefix = RequestPrefix::decode(payload).unwrap();
                assert_eq!(prefix.correlation_id, 77);
                let (header, body) =
                    RequestHeader::decode(payload, ApiKey::Produce, prefix).unwrap();
                assert_eq!(header.client_id, Some(CLIENT_ID));
                let mut reader = Reader::new(body);
                let request = ProduceRequest::decode(&mut reader, version).unwrap();
                assert_eq!(reader.remaining(), 0, "version {version}, {size} bytes");
                let topic = &request.topic_data[0];
                assert!(topic.name == "orders" || version == 13);
                assert_eq!(topic.partition_data[0].index, 5);
                let records = topic.partition_data[0].records.as_ref().unwrap();
                assert_eq!(records.contiguous().as_ref(), batch);
            }
        }
    }

    #[test]
    fn the_answer_of_every_version_is_understood() {
        for version in 3..=13 {
            let partition = PartitionProduceResponse {
                index: 5,
                error_code: 6,
                base_offset: 1 << 40,
                ..PartitionProduceResponse::default()
            };
            let response = ProduceResponse {
                responses: vec![TopicProduceResponse {
                    name: "orders".into(),
                    partition_responses: vec![partition],
                    ..TopicProduceResponse::default()
                }],
                ..ProduceResponse::default()
            };
            let mut out = OutputBuffer::new();
            encode_response_frame(&mut out, ApiKey::Produce, version, 3, |out| {
                response.encode(out, version)
            })
            .unwrap();
            let frame = out.to_vec();
            let answer = decode_answer(&frame[FRAME_PREFIX_BYTES..], version).unwrap();
            let expected = ProduceAnswer { correlation_id: 3, error_code: 6, base_offset: 1 << 40 };
            assert_eq!(answer, expected);
            assert!(decode_answer(&frame[FRAME_PREFIX_BYTES..8], version).is_err());
        }
    }
}
