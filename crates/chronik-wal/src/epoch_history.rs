//! Which leader epoch began where: the answer to "where does epoch e end" (KIP-101, KIP-279,
//! KIP-320), and to raft's `term(index)`, without I/O.
//!
//! Kept in memory per log, rebuilt from the state snapshot plus the frames behind it.

use chronik_common::{LeaderEpoch, Lsn, Offset};

use crate::invariants::is_next_epoch;

/// The first frame of one leader epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first frame.
    pub first_lsn: Lsn,
    /// Offset of its first record.
    pub first_offset: Offset,
}

/// Epochs of a log in ascending order; epochs, positions and offsets never decrease.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochHistory {
    starts: Vec<EpochStart>,
}

impl EpochHistory {
    /// A history from stored rows; rows out of order end it.
    #[must_use]
    pub fn from_rows(rows: impl IntoIterator<Item = EpochStart>) -> Self {
        let mut history = Self::default();
        for row in rows {
            if history.starts.last().is_some_and(|last| !is_next_epoch(last, &row)) {
                break;
            }
            history.starts.push(row);
        }
        history
    }

    /// Notes a frame; does nothing unless it opens a new epoch.
    ///
    /// # Panics
    /// If the epoch went backwards, which would be a bug in the caller.
    pub fn note(&mut self, epoch: LeaderEpoch, lsn: Lsn, offset: Offset) {
        let start = EpochStart { epoch, first_lsn: lsn, first_offset: offset };
        if let Some(last) = self.starts.last() {
            assert!(
                last.epoch <= epoch,
                "leader epoch went back from {} to {epoch} at {lsn:?}",
                last.epoch
            );
            if last.epoch == epoch {
                return;
            }
            assert!(is_next_epoch(last, &start), "{start:?} does not follow {last:?}");
        }
        self.starts.push(start);
    }

    /// Notes a frame that was read from disk; `false`, noting nothing, if it contradicts the
    /// frames before it.
    #[must_use]
    pub fn note_read(&mut self, epoch: LeaderEpoch, lsn: Lsn, offset: Offset) -> bool {
        let start = EpochStart { epoch, first_lsn: lsn, first_offset: offset };
        let fits = self
            .starts
            .last()
            .is_none_or(|last| last.epoch == epoch || is_next_epoch(last, &start));
        if fits {
            self.note(epoch, lsn, offset);
        }
        fits
    }

    /// Forgets frames from `lsn` on.
    pub fn truncate(&mut self, lsn: Lsn) {
        self.starts.retain(|start| start.first_lsn < lsn);
    }

    /// The newest epoch.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|start| start.epoch)
    }

    /// Epoch of the frame at `lsn`; `None` before the first known frame.
    #[must_use]
    pub fn epoch_of(&self, lsn: Lsn) -> Option<LeaderEpoch> {
        let after = self.starts.partition_point(|start| start.first_lsn <= lsn);
        after.checked_sub(1).map(|index| self.starts[index].epoch)
    }

    /// Epoch of the record at `offset`; `None` before the first known record.
    #[must_use]
    pub fn epoch_of_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.starts.partition_point(|start| start.first_offset <= offset);
        after.checked_sub(1).map(|index| self.starts[index].epoch)
    }

    /// The largest epoch not above `epoch` and the offset where it ends; `None` when no such
    /// epoch is known. `log_end` ends the newest epoch.
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.starts.partition_point(|start| start.epoch <= epoch);
        let found = self.starts[after.checked_sub(1)?].epoch;
        let end = self.starts.get(after).map_or(log_end, |next| next.first_offset);
        Some((found, end))
    }

    /// All rows, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[EpochStart] {
        &self.starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochHistory {
        let mut history = EpochHistory::default();
        for (epoch, lsn, offset) in [(1, 1, 0), (1, 2, 10), (4, 3, 20), (7, 9, 20), (7, 10, 21)] {
            history.note(LeaderEpoch(epoch), Lsn(lsn), Offset(offset));
        }
        history
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next_known_one() {
        let end = |epoch| history().end_of(LeaderEpoch(epoch), Offset(30));
        assert_eq!(end(0), None);
        assert_eq!(end(1), Some((LeaderEpoch(1), Offset(20))));
        assert_eq!(end(3), Some((LeaderEpoch(1), Offset(20))));
        assert_eq!(end(4), Some((LeaderEpoch(4), Offset(20))));
        assert_eq!(end(9), Some((LeaderEpoch(7), Offset(30))));
    }

    #[test]
    fn truncation_forgets_epochs_that_began_behind_it() {
        let mut cut = history();
        cut.truncate(Lsn(9));
        assert_eq!(cut.last_epoch(), Some(LeaderEpoch(4)));
        assert_eq!(cut.epoch_of(Lsn(100)), Some(LeaderEpoch(4)));
        assert_eq!(history().epoch_of(Lsn(2)), Some(LeaderEpoch(1)));
    }

    #[test]
    #[should_panic(expected = "leader epoch went back")]
    fn an_epoch_that_goes_back_is_a_bug() {
        history().note(LeaderEpoch(3), Lsn(11), Offset(22));
    }
}
