//! DeleteTopics (key 20), versions 1-6.
//!
//! - By name, or by id (v6+). Unknown names UNKNOWN_TOPIC_OR_PARTITION, unknown ids
//!   UNKNOWN_TOPIC_ID; naming both or neither INVALID_REQUEST.
//! - The answer comes when the topic's data is out of service and its files are going.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chronik_common::{ErrorCode, TopicId};
use chronik_protocol::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};
use chronik_protocol::{OutputBuffer, Reader};

use super::{CloseReason, RequestId, answer_later, error};
use crate::net::connection::Connection;
use crate::node::Node;
use crate::shard::Shard;

/// Longest wait for a deletion.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// One topic to delete, as it was asked for.
struct Asked {
    name: Option<String>,
    id: TopicId,
}

/// Deletes topics.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = DeleteTopicsRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let by_name = request
        .topic_names
        .iter()
        .map(|name| Asked { name: Some(name.to_string()), id: TopicId::ZERO });
    let by_either = request.topics.iter().map(|topic| Asked {
        name: topic.name.as_ref().map(ToString::to_string),
        id: topic.topic_id,
    });
    let asked: Vec<Asked> = by_name.chain(by_either).collect();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let node = Arc::clone(&shard.node);
    answer_later(shard, connection, async move {
        let mut responses = Vec::with_capacity(asked.len());
        for topic in asked {
            responses.push(delete(&node, topic, timeout.min(WAIT_MAX)).await);
        }
        let response = DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() };
        let mut out = OutputBuffer::new();
        id.encode(&mut out, |out| response.encode(out, id.version))?;
        Ok(out)
    });
    Ok(())
}

async fn delete(node: &Node, asked: Asked, timeout: Duration) -> DeletableTopicResult<'static> {
    let image = node.metadata.image();
    let found = match (&asked.name, asked.id.is_zero()) {
        (Some(name), true) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        (None, false) => image.topic_by_id(asked.id).ok_or(ErrorCode::UnknownTopicId),
        (Some(_), false) | (None, true) => Err(ErrorCode::InvalidRequest),
    };
    let outcome = match found {
        Err(code) => Err(code),
        Ok(topic) => match tokio::time::timeout(timeout, node.delete_topic(topic.id)).await {
            Ok(Ok(())) => Ok(topic),
            Ok(Err(failure)) => Err(error::of_propose(failure)),
            Err(_) => Err(ErrorCode::RequestTimedOut),
        },
    };
    match outcome {
        Ok(topic) => DeletableTopicResult {
            name: Some(Cow::Owned(topic.name.to_string())),
            topic_id: topic.id,
            ..DeletableTopicResult::default()
        },
        Err(code) => DeletableTopicResult {
            name: asked.name.map(Cow::Owned),
            topic_id: asked.id,
            error_code: code.code(),
            error_message: Some(Cow::Borrowed(code.name())),
        },
    }
}
