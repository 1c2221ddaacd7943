//! The metadata log of a cluster of one: commands in, images out.
//!
//! ```text
//! propose -> frame in the log -> meta lane, synced -> applier thread: apply, reconcile
//!         -> image published -> proposer answered
//! ```
//!
//! The applier is one thread, so images follow each other in log order, and it may block while
//! partitions are created. A command is answered only after the image that contains it is
//! published: who asked can use the result at once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chronik_cluster::{Applied, MetadataCommand, MetadataImage, Rejection, apply};
use chronik_common::{Clock, LeaderEpoch, Lsn};
use chronik_record::crc;
use chronik_wal::frame::FrameKind;
use chronik_wal::{Flushed, LogAccess, NewFrame, OpenedLog, PartitionLog, StateSnapshot, WalError};
use prost::Message;
use tokio::sync::oneshot;

/// Commands between two snapshots of the image.
const SNAPSHOT_COMMANDS: u64 = 1_000;

/// Origin of metadata frames in lane completions.
pub(crate) const METADATA_ORIGIN: u16 = u16::MAX;

/// Why a command has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// The command was committed and changed nothing.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The metadata log stopped or the server is stopping; the command may still commit.
    #[error("the metadata log is not available")]
    Unavailable,
}

/// Who decides what a storage failure of the metadata log means for the process.
pub(crate) type FailureHook = Box<dyn Fn(&WalError) + Send + Sync>;

type Outcome = Result<Applied, ProposeError>;

struct Waiting {
    lsn: Lsn,
    command: MetadataCommand,
    answer: Option<oneshot::Sender<Outcome>>,
}

struct State {
    log: PartitionLog,
    /// Commands in the log that are not applied yet, in order.
    waiting: VecDeque<Waiting>,
    snapshot_at: Lsn,
    is_stopped: bool,
}

/// The metadata log and the newest image.
pub(crate) struct Metadata {
    state: Mutex<State>,
    changed: Condvar,
    image: ArcSwap<MetadataImage>,
    clock: Arc<dyn Clock>,
    on_failure: FailureHook,
}

impl Metadata {
    /// Restores the image from the log's newest snapshot and the commands behind it. Blocks.
    pub(crate) fn open(
        opened: OpenedLog,
        clock: Arc<dyn Clock>,
        on_failure: FailureHook,
    ) -> Result<Arc<Self>, WalError> {
        let OpenedLog { log, snapshot, .. } = opened;
        let restored = snapshot.as_ref().and_then(|one| MetadataImage::decode(&one.state));
        let mut image = restored.unwrap_or_default();
        let from = image.version.next();
        log.replay(from, |frame, body| {
            if frame.kind != FrameKind::MetaCommand {
                return;
            }
            let command = MetadataCommand::decode(body).unwrap_or_default();
            image = apply(&image, frame.lsn, &command).0;
        })?;
        let snapshot_at = snapshot.map_or(Lsn::ZERO, |one| one.at());
        let state = State { log, waiting: VecDeque::new(), snapshot_at, is_stopped: false };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            image: ArcSwap::from_pointee(image),
            clock,
            on_failure,
        }))
    }

    /// The newest image.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the metadata log's critical sections do not panic")
    }

    /// Appends a command; the receiver resolves once it is committed and applied. Dropping the
    /// receiver does not take the command back.
    pub(crate) fn propose(&self, command: MetadataCommand) -> oneshot::Receiver<Outcome> {
        let (answer, receiver) = oneshot::channel();
        let body = Bytes::from(command.encode_to_vec());
        let mut state = self.lock();
        let epoch = state.log.epochs().last_epoch().unwrap_or(LeaderEpoch(0));
        let appended = state.log.append(NewFrame {
            kind: FrameKind::MetaCommand,
            flags: 0,
            epoch,
            record_count: 0,
            last_offset_delta: -1,
            body_crc: crc::crc32c(&body),
            body,
            append_time_ms: self.clock.wall().0,
            max_timestamp: -1,
        });
        match appended {
            Ok(frame) if !state.is_stopped => {
                // Registered before it is submitted: the completion cannot come first.
                let waiting = Waiting { lsn: frame.lsn, command, answer: Some(answer) };
                state.waiting.push_back(waiting);
                if state.log.submit(METADATA_ORIGIN).is_err() {
                    fail_waiting(&mut state);
                }
            }
            _ => drop(answer.send(Err(ProposeError::Unavailable))),
        }
        receiver
    }

    /// Applies a completion of the meta lane and wakes the applier.
    pub(crate) fn on_flushed(&self, flushed: &Flushed) {
        self.lock().log.on_flushed(flushed);
        self.changed.notify_one();
    }

    /// Fails everyone who waits and ends the applier.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        fail_waiting(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// The applier's loop: applies committed commands in order, lets `reconcile` bring the node
    /// in line with each batch's image, publishes it, answers. Returns after
    /// [`Metadata::stop`].
    pub(crate) fn run_applier(&self, reconcile: impl Fn(&MetadataImage)) {
        while let Some(committed) = self.wait_for_committed() {
            let mut image = MetadataImage::clone(&self.image.load());
            let mut outcomes = Vec::with_capacity(committed.len());
            for waiting in committed {
                let (next, result) = apply(&image, waiting.lsn, &waiting.command);
                image = next;
                outcomes.push((waiting.answer, result));
            }
            reconcile(&image);
            self.image.store(Arc::new(image));
            for (answer, result) in outcomes {
                // A proposer that went away needs no answer.
                let _ = answer.map(|answer| answer.send(result.map_err(ProposeError::from)));
            }
        }
    }

    fn wait_for_committed(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        loop {
            let flushed = state.log.flushed_lsn();
            let count = state.waiting.partition_point(|waiting| waiting.lsn <= flushed);
            if count > 0 {
                return Some(state.waiting.drain(..count).collect());
            }
            if state.is_stopped {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .expect("the metadata log's critical sections do not panic");
        }
    }
}

fn fail_waiting(state: &mut State) {
    for waiting in &mut state.waiting {
        let _ = waiting.answer.take().map(|answer| answer.send(Err(ProposeError::Unavailable)));
    }
    state.waiting.clear();
}

impl LogAccess for Metadata {
    fn with_log(&self, visit: &mut dyn FnMut(&mut PartitionLog)) {
        visit(&mut self.lock().log);
    }

    fn take_snapshot(&self, is_last: bool) -> Option<StateSnapshot> {
        let mut state = self.lock();
        let last = state.log.next_lsn().previous();
        let image = self.image();
        let since = last.0.saturating_sub(state.snapshot_at.0);
        // A snapshot is exactly the state behind the last frame; between append and apply there
        // is none.
        if image.version != last || since == 0 || (since < SNAPSHOT_COMMANDS && !is_last) {
            return None;
        }
        state.snapshot_at = last;
        Some(state.log.snapshot_of(image.encode()))
    }

    fn on_storage_failure(&self, failure: &WalError) {
        self.stop();
        (self.on_failure)(failure);
    }
}
