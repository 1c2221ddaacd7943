//! InitProducerId (key 22), versions 0-5, for idempotent producers.
//!
//! - Null transactional id: a fresh producer id with epoch 0, every time. Version 3+ fields
//!   (current id and epoch) must both be set or both be -1, else INVALID_REQUEST; without a
//!   transactional id Kafka hands out a fresh id all the same.
//! - A transactional id is INVALID_REQUEST until transactions exist.
//! - Ids come in blocks from the metadata log; one block serves many producers.

use std::rc::Rc;
use std::sync::Arc;

use chronik_common::ErrorCode;
use chronik_protocol::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use chronik_protocol::{OutputBuffer, Reader};

use super::{CloseReason, RequestId, answer_later, error};
use crate::net::connection::Connection;
use crate::shard::Shard;

/// Gives a producer its id.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    id: RequestId,
    body: &[u8],
) -> Result<(), CloseReason> {
    let request = InitProducerIdRequest::decode(&mut Reader::new(body), id.version)
        .map_err(CloseReason::Decode)?;
    let is_half_set = (request.producer_id == -1) != (request.producer_epoch == -1);
    if request.transactional_id.is_some() || is_half_set {
        let response = refused(ErrorCode::InvalidRequest);
        return connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)));
    }
    if let Some(producer_id) = shard.node.producer_ids.take_ready() {
        let response = granted(producer_id);
        return connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)));
    }
    let node = Arc::clone(&shard.node);
    answer_later(shard, connection, async move {
        let response = match node.producer_ids.take(&node.metadata, node.id()).await {
            Ok(producer_id) => granted(producer_id),
            Err(failure) => refused(error::of_propose(failure)),
        };
        let mut out = OutputBuffer::new();
        id.encode(&mut out, |out| response.encode(out, id.version))?;
        Ok(out)
    });
    Ok(())
}

fn granted(producer_id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    }
}
