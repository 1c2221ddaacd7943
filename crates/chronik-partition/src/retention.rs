//! Which segments a topic's retention lets go. Removing them is two steps: the new log start is
//! appended as a frame; the files go once that frame is durable.

use bytes::Bytes;
use chronik_common::{Offset, WallMs};
use chronik_record::crc;
use chronik_wal::NewFrame;
use chronik_wal::frame::FrameKind;

use crate::acks::{Completion, Token};
use crate::invariants::check_trim;
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
            let plan = self.plan(&state, now);
            if plan.wants_snapshot {
                state.wants_snapshot = true;
                state.log.ask_for_visit();
            }
            let start = state.log.log_start_offset();
            let log_start = plan.log_start.max(start);
            if log_start == start && !plan.closes_open_segment {
                return None;
            }
            if log_start > start {
                check_trim(log_start, state.replication.high_watermark(), state.snapshot_at);
            }
            if plan.closes_open_segment {
                state.log.roll();
            }
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
            (log_start > start).then_some(log_start)
        };
        self.submit(origin, completed, woken);
        log_start
    }

    /// What may go: whole segments that are too old or too much, below the high watermark, and
    /// included in a stored state snapshot. Records without timestamps are never too old.
    fn plan(&self, state: &PartitionState, now: WallMs) -> Plan {
        let config = &self.settings().config;
        let high_watermark = state.replication.high_watermark();
        let oldest_kept = config
            .retention_ms
            .map(|retention| now.0.saturating_sub(i64::try_from(retention).unwrap_or(i64::MAX)));
        let is_old = |max_timestamp: i64| {
            max_timestamp >= 0 && oldest_kept.is_some_and(|oldest| max_timestamp < oldest)
        };
        let mut excess = config
            .retention_bytes
            .map_or(0, |retention| state.log.size_bytes().saturating_sub(retention));
        let mut plan = Plan::default();
        for (next_offset, bytes, max_timestamp) in state.log.sealed_segments() {
            let is_excess = excess >= bytes && excess > 0;
            if next_offset > high_watermark || !(is_old(max_timestamp) || is_excess) {
                return plan;
            }
            if next_offset > state.snapshot_at.1 {
                plan.wants_snapshot = true;
                return plan;
            }
            excess = excess.saturating_sub(bytes);
            plan.log_start = next_offset;
        }
        // Everything sealed may go: an open segment that is too old is closed, so that it can.
        let is_drained = state.log.log_end_offset() == high_watermark;
        plan.closes_open_segment = is_drained
            && state.log.open_segment().is_some_and(|(_, max_timestamp)| is_old(max_timestamp));
        plan
    }
}

/// What retention decided.
#[derive(Default)]
struct Plan {
    log_start: Offset,
    wants_snapshot: bool,
    closes_open_segment: bool,
}
