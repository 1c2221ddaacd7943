//! Which segments a topic's retention lets go. Removing them is two steps: the new log start is
//! appended as a frame; the files go once that frame is durable.

use bytes::Bytes;
use chronik_common::{Offset, WallMs};
use chronik_record::crc;
use chronik_wal::NewFrame;
use chronik_wal::frame::FrameKind;

use crate::acks::{Completion, Token};
use crate::partition::{Partition, PartitionState};

impl Partition {
    /// Applies `retention.ms` and `retention.bytes` at time `now`; returns the new log start if
    /// anything goes.
    pub fn apply_retention(
        &self,
        now: WallMs,
        origin: u16,
        completed: &mut Vec<Completion>,
        woken: &mut Vec<Token>,
    ) -> Option<Offset> {
        let log_start = {
            let mut state = self.lock();
            if !state.log.accepts_appends() || state.is_deleted || state.pending_log_start.is_some()
            {
                return None;
            }
            let log_start = self.expired_before(&state, now)?;
            let body = Bytes::copy_from_slice(&log_start.0.to_le_bytes());
            let epoch = state.leader_epoch;
            let frame = state.log.append(NewFrame {
                kind: FrameKind::LogStart,
                flags: 0,
                epoch,
                record_count: 0,
                last_offset_delta: -1,
                body_crc: crc::crc32c(&body),
                body,
                append_time_ms: now.0,
                max_timestamp: -1,
            });
            state.pending_log_start = Some((frame.ok()?.lsn, log_start));
            log_start
        };
        self.submit(origin, completed, woken);
        Some(log_start)
    }

    /// The first offset to keep, if whole segments below it may go: too old or too much, below
    /// the high watermark, and included in a state snapshot.
    fn expired_before(&self, state: &PartitionState, now: WallMs) -> Option<Offset> {
        let config = &self.settings().config;
        let limit = state.replication.high_watermark().min(state.snapshot_at.1);
        let oldest_kept = config
            .retention_ms
            .map(|retention| now.0.saturating_sub(i64::try_from(retention).unwrap_or(i64::MAX)));
        let mut excess = config
            .retention_bytes
            .map_or(0, |retention| state.log.size_bytes().saturating_sub(retention));
        let mut log_start = None;
        for (next_offset, bytes, max_timestamp) in state.log.sealed_segments() {
            let is_old = oldest_kept.is_some_and(|oldest| max_timestamp < oldest);
            let is_excess = excess >= bytes && excess > 0;
            if next_offset > limit || !(is_old || is_excess) {
                break;
            }
            excess = excess.saturating_sub(bytes);
            log_start = Some(next_offset);
        }
        log_start.filter(|offset| *offset > state.log.log_start_offset())
    }
}
