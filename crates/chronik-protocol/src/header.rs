//! Request and response headers, and whole frames around a body.
//!
//! ```text
//!  request   api_key i16 | api_version i16 | correlation_id i32 | client_id string | tags (v2)
//!            `------------ RequestPrefix, same in all versions -'
//!  response  correlation_id i32 | tags (v1)
//! ```
//!
//! The prefix is read first: it is enough to tell a request nobody here can decode, and to answer
//! an ApiVersions request of an unknown version. The client id is never compact, not even in the
//! flexible header version 2 (KIP-482), and comes before the tags.

use crate::api_key::ApiKey;
#[cfg(feature = "client")]
use crate::error::WriteError;
use crate::error::{DecodeError, EncodeError};
use crate::output::OutputBuffer;
use crate::primitive::Reader;

/// The part of a request header that every API and version shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestPrefix {
    /// Number of the API; may be unknown here.
    pub api_key: i16,
    /// Version of the API; may be out of range.
    pub api_version: i16,
    /// Number the response must repeat; any value.
    pub correlation_id: i32,
}

/// A payload shorter than a request prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of {length} bytes has no request header")]
pub struct ShortHeader {
    /// Bytes in the payload.
    pub length: usize,
}

impl RequestPrefix {
    /// Bytes of the prefix.
    pub const SIZE: usize = 8;

    /// Reads the prefix at the start of a frame's payload.
    ///
    /// # Errors
    ///
    /// If the payload has fewer than [`SIZE`](Self::SIZE) bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, ShortHeader> {
        let Some(prefix) = payload.first_chunk::<{ Self::SIZE }>() else {
            return Err(ShortHeader { length: payload.len() });
        };
        let [k0, k1, v0, v1, correlation_id @ ..] = *prefix;
        Ok(Self {
            api_key: i16::from_be_bytes([k0, k1]),
            api_version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes(correlation_id),
        })
    }
}

/// The header of a request whose API and version are known to be supported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader<'a> {
    /// The API.
    pub api: ApiKey,
    /// Version of the request, within [`ApiKey::shown`].
    pub version: i16,
    /// Number the response must repeat.
    pub correlation_id: i32,
    /// What the client calls itself. Null and empty are both legal.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a request from a frame's payload and returns it with the body's bytes.
    /// `api` is the API that the caller looked up for `prefix.api_key`, after checking that it
    /// shows `prefix.api_version`.
    ///
    /// # Errors
    ///
    /// If client id or tagged fields are malformed.
    pub fn decode(
        payload: &'a [u8],
        api: ApiKey,
        prefix: RequestPrefix,
    ) -> Result<(Self, &'a [u8]), DecodeError> {
        assert_eq!(api.number(), prefix.api_key, "the API was looked up for this prefix");
        let RequestPrefix { api_version: version, correlation_id, .. } = prefix;
        let mut reader = Reader::new(payload.get(RequestPrefix::SIZE..).unwrap_or_default());
        let flexible = api.request_header_version(version) == 2;
        let client_id = reader
            .optional_string("header.client_id", false, true)
            .and_then(|client_id| {
                if flexible {
                    reader.skip_tagged_fields("header")?;
                }
                Ok(client_id)
            })
            .map_err(|error| error.in_message(api, version))?;
        Ok((Self { api, version, correlation_id, client_id }, reader.rest()))
    }
}

/// Puts a whole response frame: length, header, and what `body` writes. If `body` fails, the
/// queue is as it was before.
///
/// # Errors
///
/// Those of `body`; and if the frame is longer than 2 GiB.
pub fn encode_response_frame(
    out: &mut OutputBuffer,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: impl FnOnce(&mut OutputBuffer) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let mark = out.begin_frame();
    out.put_i32(correlation_id);
    if api.response_header_version(version) == 1 {
        out.put_uvarint(0);
    }
    if let Err(error) = body(out) {
        out.abort_frame(mark);
        return Err(error);
    }
    out.end_frame(mark).map_err(|error| error.in_message(api, version))
}

/// Puts a whole request frame: length, header, and what `body` writes. If anything fails, the
/// queue is as it was before.
///
/// # Errors
///
/// Those of `body`; and if the client id or the frame is too long.
#[cfg(feature = "client")]
pub fn encode_request_frame(
    out: &mut OutputBuffer,
    header: RequestHeader<'_>,
    body: impl FnOnce(&mut OutputBuffer) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let RequestHeader { api, version, correlation_id, client_id } = header;
    let in_message = |error: WriteError| error.in_message(api, version);
    let mark = out.begin_frame();
    out.put_i16(api.number());
    out.put_i16(version);
    out.put_i32(correlation_id);
    let client_id = out.put_optional_string("header.client_id", client_id, false, true);
    let result = client_id.map_err(in_message).and_then(|()| {
        if api.request_header_version(version) == 2 {
            out.put_uvarint(0);
        }
        body(out)
    });
    if let Err(error) = result {
        out.abort_frame(mark);
        return Err(error);
    }
    out.end_frame(mark).map_err(in_message)
}

/// Reads the header of a response to a request of `api` and `version` from a frame's payload and
/// returns the correlation id with the body's bytes.
///
/// # Errors
///
/// If the payload is too short or the tagged fields are malformed.
#[cfg(feature = "client")]
pub fn decode_response_header(
    payload: &[u8],
    api: ApiKey,
    version: i16,
) -> Result<(i32, &[u8]), DecodeError> {
    let mut reader = Reader::new(payload);
    let correlation_id = reader
        .i32("header.correlation_id")
        .and_then(|correlation_id| {
            if api.response_header_version(version) == 1 {
                reader.skip_tagged_fields("header")?;
            }
            Ok(correlation_id)
        })
        .map_err(|error| error.in_message(api, version))?;
    Ok((correlation_id, reader.rest()))
}
