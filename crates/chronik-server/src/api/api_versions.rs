//! ApiVersions (key 18), versions 0-4.
//!
//! - The answer's header is always version 0, so that a client of any age can read it.
//! - An unsupported version is answered in the body of version 0 with UNSUPPORTED_VERSION and our
//!   range; the client retries (KIP-511).
//! - Client software name and version (v3+) must be letters, digits, dots and dashes, ending
//!   alphanumeric; else INVALID_REQUEST. They are kept for logs.
//! - Features: none are finalized in this release.

use std::rc::Rc;

use chronik_common::ErrorCode;
use chronik_protocol::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use chronik_protocol::{ApiKey, Reader};

use super::{CloseReason, RequestId};
use crate::net::connection::{ClientSoftware, Connection};

/// Version of the body that every client can read.
const FALLBACK_VERSION: i16 = 0;
/// First version with client software fields.
const SOFTWARE_VERSION: i16 = 3;

/// Says what this server speaks.
pub(crate) fn handle(
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = ApiVersionsRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let is_legal = id.version < SOFTWARE_VERSION
        || (is_legal_software(&request.client_software_name)
            && is_legal_software(&request.client_software_version));
    let response = if is_legal {
        *connection.software.borrow_mut() = ClientSoftware {
            name: request.client_software_name.into_owned(),
            version: request.client_software_version.into_owned(),
        };
        ranges(ErrorCode::None)
    } else {
        ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        }
    };
    connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)))
}

/// Answers a version we do not know; the connection stays open.
pub(crate) fn answer_unsupported(
    connection: &Rc<Connection>,
    correlation_id: i32,
) -> Result<(), CloseReason> {
    let id = RequestId { api: ApiKey::ApiVersions, version: FALLBACK_VERSION, correlation_id };
    let response = ranges(ErrorCode::UnsupportedVersion);
    connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)))
}

fn ranges(error: ErrorCode) -> ApiVersionsResponse<'static> {
    let keys = ApiKey::ALL.iter().map(|api| ApiVersion {
        api_key: api.number(),
        min_version: api.shown().min,
        max_version: api.shown().max,
    });
    ApiVersionsResponse {
        error_code: error.code(),
        api_keys: keys.collect(),
        ..ApiVersionsResponse::default()
    }
}

fn is_legal_software(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `org.apache.kafka.common.requests.ApiVersionsRequest#isValid`.
    #[test]
    fn software_names_are_letters_digits_dots_and_dashes_with_alphanumeric_ends() {
        for legal in ["librdkafka", "2.15.0", "a", "apache-kafka-java"] {
            assert!(is_legal_software(legal), "{legal}");
        }
        for illegal in ["", "-a", "a-", ".1", "a b", "a_b", "a\n"] {
            assert!(!is_legal_software(illegal), "{illegal:?}");
        }
    }
}
