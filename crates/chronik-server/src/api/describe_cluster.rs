//! DescribeCluster (key 60), versions 0-2.
//!
//! - Endpoint type 1 (brokers) only; 2 (controllers) is MISMATCHED_ENDPOINT_TYPE, as on Kafka's
//!   broker listener; anything else UNSUPPORTED_ENDPOINT_TYPE.
//! - Authorized operations are filled when asked for.
//! - No broker of a single server is ever fenced.

use std::borrow::Cow;
use std::rc::Rc;

use chronik_common::ErrorCode;
use chronik_protocol::Reader;
use chronik_protocol::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

use super::{CLUSTER_OPERATIONS, CloseReason, RequestId};
use crate::net::connection::Connection;
use crate::shard::Shard;

/// Endpoint type of brokers.
const BROKERS: i8 = 1;
/// Endpoint type of controllers, which have a listener of their own in Kafka.
const CONTROLLERS: i8 = 2;
const OPERATIONS_OMITTED: i32 = i32::MIN;

/// Says which brokers form the cluster.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = DescribeClusterRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let image = shard.node.metadata.image();
    let response = if request.endpoint_type == BROKERS {
        let brokers = image.nodes.values().map(|broker| DescribeClusterBroker {
            broker_id: broker.id.0,
            host: Cow::Borrowed(broker.host.as_str()),
            port: i32::from(broker.port),
            rack: broker.rack.as_deref().map(Cow::Borrowed),
            is_fenced: false,
        });
        let wants_operations = request.include_cluster_authorized_operations;
        DescribeClusterResponse {
            endpoint_type: BROKERS,
            cluster_id: Cow::Borrowed(shard.node.cluster_id()),
            controller_id: shard.node.id().0,
            brokers: brokers.collect(),
            cluster_authorized_operations: if wants_operations {
                CLUSTER_OPERATIONS
            } else {
                OPERATIONS_OMITTED
            },
            ..DescribeClusterResponse::default()
        }
    } else {
        let refusal = match request.endpoint_type {
            CONTROLLERS => ErrorCode::MismatchedEndpointType,
            _ => ErrorCode::UnsupportedEndpointType,
        };
        DescribeClusterResponse {
            error_code: refusal.code(),
            error_message: Some(Cow::Borrowed("this listener describes brokers only")),
            endpoint_type: BROKERS,
            ..DescribeClusterResponse::default()
        }
    };
    connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)))
}
