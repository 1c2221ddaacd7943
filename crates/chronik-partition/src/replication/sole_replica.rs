//! One replica: committed means durable here.

use chronik_common::Offset;

use super::Replication;

/// The flavour of a partition with one replica.
#[derive(Debug)]
pub(crate) struct SoleReplica {
    high_watermark: Offset,
}

impl SoleReplica {
    /// A replica whose log is durable up to `flushed`.
    pub(crate) fn new(flushed: Offset) -> Self {
        Self { high_watermark: flushed }
    }
}

impl Replication for SoleReplica {
    fn on_local_flush(&mut self, flushed: Offset) -> Offset {
        assert!(
            flushed >= self.high_watermark,
            "flushed {flushed:?} must not fall behind high watermark {:?}",
            self.high_watermark
        );
        self.high_watermark = flushed;
        flushed
    }

    fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    fn in_sync_replicas(&self) -> usize {
        1
    }

    fn replication_factor(&self) -> usize {
        1
    }
}
