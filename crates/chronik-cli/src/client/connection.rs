//! One connection to one broker: dial, agree on versions, ask and wait for the answer.
//!
//! One request is under way at a time. After an error of the connection (see
//! [`ClientError::breaks_connection`]) it must be dropped: the answer may still come.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use chronik_common::ErrorCode;
use chronik_config::Endpoint;
use chronik_protocol::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use chronik_protocol::{
    ApiKey, DecodeError, FRAME_PREFIX_BYTES, FrameSplit, OutputBuffer, Reader, Request,
    RequestHeader, VersionRange, decode_response_header, encode_request_frame, split_frame,
};

use super::error::{ClientError, KafkaCode};

/// What this program calls itself in requests.
const CLIENT_ID: &str = "chronik-cli";

/// Largest answer that is read, in bytes; a fetch asks for less.
const RESPONSE_BYTES_MAX: usize = 128 << 20;

/// Bytes of an answer that are received before room is made for more.
const READ_BYTES: usize = 1 << 20;

/// The end of a step's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// Time left; `None` once it is over.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// An open connection and the versions its other end speaks.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    address: String,
    versions: BTreeMap<i16, VersionRange>,
    next_correlation_id: i32,
}

impl Connection {
    /// Dials every address behind the name until one accepts.
    pub(crate) fn dial(endpoint: &Endpoint, deadline: Deadline) -> io::Result<TcpStream> {
        let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (endpoint.host.as_str(), endpoint.port).to_socket_addrs()? {
            let Some(left) = deadline.remaining() else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// Asks the other end which versions it speaks.
    pub(crate) fn open(
        stream: TcpStream,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<Self, ClientError> {
        let versions = BTreeMap::new();
        let mut connection =
            Self { stream, address: endpoint.to_string(), versions, next_correlation_id: 0 };
        let newest = ApiKey::ApiVersions.served().max;
        let mut answer = connection.ask_versions(newest, deadline)?;
        if KafkaCode(answer.error_code).is(ErrorCode::UnsupportedVersion) {
            // KIP-511: the refusal lists what the broker has; brokers before it list nothing and
            // have version 0.
            let own = |version: &&chronik_protocol::api_versions::ApiVersion| {
                version.api_key == ApiKey::ApiVersions.number()
            };
            let theirs = answer.api_keys.iter().find(own).map_or(0, |it| it.max_version);
            answer = connection.ask_versions(theirs.min(newest), deadline)?;
        }
        KafkaCode::check(answer.error_code).map_err(|code| ClientError::Refused {
            action: format!("ask {endpoint} for its versions"),
            code,
            message: None,
        })?;
        let range = |it: &chronik_protocol::api_versions::ApiVersion| {
            (it.api_key, VersionRange { min: it.min_version, max: it.max_version })
        };
        connection.versions = answer.api_keys.iter().map(range).collect();
        Ok(connection)
    }

    fn ask_versions(
        &mut self,
        version: i16,
        deadline: Deadline,
    ) -> Result<ApiVersionsResponse<'static>, ClientError> {
        let request = Request::ApiVersions(ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        });
        self.exchange(&request, version, deadline, |reader, version| {
            // The refusal of an unknown version has the form of version 0.
            let code = reader.rest().first_chunk().map(|bytes| i16::from_be_bytes(*bytes));
            let is_refused = code == Some(ErrorCode::UnsupportedVersion.code());
            let answer = ApiVersionsResponse::decode(reader, if is_refused { 0 } else { version })?;
            Ok(ApiVersionsResponse {
                error_code: answer.error_code,
                api_keys: answer.api_keys,
                ..ApiVersionsResponse::default()
            })
        })
    }

    /// The address that was dialled.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The highest version of `api` that both sides speak and that lies in `wanted`.
    pub(crate) fn version_of(&self, api: ApiKey, wanted: VersionRange) -> Result<i16, ClientError> {
        let ours = api.served();
        let wanted = VersionRange { min: ours.min.max(wanted.min), max: ours.max.min(wanted.max) };
        let theirs = self.versions.get(&api.number()).copied();
        theirs
            .map(|theirs| wanted.max.min(theirs.max))
            .filter(|version| {
                wanted.contains(*version) && theirs.is_some_and(|it| it.contains(*version))
            })
            .ok_or_else(|| ClientError::Unsupported {
                address: self.address.clone(),
                api,
                wanted,
                theirs,
            })
    }

    /// Sends `request` in `version` and decodes the answer.
    pub(crate) fn exchange<T>(
        &mut self,
        request: &Request<'_>,
        version: i16,
        deadline: Deadline,
        decode: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, DecodeError>,
    ) -> Result<T, ClientError> {
        let api = request.api();
        let correlation_id = self.send(request, version, deadline)?;
        let payload = self.receive(deadline).map_err(|error| self.broken(api, deadline, error))?;
        let malformed = |reason| ClientError::Malformed { address: self.address.clone(), reason };
        let (found, body) = decode_response_header(&payload, api, version).map_err(malformed)?;
        if found != correlation_id {
            let reason = format!("answer {found} came for question {correlation_id}");
            let error = io::Error::new(io::ErrorKind::InvalidData, reason);
            return Err(self.broken(api, deadline, error));
        }
        decode(&mut Reader::new(body), version).map_err(malformed)
    }

    /// Sends `request` in `version` without waiting; returns its number.
    pub(crate) fn send(
        &mut self,
        request: &Request<'_>,
        version: i16,
        deadline: Deadline,
    ) -> Result<i32, ClientError> {
        let api = request.api();
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let header = RequestHeader { api, version, correlation_id, client_id: Some(CLIENT_ID) };
        let mut frame = OutputBuffer::new();
        encode_request_frame(&mut frame, header, |out| request.encode(out, version))?;
        self.transmit(&frame.to_vec(), deadline)
            .map_err(|error| self.broken(api, deadline, error))?;
        Ok(correlation_id)
    }

    fn transmit(&mut self, frame: &[u8], deadline: Deadline) -> io::Result<()> {
        let left = deadline.remaining().ok_or(io::ErrorKind::TimedOut)?;
        self.stream.set_write_timeout(Some(left))?;
        self.stream.write_all(frame)
    }

    fn receive(&mut self, deadline: Deadline) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        loop {
            let split = split_frame(&received, RESPONSE_BYTES_MAX)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match split {
                FrameSplit::Frame { .. } => {
                    received.drain(..FRAME_PREFIX_BYTES);
                    return Ok(received);
                }
                FrameSplit::NeedMore { total } => {
                    let left = deadline.remaining().ok_or(io::ErrorKind::TimedOut)?;
                    self.stream.set_read_timeout(Some(left))?;
                    let start = received.len();
                    received.resize(total.min(start + READ_BYTES), 0);
                    let count = self.stream.read(&mut received[start..])?;
                    received.truncate(start + count);
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    fn broken(&self, api: ApiKey, deadline: Deadline, error: io::Error) -> ClientError {
        let address = self.address.clone();
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                ClientError::TimedOut { address, api, timeout: deadline.timeout }
            }
            _ => ClientError::ConnectionLost { address, reason: error },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use chronik_protocol::api_versions::ApiVersion;
    use chronik_protocol::{RequestPrefix, encode_response_frame};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A broker that knows ApiVersions up to `newest` and refuses others with an answer of
    /// version 0, which lists what it has only if `lists_own`.
    fn old_broker(newest: i16, lists_own: bool) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint =
            Endpoint { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            loop {
                let mut length = [0; FRAME_PREFIX_BYTES];
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut payload = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut payload).unwrap();
                let prefix = RequestPrefix::decode(&payload).unwrap();
                let is_known = prefix.api_version <= newest;
                let own = ApiVersion { api_key: 18, min_version: 0, max_version: newest };
                let metadata = ApiVersion { api_key: 3, min_version: 0, max_version: 4 };
                let response = ApiVersionsResponse {
                    error_code: if is_known { 0 } else { ErrorCode::UnsupportedVersion.code() },
                    api_keys: if is_known || lists_own { vec![own, metadata] } else { vec![] },
                    ..ApiVersionsResponse::default()
                };
                let version = if is_known { prefix.api_version } else { 0 };
                let mut out = OutputBuffer::new();
                let id = prefix.correlation_id;
                encode_response_frame(&mut out, ApiKey::ApiVersions, version, id, |out| {
                    response.encode(out, version)
                })
                .unwrap();
                stream.write_all(&out.to_vec()).unwrap();
            }
        });
        endpoint
    }

    fn open(endpoint: &Endpoint) -> Connection {
        let deadline = Deadline::after(PATIENCE);
        let stream = Connection::dial(endpoint, deadline).unwrap();
        Connection::open(stream, endpoint, deadline).unwrap()
    }

    /// KIP-511.
    #[test]
    fn versions_are_agreed_on_with_brokers_that_do_not_know_our_newest_question() {
        let any = VersionRange { min: 0, max: i16::MAX };
        for (newest, lists_own) in [(4, true), (3, true), (2, true), (0, false)] {
            let connection = open(&old_broker(newest, lists_own));
            let version = connection.version_of(ApiKey::Metadata, any).unwrap();
            assert_eq!(version, 4, "the broker's newest, newest question {newest}");
        }
    }

    #[test]
    fn an_api_without_a_shared_version_is_refused_before_it_is_asked() {
        let connection = open(&old_broker(4, true));
        let newer = VersionRange { min: 5, max: i16::MAX };
        for (api, wanted) in
            [(ApiKey::Metadata, newer), (ApiKey::Produce, VersionRange { min: 0, max: 13 })]
        {
            let error = connection.version_of(api, wanted).unwrap_err();
            assert_eq!(error.code(), "E105", "{error}");
        }
    }

    #[test]
    fn an_answer_that_never_comes_ends_with_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port };
        let deadline = Deadline::after(Duration::from_millis(50));
        let stream = Connection::dial(&endpoint, deadline).unwrap();
        let error = Connection::open(stream, &endpoint, deadline).unwrap_err();
        assert_eq!(error.code(), "E104", "{error}");
    }
}
