//! What arrives may be anything: no panic, and memory within the budget.
//!
//! The valid messages that are damaged here are known to be Kafka's from the oracle tests.

use allocation_counter::measure;
use chronik_protocol::sample::Sampler;
use chronik_protocol::{
    ALLOCATION_BYTES_BASE, ALLOCATION_BYTES_PER_INPUT_BYTE, ApiKey, DecodeError, DecodeReason,
    OutputBuffer, Request, RequestHeader, RequestPrefix, Response, decode_request, decode_response,
};

const SAMPLE_BYTES_MAX: usize = 1_500;
const SAMPLES_PER_VERSION: usize = 3;

/// A decoder with the outcome reduced to success or failure.
type Decode = fn(ApiKey, i16, &[u8]) -> Result<(), DecodeError>;

fn request(api: ApiKey, version: i16, body: &[u8]) -> Result<(), DecodeError> {
    decode_request(api, version, body).map(drop)
}

fn response(api: ApiKey, version: i16, body: &[u8]) -> Result<(), DecodeError> {
    decode_response(api, version, body).map(drop)
}

/// Calls `check` with valid bodies of every API and version, not longer than
/// [`SAMPLE_BYTES_MAX`].
fn for_valid_bodies(mut check: impl FnMut(ApiKey, i16, Decode, &[u8])) {
    for api in ApiKey::ALL {
        for version in api.shown().min..=api.shown().max {
            let mut requests = 0;
            let mut responses = 0;
            for seed in 0..500 {
                let mut out = OutputBuffer::new();
                let message = Request::sample(*api, version, &mut Sampler::new(seed));
                message.encode(&mut out, version).expect("samples can be encoded");
                if requests < SAMPLES_PER_VERSION && out.len() <= SAMPLE_BYTES_MAX {
                    requests += 1;
                    check(*api, version, request, &out.to_vec());
                }
                let mut out = OutputBuffer::new();
                let message = Response::sample(*api, version, &mut Sampler::new(seed));
                message.encode(&mut out, version).expect("samples can be encoded");
                if responses < SAMPLES_PER_VERSION && out.len() <= SAMPLE_BYTES_MAX {
                    responses += 1;
                    check(*api, version, response, &out.to_vec());
                }
            }
            assert!(requests > 0 && responses > 0, "{api} version {version}");
        }
    }
}

fn assert_within_budget(api: ApiKey, version: i16, decode: Decode, body: &[u8]) {
    let allocated = measure(|| {
        // Damaged bytes may still be a message; only the memory matters.
        let _ = decode(api, version, body);
    });
    let budget = ALLOCATION_BYTES_BASE + ALLOCATION_BYTES_PER_INPUT_BYTE * body.len();
    assert!(
        allocated.bytes_total <= budget as u64,
        "{api} version {version}: {} bytes allocated, {budget} allowed, for {body:02x?}",
        allocated.bytes_total
    );
}

#[test]
fn a_message_cut_off_anywhere_is_an_error() {
    for_valid_bodies(|api, version, decode, body| {
        assert_eq!(decode(api, version, body), Ok(()), "{api} version {version}");
        for length in 0..body.len() {
            let result = decode(api, version, &body[..length]);
            assert!(result.is_err(), "{api} version {version}: {length} of {}", body.len());
        }
    });
}

#[test]
fn a_hostile_length_anywhere_allocates_within_the_budget() {
    // As i16, i32 and variable-length: largest, smallest, null, a million, a thousand.
    let lengths: [&[u8]; 8] = [
        &[0x7f, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0x0f, 0x42, 0x40],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xc1, 0x84, 0x3d],
        &[0xe9, 0x07],
    ];
    for_valid_bodies(|api, version, decode, body| {
        for position in 0..body.len().min(300) {
            for length in lengths {
                let mut damaged = body.to_vec();
                let end = damaged.len().min(position + length.len());
                damaged[position..end].copy_from_slice(&length[..end - position]);
                assert_within_budget(api, version, decode, &damaged);
            }
        }
    });
}

#[test]
fn a_million_tiny_elements_do_not_exceed_the_budget() {
    // DeleteTopics 4: a compact array of 1,000,000 empty names, one byte on the wire and a whole
    // string in memory each; then the timeout and the tags.
    let mut body = vec![0xc1, 0x84, 0x3d];
    body.resize(body.len() + 1_000_000, 1);
    body.extend([0, 0, 0, 0, 0]);
    let result = decode_request(ApiKey::DeleteTopics, 4, &body);
    let error = result.expect_err("24 MB of strings for 1 MB of input");
    assert_eq!(
        (error.api, error.version, error.field, error.reason),
        (ApiKey::DeleteTopics, 4, "topic_names", DecodeReason::AllocationBudget)
    );
    assert_within_budget(ApiKey::DeleteTopics, 4, request, &body);
}

#[test]
fn more_elements_than_bytes_are_refused_before_the_first_is_read() {
    let body = [0, 0, 0, 9, 0, 1, b't', 0, 1, b'u', 0, 0, 0, 0];
    let error = decode_request(ApiKey::DeleteTopics, 1, &body).expect_err("9 names in 10 bytes");
    assert_eq!(error.reason, DecodeReason::TooManyElements { count: 9, limit: 5 });
    assert_eq!(error.field, "topic_names");
}

#[test]
fn bytes_after_the_last_field_are_ignored() {
    // org.apache.kafka.common.requests.RequestContext does not look behind the message either.
    for_valid_bodies(|api, version, decode, body| {
        let longer = [body, &[0xff; 3]].concat();
        assert_eq!(decode(api, version, &longer), Ok(()), "{api} version {version}");
    });
}

#[test]
fn a_decoder_refuses_versions_it_does_not_have() {
    for api in ApiKey::ALL {
        for version in [i16::MIN, -1, api.shown().min - 1, api.shown().max + 1, i16::MAX] {
            let error = decode_request(*api, version, &[0; 100]).expect_err("no such version");
            assert_eq!(error.reason, DecodeReason::Version, "{api} version {version}");
        }
    }
}

#[test]
fn a_damaged_header_is_an_error() {
    for length in 0..RequestPrefix::SIZE {
        assert!(RequestPrefix::decode(&[0; RequestPrefix::SIZE][..length]).is_err());
    }
    // Fetch 12 with correlation id 1; then the client id and the tags.
    let prefix = [0, 1, 0, 12, 0, 0, 0, 1];
    let rests: [(&[u8], DecodeReason); 5] = [
        (&[0], DecodeReason::Truncated { needed: 2, remaining: 1 }),
        (&[0, 5, b'a'], DecodeReason::Truncated { needed: 5, remaining: 1 }),
        (&[0xff, 0xfe, 0], DecodeReason::NegativeLength { length: -2 }),
        (&[0, 1, 0xc3, 0], DecodeReason::Utf8),
        (&[0xff, 0xff, 1, 0, 9, 0], DecodeReason::Truncated { needed: 9, remaining: 1 }),
    ];
    for (rest, reason) in rests {
        let payload = [&prefix, rest].concat();
        let prefix = RequestPrefix::decode(&payload).unwrap();
        let error = RequestHeader::decode(&payload, ApiKey::Fetch, prefix).unwrap_err();
        assert_eq!(error.reason, reason, "{rest:02x?}");
    }
}
