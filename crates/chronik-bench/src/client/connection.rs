//! One blocking connection: dial, agree on versions, ask and wait for the answer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use chronik_common::ErrorCode;
use chronik_protocol::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use chronik_protocol::{
    ApiKey, DecodeError, FRAME_PREFIX_BYTES, FrameSplit, OutputBuffer, Reader, Request,
    RequestHeader, VersionRange, decode_response_header, encode_request_frame, split_frame,
};

use super::error::ClientError;
use super::{CLIENT_ID, Endpoint, RESPONSE_BYTES_MAX};

/// Bytes of an answer that are received before room is made for more.
const READ_BYTES: usize = 1 << 20;

/// The versions that a broker speaks.
#[derive(Clone, Debug, Default)]
pub struct Versions(BTreeMap<i16, VersionRange>);

impl Versions {
    /// The highest version of `api` up to `newest` that both sides speak.
    #[must_use]
    pub fn choose(&self, api: ApiKey, newest: i16) -> Option<i16> {
        let ours = api.served();
        let theirs = self.0.get(&api.number())?;
        let version = ours.max.min(theirs.max).min(newest);
        (version >= ours.min && version >= theirs.min).then_some(version)
    }
}

/// An open connection and the versions its other end speaks.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    versions: Versions,
    timeout: Duration,
    next_correlation_id: i32,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to the first endpoint that answers. `timeout` bounds dialling and each answer.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if nobody listens, others if what listens is no broker.
    pub fn open(endpoints: &[Endpoint], timeout: Duration) -> Result<Self, ClientError> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address was given");
        for endpoint in endpoints {
            match endpoint.dial(timeout) {
                Ok(stream) => return Self::greet(stream, endpoint, timeout),
                Err(error) => last = error,
            }
        }
        let address: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        Err(ClientError::Unreachable { address: address.join(","), reason: last })
    }

    fn greet(
        stream: TcpStream,
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let mut connection = Self {
            stream,
            address: endpoint.to_string(),
            versions: Versions::default(),
            timeout,
            next_correlation_id: 0,
            received: Vec::new(),
        };
        let newest = ApiKey::ApiVersions.served().max;
        let (mut code, mut keys) = connection.ask_versions(newest)?;
        if code == ErrorCode::UnsupportedVersion.code() {
            // KIP-511: the refusal lists what the broker has; older brokers list nothing and have
            // version 0.
            let own = |key: &&ApiVersion| key.api_key == ApiKey::ApiVersions.number();
            let theirs = keys.iter().find(own).map_or(0, |key| key.max_version);
            (code, keys) = connection.ask_versions(theirs.clamp(0, newest))?;
        }
        refuse_unless_ok(code, || format!("tell its versions at {endpoint}"), None)?;
        let range = |key: &ApiVersion| {
            (key.api_key, VersionRange { min: key.min_version, max: key.max_version })
        };
        connection.versions = Versions(keys.iter().map(range).collect());
        Ok(connection)
    }

    fn ask_versions(&mut self, version: i16) -> Result<(i16, Vec<ApiVersion>), ClientError> {
        let request = Request::ApiVersions(ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        });
        self.exchange(&request, version, |reader, version| {
            // The refusal of an unknown version has the form of version 0.
            let code = reader.rest().first_chunk().map(|bytes| i16::from_be_bytes(*bytes));
            let is_refused = code == Some(ErrorCode::UnsupportedVersion.code());
            let answer = ApiVersionsResponse::decode(reader, if is_refused { 0 } else { version })?;
            Ok((answer.error_code, answer.api_keys))
        })
    }

    /// What the other end speaks.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The highest version of `api` that both sides speak.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] if there is none.
    pub fn version_of(&self, api: ApiKey) -> Result<i16, ClientError> {
        self.version_up_to(api, i16::MAX)
    }

    /// The highest version of `api` up to `newest` that both sides speak.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] if there is none.
    pub fn version_up_to(&self, api: ApiKey, newest: i16) -> Result<i16, ClientError> {
        let unsupported = || ClientError::Unsupported { address: self.address.clone(), api };
        self.versions.choose(api, newest).ok_or_else(unsupported)
    }

    /// Sends `request` in `version` and decodes the answer.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the answer does not come in time, [`ClientError::Malformed`] if
    /// it cannot be read.
    pub fn exchange<T>(
        &mut self,
        request: &Request<'_>,
        version: i16,
        decode: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, DecodeError>,
    ) -> Result<T, ClientError> {
        let api = request.api();
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let header = RequestHeader { api, version, correlation_id, client_id: Some(CLIENT_ID) };
        let mut frame = OutputBuffer::new();
        encode_request_frame(&mut frame, header, |out| request.encode(out, version))?;
        let deadline = Instant::now() + self.timeout;
        let lost =
            |address: &str, reason| ClientError::Lost { address: address.to_owned(), reason };
        self.transmit(&frame.to_vec()).map_err(|error| lost(&self.address, error))?;
        let payload_end = self.receive(deadline).map_err(|error| lost(&self.address, error))?;
        let malformed = |reason| ClientError::malformed(&self.address, reason);
        let payload = &self.received[FRAME_PREFIX_BYTES..payload_end];
        let (found, body) = decode_response_header(payload, api, version).map_err(malformed)?;
        if found != correlation_id {
            let reason = format!("answer {found} came for question {correlation_id}");
            return Err(ClientError::Malformed { address: self.address.clone(), reason });
        }
        decode(&mut Reader::new(body), version).map_err(malformed)
    }

    /// Sends `request` in `version` `count` times and hands over the socket: the answers are the
    /// caller's to read, at its own speed.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the requests cannot be sent.
    pub fn ask_and_leave(
        mut self,
        request: &Request<'_>,
        version: i16,
        count: u32,
    ) -> Result<TcpStream, ClientError> {
        let api = request.api();
        let mut frames = OutputBuffer::new();
        for index in 0..count {
            let correlation_id = self.next_correlation_id.wrapping_add(index as i32) & i32::MAX;
            let header = RequestHeader { api, version, correlation_id, client_id: Some(CLIENT_ID) };
            encode_request_frame(&mut frames, header, |out| request.encode(out, version))?;
        }
        let sent = self.transmit(&frames.to_vec());
        sent.map_err(|reason| ClientError::Lost { address: self.address, reason })?;
        Ok(self.stream)
    }

    /// Changes how long each further answer is waited for.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// True if the other end still answers.
    #[must_use]
    pub fn is_answered(&mut self) -> bool {
        self.ask_versions(0).is_ok()
    }

    fn transmit(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.timeout))?;
        self.stream.write_all(frame)
    }

    /// Receives one frame into `received` and returns where it ends.
    fn receive(&mut self, deadline: Instant) -> io::Result<usize> {
        self.received.clear();
        loop {
            let split = split_frame(&self.received, RESPONSE_BYTES_MAX)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let total = match split {
                FrameSplit::Frame { payload } => return Ok(FRAME_PREFIX_BYTES + payload),
                FrameSplit::NeedMore { total } => total,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let start = self.received.len();
            self.received.resize(total.min(start + READ_BYTES), 0);
            let count = match self.stream.read(&mut self.received[start..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                result => result?,
            };
            self.received.truncate(start + count);
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A refusal unless `code` means success.
pub(super) fn refuse_unless_ok(
    code: i16,
    action: impl FnOnce() -> String,
    message: Option<String>,
) -> Result<(), ClientError> {
    if code == ErrorCode::None.code() {
        return Ok(());
    }
    Err(ClientError::Refused { action: action(), code, message })
}
