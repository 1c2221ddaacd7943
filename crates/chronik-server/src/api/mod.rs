//! Requests to handlers: one file per Kafka API.
//!
//! A handler decodes, delegates and encodes; what computes belongs to partition, cluster or
//! record. Authorisation is not configured in this release: everybody may do everything, and the
//! authorized-operations fields say so.

pub(crate) mod api_versions;
pub(crate) mod create_topics;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod error;
pub(crate) mod fetch;
pub(crate) mod fetch_session;
pub(crate) mod init_producer_id;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod pending_produce;
pub(crate) mod produce;

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use bytes::BytesMut;
use chronik_common::MonotonicMs;
use chronik_protocol::{
    ApiKey, DecodeError, EncodeError, FrameError, OutputBuffer, RequestHeader, RequestPrefix,
    ShortHeader, encode_response_frame,
};

use crate::net::connection::{Connection, Slot};
use crate::shard::Shard;

/// Why a connection is ended.
#[derive(Debug)]
pub(crate) enum CloseReason {
    /// A frame's length is negative or above the limit.
    Frame(FrameError),
    /// A frame without even the version-independent header.
    ShortHeader(ShortHeader),
    /// An API or version we do not offer: nobody can guess its layout.
    Unsupported { api_key: i16, version: i16, supported: String },
    /// A malformed request.
    Decode(DecodeError),
    /// An answer that cannot be encoded: our fault.
    Encode(EncodeError),
    /// A produce request with acks=0 failed; closing is the only answer it can get.
    AcksZeroFailed,
    /// A request took too long to arrive.
    SlowSender,
    /// Nothing happened for a long time.
    Idle,
}

impl CloseReason {
    /// A short name for the metric.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Frame(_) => "frame",
            Self::ShortHeader(_) => "header",
            Self::Unsupported { .. } => "unsupported",
            Self::Decode(_) => "malformed",
            Self::Encode(_) => "encode",
            Self::AcksZeroFailed => "acks_zero",
            Self::SlowSender => "slow",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::ShortHeader(error) => error.fmt(f),
            Self::Unsupported { api_key, version, supported } => {
                write!(f, "API {api_key} version {version} is not offered ({supported})")
            }
            Self::Decode(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::AcksZeroFailed => f.write_str("a produce request with acks=0 failed"),
            Self::SlowSender => f.write_str("a request did not arrive in time"),
            Self::Idle => f.write_str("idle"),
        }
    }
}

/// The bit field of authorized operations when everything is allowed
/// (`org.apache.kafka.common.acl.AclOperation`), for a topic: read, write, create, delete,
/// alter, describe, describe configs, alter configs.
pub(crate) const TOPIC_OPERATIONS: i32 = operations(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The same for the cluster: create, alter, describe, cluster action, describe configs, alter
/// configs, idempotent write.
pub(crate) const CLUSTER_OPERATIONS: i32 = operations(&[5, 7, 8, 9, 10, 11, 12]);

const fn operations(codes: &[u32]) -> i32 {
    let mut bits = 0;
    let mut index = 0;
    while index < codes.len() {
        bits |= 1 << codes[index];
        index += 1;
    }
    bits
}

/// Number and version of a request, and where its answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

impl RequestId {
    /// Puts the answer's frame.
    pub(crate) fn encode(
        self,
        out: &mut OutputBuffer,
        body: impl FnOnce(&mut OutputBuffer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        encode_response_frame(out, self.api, self.version, self.correlation_id, body)
    }
}

/// Handles one request frame in a turn that began at `now`.
///
/// # Errors
/// The connection must be ended; nothing else is harmed.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    now: MonotonicMs,
    frame: BytesMut,
) -> Result<(), CloseReason> {
    let prefix = RequestPrefix::decode(&frame).map_err(CloseReason::ShortHeader)?;
    let RequestPrefix { api_key, api_version: version, correlation_id } = prefix;
    let Some(api) = ApiKey::from_number(api_key) else {
        return Err(unsupported(prefix, "unknown key".to_owned()));
    };
    if !api.shown().contains(version) {
        if api == ApiKey::ApiVersions {
            return api_versions::answer_unsupported(connection, correlation_id);
        }
        let shown = api.shown();
        return Err(unsupported(prefix, format!("{api} {}-{}", shown.min, shown.max)));
    }
    shard.node.request_counters.count(shard.id, api);
    let id = RequestId { api, version, correlation_id };
    match api {
        ApiKey::Produce => return produce::handle(shard, connection, now, prefix, frame),
        ApiKey::Fetch => return fetch::handle(shard, connection, prefix, &frame),
        _ => {}
    }
    let frame = frame.freeze();
    let (_, body) = RequestHeader::decode(&frame, api, prefix).map_err(CloseReason::Decode)?;
    match api {
        ApiKey::Produce | ApiKey::Fetch => unreachable!("handled above"),
        ApiKey::ListOffsets => list_offsets::handle(shard, connection, id, body),
        ApiKey::Metadata => metadata::handle(shard, connection, id, body),
        ApiKey::ApiVersions => api_versions::handle(connection, id, body),
        ApiKey::CreateTopics => create_topics::handle(shard, connection, id, body),
        ApiKey::DeleteTopics => delete_topics::handle(shard, connection, id, body),
        ApiKey::InitProducerId => init_producer_id::handle(shard, connection, id, body),
        ApiKey::DescribeConfigs => describe_configs::handle(shard, connection, id, body),
        ApiKey::DescribeCluster => describe_cluster::handle(shard, connection, id, body),
    }
}

fn unsupported(prefix: RequestPrefix, supported: String) -> CloseReason {
    CloseReason::Unsupported { api_key: prefix.api_key, version: prefix.api_version, supported }
}

/// Answers with what a task on this shard works out; later answers of the connection wait.
pub(crate) fn answer_later<F>(shard: &Rc<Shard>, connection: &Rc<Connection>, work: F)
where
    F: Future<Output = Result<OutputBuffer, EncodeError>> + 'static,
{
    let request = connection.push_slot(Slot::Working);
    let (shard, connection) = (Rc::clone(shard), Rc::clone(connection));
    tokio::task::spawn_local(async move {
        match work.await {
            Ok(encoded) => connection.fill(&shard, request, encoded),
            Err(error) => connection.end(&shard, &CloseReason::Encode(error)),
        }
    });
}
