//! The output queue against a plain vector, and what it does not copy or allocate.

use std::io::IoSlice;

use allocation_counter::measure;
use bytes::Bytes;
use chronik_common::{Rng, SeededRng};
use chronik_protocol::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use chronik_protocol::{
    ApiKey, EncodeReason, FrameSplit, OutputBuffer, Records, SHARED_SLICE_BYTES_MIN,
    encode_response_frame, fetch, metadata, split_frame,
};

/// Sends through a "socket" that takes at most `limit` bytes and `entries` slices a call.
fn send(out: &mut OutputBuffer, entries: usize, limit: usize) -> Vec<u8> {
    let mut slices = vec![IoSlice::new(&[]); entries];
    let used = out.fill_io_slices(&mut slices, usize::MAX);
    let mut sent: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
    sent.truncate(limit);
    out.advance(sent.len());
    sent
}

#[test]
fn what_is_put_comes_out_in_order_however_it_is_sent() {
    for seed in 0..200 {
        let mut rng = SeededRng::new(seed);
        let mut out = OutputBuffer::new();
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let mark = out.begin_frame();
            let mut payload = Vec::new();
            for _ in 0..rng.below(5) {
                let size = rng.below(3 * SHARED_SLICE_BYTES_MIN as u64) as usize;
                let piece: Vec<u8> = (0..size).map(|_| rng.next_u64() as u8).collect();
                payload.extend_from_slice(&piece);
                if rng.below(2) == 0 { out.put_slice(&piece) } else { out.put_shared(piece.into()) }
            }
            if rng.below(4) == 0 {
                out.abort_frame(mark);
            } else {
                out.end_frame(mark).unwrap();
                expected.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                expected.extend_from_slice(&payload);
            }
            assert_eq!(out.len(), expected.len() - received.len(), "seed {seed}");
            if let Some(piece) = out.as_slice() {
                assert_eq!(piece, &expected[received.len()..], "seed {seed}");
            }
            for _ in 0..rng.below(3) {
                let (entries, limit) = (rng.below(6) as usize, rng.below(6_000) as usize);
                received.extend(send(&mut out, entries, limit));
            }
        }
        received.extend(out.to_vec());
        assert_eq!(received, expected, "seed {seed}");
        out.advance(out.len());
        assert!(out.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_queue_that_never_drains_does_not_keep_what_it_has_sent() {
    let frame = [7; 1_000];
    let mut out = OutputBuffer::new();
    out.put_slice(&frame);
    let peak = measure(|| {
        for _ in 0..10_000 {
            out.put_slice(&frame);
            out.advance(frame.len());
        }
    });
    assert!(peak.bytes_max < 1_000_000, "{} bytes held for a queue of 2 kB", peak.bytes_max);
}

#[test]
fn fetched_records_are_sent_from_the_memory_they_are_in() {
    let large = Bytes::from(vec![1; 10_000]);
    let small = Bytes::from(vec![2; SHARED_SLICE_BYTES_MIN - 1]);
    let records = Records::Chain(vec![large.clone(), small.clone(), large.clone()]);
    let partition = fetch::PartitionData { records: Some(records), ..Default::default() };
    let topic = fetch::FetchableTopicResponse { partitions: vec![partition], ..Default::default() };
    let response = fetch::FetchResponse { responses: vec![topic], ..Default::default() };

    let mut out = OutputBuffer::new();
    let body = |out: &mut OutputBuffer| response.encode(out, 16);
    encode_response_frame(&mut out, ApiKey::Fetch, 16, 1, body).unwrap();
    assert_eq!(out.as_slice(), None, "not in one piece");
    let mut slices = [IoSlice::new(&[]); 16];
    let used = out.fill_io_slices(&mut slices, usize::MAX);
    let shared = slices[..used].iter().filter(|slice| slice.as_ptr() == large.as_ptr());
    assert_eq!((used, shared.count()), (5, 2), "owned, large, small copied, large, owned");

    let total = |slices: &[IoSlice<'_>]| slices.iter().map(|slice| slice.len()).sum::<usize>();
    for bytes_max in [0, 1, out.len() - 10_001, out.len() - 1, out.len()] {
        let used = out.fill_io_slices(&mut slices, bytes_max);
        assert_eq!(total(&slices[..used]), bytes_max, "exactly what may be sent");
    }

    let sent = out.to_vec();
    assert_eq!(split_frame(&sent, 100_000), Ok(FrameSplit::Frame { payload: sent.len() - 4 }));
}

#[test]
fn small_responses_allocate_nothing_once_the_buffer_is_warm() {
    let partition = PartitionProduceResponse { base_offset: 5, ..Default::default() };
    let topic = TopicProduceResponse {
        name: "topic".into(),
        partition_responses: vec![partition; 10],
        ..Default::default()
    };
    let response = ProduceResponse { responses: vec![topic; 3], ..Default::default() };
    let mut out = OutputBuffer::new();
    for version in 3..=13 {
        let mut respond = || {
            for correlation_id in 0..3 {
                let body = |out: &mut OutputBuffer| response.encode(out, version);
                encode_response_frame(&mut out, ApiKey::Produce, version, correlation_id, body)
                    .unwrap();
            }
            assert_eq!(out.as_slice().map(<[u8]>::len), Some(out.len()), "sent with one call");
            out.advance(out.len());
        };
        respond();
        assert_eq!(measure(respond).count_total, 0, "version {version}");
    }
}

#[test]
fn a_body_that_cannot_be_encoded_leaves_the_queue_as_it_was() {
    let mut out = OutputBuffer::new();
    out.put_slice(b"earlier");
    let topic = metadata::MetadataResponseTopic { name: None, ..Default::default() };
    let response = metadata::MetadataResponse { topics: vec![topic], ..Default::default() };
    let body = |out: &mut OutputBuffer| response.encode(out, 11);
    let error = encode_response_frame(&mut out, ApiKey::Metadata, 11, 1, body).unwrap_err();
    assert_eq!(
        (error.api, error.version, error.field, error.reason),
        (ApiKey::Metadata, 11, "topics.name", EncodeReason::Null)
    );
    assert_eq!(out.to_vec(), b"earlier");
}

#[test]
fn a_field_the_version_lacks_is_dropped_if_ignorable_and_refused_if_not() {
    let response = metadata::MetadataResponse { throttle_time_ms: 9, ..Default::default() };
    assert_eq!(response.encode(&mut OutputBuffer::new(), 0), Ok(()), "ignorable");

    let response =
        metadata::MetadataResponse { cluster_authorized_operations: 9, ..Default::default() };
    for (version, carried) in [(7, false), (8, true), (10, true), (11, false)] {
        let result = response.encode(&mut OutputBuffer::new(), version);
        let refusal = result.err().map(|error| (error.field, error.reason));
        let expected =
            (!carried).then_some(("cluster_authorized_operations", EncodeReason::Absent));
        assert_eq!(refusal, expected, "version {version}");
    }
}
