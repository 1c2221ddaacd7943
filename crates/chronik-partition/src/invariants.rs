//! What must hold of one partition's numbers, whoever changes them.

use chronik_common::{Lsn, Offset};

/// The numbers of a partition at one moment, under its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watermarks {
    pub(crate) log_start_offset: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) flushed_offset: Offset,
    pub(crate) log_end_offset: Offset,
}

impl Watermarks {
    /// The order that consumers and producers rely on.
    pub(crate) fn check(&self) {
        assert!(
            self.log_start_offset <= self.high_watermark,
            "a consumer would be sent behind what it may see: {self:?}"
        );
        assert!(
            self.high_watermark <= self.flushed_offset,
            "consumers would see what a crash may take back: {self:?}"
        );
        assert!(
            self.flushed_offset <= self.log_end_offset,
            "more is flushed than was appended: {self:?}"
        );
    }

    /// Neither of the numbers that clients remember ever goes back.
    pub(crate) fn check_follows(&self, log_start_offset: Offset, high_watermark: Offset) {
        assert!(
            self.log_start_offset >= log_start_offset,
            "the log start goes back from {log_start_offset:?}: {self:?}"
        );
        assert!(
            self.high_watermark >= high_watermark,
            "the high watermark goes back from {high_watermark:?}: {self:?}"
        );
    }
}

/// What goes is committed, and a stored snapshot knows the state behind it (I22): a restart
/// cannot replay frames that are gone.
pub(crate) fn check_trim(
    log_start_offset: Offset,
    high_watermark: Offset,
    snapshot: (Lsn, Offset),
) {
    assert!(
        log_start_offset <= high_watermark,
        "records from {high_watermark:?} on are not committed, the log would start at \
         {log_start_offset:?}"
    );
    assert!(
        log_start_offset <= snapshot.1,
        "the newest snapshot ends at {snapshot:?}, the log would start at {log_start_offset:?}"
    );
}
