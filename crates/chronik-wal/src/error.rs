//! What can go wrong with a log, split by what the caller can do about it.

use chronik_common::{Lsn, Offset};

use crate::io::DiskError;

/// A failed operation of the log.
///
/// [`WalError::Disk`] and [`WalError::Failed`] mean *stop*: nothing of this log (or lane) may be
/// acknowledged any more. The others refuse one operation and leave the log as it was.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A disk call failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An earlier write or sync of this log or of its lane failed; nothing is accepted after it.
    #[error("the log stopped after an earlier storage failure")]
    Failed,
    /// Bytes on disk are not what was written there.
    #[error("{file}: damaged at byte {position}: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// First damaged byte.
        position: u64,
        /// Which check failed.
        reason: DamageReason,
    },
    /// A file of a format this release does not know.
    #[error("{file}: unknown format (magic or level)")]
    UnknownFormat {
        /// The file.
        file: String,
    },
    /// A position outside the log.
    #[error("{offset:?} is outside the log ({start}..{end})")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// First offset of the log.
        start: Offset,
        /// Log end offset, exclusive.
        end: Offset,
    },
    /// A log of that name exists already.
    #[error("{0}: the directory exists and belongs to another topic")]
    ForeignDirectory(String),
}

/// Which check found the damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DamageReason {
    /// Fewer bytes than the format demands.
    #[error("too short")]
    TooShort,
    /// Wrong magic or format level.
    #[error("magic or level differs")]
    Magic,
    /// The header's checksum differs.
    #[error("header checksum differs")]
    HeaderChecksum,
    /// The body's checksum differs.
    #[error("body checksum differs")]
    BodyChecksum,
    /// A length is outside its bounds.
    #[error("length out of bounds")]
    Length,
    /// Not the frame that follows the one before.
    #[error("not the successor of the frame before")]
    Chain,
    /// The bytes belong to an earlier use of the file.
    #[error("segment nonce differs")]
    Nonce,
    /// An undefined kind.
    #[error("unknown kind")]
    Kind,
    /// A field contradicts another.
    #[error("inconsistent fields")]
    Inconsistent,
}

/// What recovery found out about one log. Anything but [`Verdict::Ok`] is reported to operators
/// and keeps the log read-only until it is repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Everything that was ever acknowledged is there.
    Ok,
    /// Frames between `end` and `proven_end` were durable once and are gone.
    LostTail {
        /// The first missing frame.
        end: Lsn,
        /// The last frame known to have been durable.
        proven_end: Lsn,
    },
    /// The journal has a hole, so a durable tail may be missing; nobody can tell.
    JournalDamaged,
    /// Frames in the middle of the log are unreadable.
    DamagedRange {
        /// First unreadable frame.
        first: Lsn,
    },
}
