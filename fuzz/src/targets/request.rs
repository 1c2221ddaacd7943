//! A request frame's payload: header and body of every API and version.
//!
//! Input: the payload, as a client sends it behind the frame length, so captures can be dropped
//! into the corpus as they are. Checked: allocation; and that what was decoded encodes and decodes
//! to the same again.

use chronik_protocol::sample::Sampler;
use chronik_protocol::{
    ApiKey, FRAME_PREFIX_BYTES, OutputBuffer, Request, RequestHeader, RequestPrefix,
    decode_request, encode_request_frame,
};

use crate::allocation;
use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "request", run, seeds };

fn run(input: &[u8]) {
    let Ok(prefix) = RequestPrefix::decode(input) else { return };
    let Some(api) = ApiKey::from_number(prefix.api_key) else { return };
    if !api.shown().contains(prefix.api_version) {
        return;
    }
    let decoded = allocation::assert_parsing(input.len(), || {
        let (header, body) = RequestHeader::decode(input, api, prefix).ok()?;
        Some((header, decode_request(api, header.version, body).ok()?))
    });
    let Some((header, request)) = decoded else { return };
    let payload = encoded(header, &request);
    let (header_again, body) = RequestHeader::decode(&payload, api, prefix)
        .expect("a header that was decoded and encoded decodes");
    assert_eq!(header_again, header);
    let request_again = decode_request(api, header.version, body)
        .expect("a request that was decoded and encoded decodes");
    // Compared as bytes: values that are not equal to themselves (NaN) are legal.
    assert_eq!(encoded(header, &request_again), payload);
}

fn encoded(header: RequestHeader<'_>, request: &Request<'_>) -> Vec<u8> {
    let mut out = OutputBuffer::new();
    encode_request_frame(&mut out, header, |out| request.encode(out, header.version))
        .expect("what was decoded in a version can be encoded in it");
    out.to_vec().split_off(FRAME_PREFIX_BYTES)
}

/// The lowest, the first flexible and the highest version of each API.
fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for &api in ApiKey::ALL {
        let shown = api.shown();
        let mut versions = vec![shown.min, api.first_flexible().unwrap_or(shown.min), shown.max];
        versions.dedup();
        for version in versions {
            let mut sampler = Sampler::new(u64::from(api.number().unsigned_abs()) << 16);
            let request = Request::sample(api, version, &mut sampler);
            let header =
                RequestHeader { api, version, correlation_id: 1, client_id: Some("client") };
            let bytes = encoded(header, &request);
            seeds.push(Seed::new(format!("{}-{version}", api.number()), bytes));
        }
    }
    seeds
}
