//! Versions that `kafka-protocol` lacks, against krafka's codec: ListOffsets 11 (KIP-1023).
//!
//! krafka is a client: it encodes requests and decodes responses, so each direction is foreign on
//! one side.

use chronik_protocol::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopic, ListOffsetsTopicResponse,
};
use chronik_protocol::{ApiKey, OutputBuffer, Request, decode_request};
use krafka::__private::protocol as foreign;
use krafka::__private::protocol::{VersionedDecode, VersionedEncode};

const VERSION: i16 = 11;

#[test]
fn a_list_offsets_request_of_krafka_says_the_same_to_us() {
    let theirs = foreign::ListOffsetsRequest {
        replica_id: -1,
        isolation_level: 1,
        topics: vec![foreign::ListOffsetsRequestTopic {
            name: "topic".to_owned(),
            partitions: vec![foreign::ListOffsetsRequestPartition {
                partition_index: 2,
                current_leader_epoch: 3,
                timestamp: -6,
            }],
        }],
        timeout_ms: Some(4),
    };
    let mut bytes = bytes::BytesMut::new();
    theirs.encode_versioned(VERSION, &mut bytes).unwrap();

    let ours = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: 1,
        topics: vec![ListOffsetsTopic {
            name: "topic".into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 2,
                current_leader_epoch: 3,
                timestamp: -6,
            }],
        }],
        timeout_ms: 4,
    };
    let decoded = decode_request(ApiKey::ListOffsets, VERSION, &bytes);
    assert_eq!(decoded, Ok(Request::ListOffsets(ours)));
}

#[test]
fn our_list_offsets_response_says_the_same_to_krafka() {
    let ours = ListOffsetsResponse {
        throttle_time_ms: 1,
        topics: vec![ListOffsetsTopicResponse {
            name: "topic".into(),
            partitions: vec![ListOffsetsPartitionResponse {
                partition_index: 2,
                error_code: 3,
                timestamp: 4,
                offset: 5,
                leader_epoch: 6,
            }],
        }],
    };
    let mut out = OutputBuffer::new();
    ours.encode(&mut out, VERSION).unwrap();

    let mut bytes = bytes::Bytes::from(out.to_vec());
    let theirs = foreign::ListOffsetsResponse::decode_versioned(VERSION, &mut bytes).unwrap();
    assert!(bytes.is_empty(), "krafka leaves {} of our bytes", bytes.len());
    assert_eq!(theirs.topics[0].name, "topic");
    let partition = &theirs.topics[0].partitions[0];
    assert_eq!((partition.partition_index, i16::from(partition.error_code)), (2, 3));
    assert_eq!((partition.timestamp, partition.offset, partition.leader_epoch), (4, 5, 6));
}
