//! Producer ids for InitProducerId: handed out from blocks that the metadata log allocates, so
//! that no two producers of the cluster ever share one, whatever crashes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Mutex;

use chronik_cluster::{AllocateProducerIds, Applied, Change};
use chronik_common::NodeId;

use crate::metadata::{Metadata, ProposeError};

/// Ids per block.
const BLOCK_SIZE: i64 = 1_000;

/// The ids this node may still hand out.
#[derive(Default)]
pub(crate) struct ProducerIds {
    blocks: Mutex<VecDeque<Range<i64>>>,
}

impl ProducerIds {
    /// An id from a block we hold.
    pub(crate) fn take_ready(&self) -> Option<i64> {
        let mut blocks = self.blocks.lock().expect("no holder of the blocks panics");
        loop {
            if let Some(id) = blocks.front_mut()?.next() {
                return Some(id);
            }
            blocks.pop_front();
        }
    }

    /// An id, from a new block if need be.
    ///
    /// # Errors
    /// The metadata log did not allocate a block. Cancellation loses at most one block of ids.
    pub(crate) async fn take(
        &self,
        metadata: &Metadata,
        node: NodeId,
    ) -> Result<i64, ProposeError> {
        loop {
            if let Some(id) = self.take_ready() {
                return Ok(id);
            }
            let allocate = AllocateProducerIds { node_id: node.0, count: BLOCK_SIZE };
            let outcome = metadata.propose(Change::AllocateProducerIds(allocate).into()).await;
            match outcome.unwrap_or(Err(ProposeError::Unavailable))? {
                Applied::ProducerIdsAllocated { first, count } => {
                    let mut blocks = self.blocks.lock().expect("no holder of the blocks panics");
                    blocks.push_back(first..first + count);
                }
                other => unreachable!("an allocation is answered with ids, not {other:?}"),
            }
        }
    }
}
