//! Fetch (key 1), versions 4-18.
//!
//! - The first partition with records gives at least one whole batch, whatever the limits say
//!   (KIP-74); later ones respect `max_bytes`, `partition_max_bytes` and the server's cap.
//! - Long poll: with less than `min_bytes` the request waits until the high watermark of one of
//!   its partitions passes what it asks for, or `max_wait_ms` is over. Errors answer at once.
//! - Offset below the log start or above the log end: OFFSET_OUT_OF_RANGE. Between high watermark
//!   and log end: empty, no error.
//! - Empty records are zero bytes, never null; `aborted_transactions` is null (read_uncommitted)
//!   or empty.
//! - Leader epoch fencing, diverging epochs (KIP-320, KIP-595), sessions (KIP-227), topic ids.
//! - A replica id other than -1 is refused: replication never runs over this port.
//! - Versions below 10 on a topic stored in zstd: UNSUPPORTED_COMPRESSION_TYPE.
//! - A large answer is read in pieces; other connections of the shard get their turn in between.
//! - Bytes leave only after their checksums were verified on their way from the disk.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chronik_common::{ErrorCode, LeaderEpoch, MonotonicMs, Offset, PartitionIndex};
use chronik_partition::{EpochEnd, Partition, ReadError};
use chronik_protocol::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use chronik_protocol::{
    ApiKey, EncodeError, OutputBuffer, Reader, Records, RequestHeader, RequestPrefix,
    SHARED_SLICE_BYTES_MIN,
};
use chronik_record::{BatchHeader, Codec};
use chronik_wal::{ReadBuffers, ReadMode, ReadPlan, SegmentRange, WalError};

use super::fetch_session::{Noted, SessionFetch, TOPIC_ID_VERSION, Told, TopicKey};
use super::produce::find_partition;
use super::{CloseReason, RequestId, error};
use crate::net::connection::{Connection, Slot};
use crate::shard::Shard;

/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30 * 60);
/// First version whose clients know zstd.
const ZSTD_VERSION: i16 = 10;
/// First version whose answers may name leaders' addresses.
const ENDPOINT_VERSION: i16 = 16;
/// First version whose clients know KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_VERSION: i16 = 6;
/// First version that can carry a diverging epoch.
const DIVERGING_VERSION: i16 = 12;
/// Most bytes that a partition gives from its segments, unless one batch is larger: they wait in
/// memory until the consumer takes them. A reader of old records asks again soon.
const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// The same for a consumer that asks soon after its last answer, while the shard serves others: it
/// waits for each answer, and they come first. With a megabyte, producers beside a reader of a
/// backlog on the same machine have three times the p99 that they have alone.
const NEAR_SEGMENT_BYTES_MAX: usize = 64 << 10;
/// Room for what an answer says of a partition besides its records, and a share of the rest.
const PARTITION_BYTES: usize = 128;
/// Isolation level read_committed.
const READ_COMMITTED: i8 = 1;

/// A fetch that waits or is about to be answered.
pub(crate) struct PendingFetch {
    state: FetchState,
}

enum FetchState {
    /// Waits for records or its deadline.
    Parked(Box<Fetch>),
    /// Waits for an earlier fetch of its connection.
    Queued(Box<Fetch>),
    /// Somebody works on it.
    Taken,
}

/// Everything a fetch needs, owned.
pub(crate) struct Fetch {
    id: RequestId,
    targets: Vec<Target>,
    session: SessionFetch,
    bytes_min: usize,
    bytes_max: usize,
    /// Most bytes of a partition's segments.
    segment_bytes_max: usize,
    is_read_committed: bool,
    deadline: MonotonicMs,
    is_due: bool,
    /// Its deadline is in the shard's heap and its targets may know it.
    was_parked: bool,
}

struct Target {
    topic: TopicKey,
    index: i32,
    partition: Result<Arc<Partition>, ErrorCode>,
    offset: Offset,
    bytes_max: usize,
    current_leader_epoch: LeaderEpoch,
    last_fetched_epoch: LeaderEpoch,
    told: Option<Told>,
    /// High watermark at the last look: only records beyond it are news.
    seen: Offset,
}

/// What one partition gives.
struct Outcome {
    code: ErrorCode,
    told: Told,
    bodies: Vec<Bytes>,
    /// Bytes that were read for it, also those that did not fit.
    bytes_read: usize,
    diverging: Option<EpochEnd>,
}

/// A look at a fetch's partitions, which may take several turns of the shard.
#[derive(Default)]
struct Look {
    outcomes: Vec<(usize, Outcome)>,
    /// Targets that need the disk.
    to_read: Vec<(usize, SegmentRange)>,
    /// What an earlier look asked for; `None` for the first look.
    disk_reads: Option<DiskReads>,
    /// Targets before this one were looked at.
    next_target: usize,
    /// What that one gave so far, and what is left to read of it.
    started: Option<(Outcome, SegmentRange)>,
    /// Bytes of the records in `outcomes`.
    bytes: usize,
    has_error: bool,
}

/// Bytes read from disk off the shard, by target.
type DiskReads = HashMap<usize, Result<Vec<Bytes>, WalError>>;

impl PendingFetch {
    fn parked(fetch: Fetch) -> Self {
        Self { state: FetchState::Parked(Box::new(fetch)) }
    }

    /// True if the fetch waits for an earlier one of its connection.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.state, FetchState::Queued(_))
    }

    /// Takes the fetch out of its slot for another look; `is_due` marks its time as over. `None`
    /// if somebody works on it, or if it is not its turn yet.
    pub(crate) fn take_for_look(&mut self, is_due: bool) -> Option<Fetch> {
        match std::mem::replace(&mut self.state, FetchState::Taken) {
            FetchState::Queued(mut fetch) if is_due => {
                fetch.is_due = true;
                self.state = FetchState::Queued(fetch);
                None
            }
            FetchState::Parked(mut fetch) | FetchState::Queued(mut fetch) => {
                fetch.is_due |= is_due;
                Some(*fetch)
            }
            FetchState::Taken => None,
        }
    }

    /// The connection is gone: nobody waits any more.
    pub(crate) fn abandon(&self, shard: &Shard, connection: &Connection) {
        if let FetchState::Parked(fetch) = &self.state {
            fetch.forget_waits(shard, connection);
        }
    }
}

/// Answers with records, now or when there are some.
pub(crate) fn handle(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    prefix: RequestPrefix,
    frame: &[u8],
) -> Result<(), CloseReason> {
    let id = RequestId {
        api: ApiKey::Fetch,
        version: prefix.api_version,
        correlation_id: prefix.correlation_id,
    };
    let (_, body) =
        RequestHeader::decode(frame, ApiKey::Fetch, prefix).map_err(CloseReason::Decode)?;
    let request =
        FetchRequest::decode(&mut Reader::new(body), id.version).map_err(CloseReason::Decode)?;
    let session = if request.replica_id != -1 || request.replica_state.replica_id != -1 {
        Err(ErrorCode::InvalidRequest)
    } else {
        shard.node.fetch_sessions.enter(&request, id.version, shard.now())
    };
    let session = match session {
        Ok(session) => session,
        Err(code) => {
            let response = FetchResponse { error_code: code.code(), ..FetchResponse::default() };
            return connection.answer(|out| id.encode(out, |out| response.encode(out, id.version)));
        }
    };
    let others_come_first = shard.turns.are_shared() && connection.is_near(shard);
    let segment_bytes_max =
        if others_come_first { NEAR_SEGMENT_BYTES_MAX } else { SEGMENT_BYTES_MAX };
    let fetch = Fetch::new(shard, id, &request, session, segment_bytes_max);
    let request = connection.next_request();
    connection.push_slot(Slot::Fetch(Box::new(PendingFetch { state: FetchState::Taken })));
    if connection.must_queue_fetch(shard, request) {
        let state = FetchState::Queued(Box::new(fetch));
        connection.park_fetch(request, PendingFetch { state });
    } else {
        // Records appended earlier in this turn become visible before it ends.
        look_again(shard, connection, request, fetch);
    }
    Ok(())
}

/// Looks at a fetch whose slot is taken: answers it, parks it, or goes on in a task.
pub(crate) fn look_again(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    request: u64,
    mut fetch: Fetch,
) {
    let mut look = Look::default();
    match fetch.go_on(shard, &mut look) {
        Verdict::Answer(encoded) => {
            fetch.forget_waits(shard, connection);
            finish(shard, connection, request, encoded);
        }
        Verdict::Wait => park(shard, connection, request, fetch),
        unfinished @ (Verdict::Unfinished | Verdict::ReadDisk(_)) => {
            let (shard, connection) = (Rc::clone(shard), Rc::clone(connection));
            tokio::task::spawn_local(async move {
                match fetch.finish_look(&shard, look, unfinished).await {
                    Some(encoded) => {
                        fetch.forget_waits(&shard, &connection);
                        finish(&shard, &connection, request, encoded);
                    }
                    None => park(&shard, &connection, request, fetch),
                }
            });
        }
    }
}

/// Reads `ranges` where waiting for the disk holds up nobody.
async fn read_disk(ranges: Vec<(usize, SegmentRange)>, buffers: ReadBuffers) -> DiskReads {
    let read = move || {
        ranges
            .into_iter()
            .map(|(target, range)| {
                let bodies = range.read(ReadMode::Blocking, &buffers);
                (target, bodies.map(Option::unwrap_or_default))
            })
            .collect::<DiskReads>()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn finish(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    request: u64,
    encoded: Result<OutputBuffer, EncodeError>,
) {
    match encoded {
        Ok(encoded) => connection.fill(shard, request, encoded),
        Err(error) => connection.end(shard, &CloseReason::Encode(error)),
    }
}

/// Puts the fetch into its slot and registers it with every partition. If records came in
/// between, it is looked at again at once.
fn park(shard: &Rc<Shard>, connection: &Rc<Connection>, request: u64, mut fetch: Fetch) {
    let token =
        chronik_partition::Token { shard: shard.id, connection: connection.id, request, part: 0 };
    if !std::mem::replace(&mut fetch.was_parked, true) {
        shard.schedule_fetch(fetch.deadline, connection.id, request);
    }
    let waits: Vec<(Arc<Partition>, Offset)> = fetch
        .targets
        .iter()
        .filter_map(|target| {
            let partition = target.partition.as_ref().ok()?;
            Some((Arc::clone(partition), target.offset.max(target.seen)))
        })
        .collect();
    connection.park_fetch(request, PendingFetch::parked(fetch));
    let has_news =
        waits.iter().filter(|(partition, offset)| !partition.wait_for_records(*offset, token));
    if has_news.count() > 0 {
        let (shard, connection) = (Rc::clone(shard), Rc::clone(connection));
        // Not recursively: with a high `min_bytes` it may have to park once more.
        tokio::task::spawn_local(async move {
            tokio::task::yield_now().await;
            connection.wake_fetch(&shard, request, false);
        });
    }
}

enum Verdict {
    Answer(Result<OutputBuffer, EncodeError>),
    Wait,
    /// Others get their turn; then the look goes on.
    Unfinished,
    ReadDisk(Vec<(usize, SegmentRange)>),
}

impl Fetch {
    fn new(
        shard: &Shard,
        id: RequestId,
        request: &FetchRequest<'_>,
        session: SessionFetch,
        segment_bytes_max: usize,
    ) -> Self {
        let targets = session.partitions.iter().map(|wanted| Target {
            partition: find(shard, &wanted.topic, wanted.partition),
            topic: wanted.topic.clone(),
            index: wanted.partition,
            offset: Offset(wanted.fetch_offset),
            bytes_max: usize::try_from(wanted.bytes_max).unwrap_or(0),
            current_leader_epoch: LeaderEpoch(wanted.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch(wanted.last_fetched_epoch),
            told: wanted.told,
            seen: Offset::ZERO,
        });
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let cap = usize::try_from(shard.node.config.listener.fetch_bytes_max);
        let asked = usize::try_from(request.max_bytes).unwrap_or(0);
        let bytes_max = asked.min(cap.unwrap_or(usize::MAX));
        Self {
            id,
            targets: targets.collect(),
            session,
            // More than may be sent is never waited for.
            bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max),
            bytes_max,
            segment_bytes_max,
            is_read_committed: request.isolation_level == READ_COMMITTED,
            deadline: shard.now().after(wait.min(WAIT_MAX)),
            is_due: wait.is_zero(),
            was_parked: false,
        }
    }

    /// Takes back what [`park`] registered, so that nothing outlives the fetch.
    fn forget_waits(&self, shard: &Shard, connection: &Connection) {
        if !self.was_parked {
            return;
        }
        for partition in self.targets.iter().filter_map(|target| target.partition.as_ref().ok()) {
            partition.forget_fetch(shard.id, connection.id);
        }
    }

    /// Goes on with a look until it is finished, other connections getting their turns in
    /// between; `None` if the fetch is to wait. Cancelled, the fetch has changed nothing.
    async fn finish_look(
        &mut self,
        shard: &Rc<Shard>,
        mut look: Look,
        mut verdict: Verdict,
    ) -> Option<Result<OutputBuffer, EncodeError>> {
        loop {
            match verdict {
                Verdict::Answer(encoded) => return Some(encoded),
                Verdict::Unfinished => tokio::task::yield_now().await,
                Verdict::ReadDisk(ranges) if look.disk_reads.is_none() => {
                    let disk_reads = Some(read_disk(ranges, shard.read_buffers.clone()).await);
                    look = Look { disk_reads, ..Look::default() };
                }
                // What was read is enough for an answer; only an empty read waits.
                Verdict::Wait | Verdict::ReadDisk(_) => return None,
            }
            verdict = self.go_on(shard, &mut look);
        }
    }

    /// Looks at the targets that are left, as many as fit into one turn.
    fn go_on(&mut self, shard: &Shard, look: &mut Look) -> Verdict {
        let turn_bytes_max = shard.turns.bytes();
        let mut turn_bytes = 0;
        for (number, target) in self.targets.iter().enumerate().skip(look.next_target) {
            if turn_bytes >= turn_bytes_max {
                look.next_target = number;
                return Verdict::Unfinished;
            }
            let read = match look.started.take() {
                Some((outcome, rest)) => Ok(outcome.read_on(&rest, shard, target)),
                None => {
                    let left = self.bytes_max.saturating_sub(look.bytes);
                    let from_disk = look.disk_reads.as_mut();
                    let from_disk = from_disk.and_then(|reads| reads.remove(&number));
                    target.read(self, shard, left, look.bytes == 0, from_disk)
                }
            };
            let outcome = match read {
                Ok(Read::Done(outcome)) => outcome,
                Ok(Read::Started(outcome, rest)) => {
                    look.started = Some((outcome, rest));
                    look.next_target = number;
                    return Verdict::Unfinished;
                }
                Ok(Read::NeedsDisk(range)) => {
                    look.to_read.push((number, range));
                    // It will give something: what follows must not be given more.
                    look.bytes += 1;
                    continue;
                }
                Err(code) => {
                    look.has_error = true;
                    Outcome::failed(code)
                }
            };
            turn_bytes += outcome.bytes_read;
            look.bytes += outcome.bodies.iter().map(Bytes::len).sum::<usize>();
            look.has_error |= outcome.diverging.is_some();
            look.outcomes.push((number, outcome));
        }
        let Look { outcomes, to_read, bytes, has_error, .. } = look;
        let (outcomes, to_read) = (std::mem::take(outcomes), std::mem::take(to_read));
        let (bytes, has_error) = (*bytes, *has_error);
        for (number, outcome) in &outcomes {
            self.targets[*number].seen = Offset(outcome.told.high_watermark.max(0));
        }
        if !to_read.is_empty() {
            return Verdict::ReadDisk(to_read);
        }
        let is_out_of_time = self.is_due || shard.now() >= self.deadline;
        let may_wait = !has_error && !is_out_of_time && !self.targets.is_empty();
        if bytes < self.bytes_min && may_wait && !outcomes.iter().any(|(_, it)| it.has_more()) {
            return Verdict::Wait;
        }
        shard.node.metrics.count_fetched(shard.id, bytes);
        Verdict::Answer(self.encode(shard, outcomes))
    }

    fn encode(
        &self,
        shard: &Shard,
        outcomes: Vec<(usize, Outcome)>,
    ) -> Result<OutputBuffer, EncodeError> {
        if let Some(session) = &self.session.session {
            let answered = outcomes.iter().map(|(number, it)| (&self.targets[*number], it));
            let answered = answered.filter(|(target, outcome)| self.is_answered(target, outcome));
            session.note_told(answered.filter(|(_, outcome)| outcome.code == ErrorCode::None).map(
                |(target, outcome)| Noted {
                    topic: &target.topic,
                    partition: target.index,
                    told: outcome.told,
                    has_records: !outcome.bodies.is_empty(),
                },
            ));
        }
        let mut responses: Vec<FetchableTopicResponse<'_>> = Vec::new();
        let mut last_topic = None;
        let mut needs_endpoint = false;
        let mut owned_bytes = 0;
        for (number, outcome) in outcomes {
            let target = &self.targets[number];
            if !self.is_answered(target, &outcome) {
                continue;
            }
            let sizes = outcome.bodies.iter().map(Bytes::len);
            let copied: usize = sizes.filter(|size| *size < SHARED_SLICE_BYTES_MIN).sum();
            owned_bytes += PARTITION_BYTES + copied;
            if last_topic != Some(&target.topic) {
                // In the order of the partitions, as Kafka does (`FetchResponse.toMessage`): a
                // topic may come twice.
                responses.push(topic_response(&target.topic));
                last_topic = Some(&target.topic);
            }
            let topic = responses.last_mut().expect("the first topic differs from none");
            topic.partitions.push(self.partition_data(shard, target, outcome, &mut needs_endpoint));
        }
        let image = shard.node.metadata.image();
        let node_endpoints = image.nodes.values().filter(|_| needs_endpoint);
        let response = FetchResponse {
            session_id: self.session.session_id(),
            responses,
            node_endpoints: node_endpoints
                .map(|node| NodeEndpoint {
                    node_id: node.id.0,
                    host: Cow::Borrowed(node.host.as_str()),
                    port: i32::from(node.port),
                    rack: node.rack.as_deref().map(Cow::Borrowed),
                })
                .collect(),
            ..FetchResponse::default()
        };
        let mut out = OutputBuffer::with_capacity(owned_bytes);
        self.id.encode(&mut out, |out| response.encode(out, self.id.version))?;
        Ok(out)
    }

    /// True if the answer names the partition; in a session only one with news is named.
    fn is_answered(&self, target: &Target, outcome: &Outcome) -> bool {
        !self.session.is_incremental
            || outcome.code != ErrorCode::None
            || !outcome.bodies.is_empty()
            || outcome.diverging.is_some()
            || target.told != Some(outcome.told)
    }

    fn partition_data<'a>(
        &self,
        shard: &Shard,
        target: &Target,
        outcome: Outcome,
        needs_endpoint: &mut bool,
    ) -> PartitionData<'a> {
        let is_storage = outcome.code == ErrorCode::KafkaStorageError;
        let code = if is_storage && self.id.version < STORAGE_ERROR_VERSION {
            ErrorCode::NotLeaderOrFollower
        } else {
            outcome.code
        };
        let mut data = PartitionData {
            partition_index: target.index,
            error_code: code.code(),
            high_watermark: outcome.told.high_watermark,
            last_stable_offset: outcome.told.high_watermark,
            log_start_offset: outcome.told.log_start_offset,
            aborted_transactions: self.is_read_committed.then(Vec::new),
            preferred_read_replica: -1,
            records: Some(match outcome.bodies.len() {
                0 => Records::EMPTY,
                _ => Records::Chain(outcome.bodies),
            }),
            ..PartitionData::default()
        };
        if let Some(diverging) = outcome.diverging
            && self.id.version >= DIVERGING_VERSION
        {
            data.diverging_epoch =
                EpochEndOffset { epoch: diverging.epoch.0, end_offset: diverging.end_offset.0 };
        }
        // KIP-951: a client that is behind learns the leader from the answer.
        let is_fenced =
            matches!(code, ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower);
        if is_fenced
            && self.id.version >= ENDPOINT_VERSION
            && let Ok(partition) = &target.partition
        {
            *needs_endpoint = true;
            data.current_leader = LeaderIdAndEpoch {
                leader_id: shard.node.id().0,
                leader_epoch: partition.numbers().leader_epoch.0,
            };
        }
        data
    }
}

fn topic_response(topic: &TopicKey) -> FetchableTopicResponse<'_> {
    match topic {
        TopicKey::Name(name) => FetchableTopicResponse {
            topic: Cow::Borrowed(name),
            ..FetchableTopicResponse::default()
        },
        TopicKey::Id(id) => {
            FetchableTopicResponse { topic_id: *id, ..FetchableTopicResponse::default() }
        }
    }
}

fn find(shard: &Shard, topic: &TopicKey, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let registry = &shard.node.registry;
    let handle = match topic {
        TopicKey::Name(name) => registry.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) => registry.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
    }?;
    find_partition(shard, &handle, PartitionIndex(index))
}

enum Read {
    Done(Outcome),
    /// The range is to be read on in a later turn.
    Started(Outcome, SegmentRange),
    NeedsDisk(SegmentRange),
}

impl Outcome {
    fn failed(code: ErrorCode) -> Self {
        let told = Told { high_watermark: -1, log_start_offset: -1 };
        Self { code, told, bodies: Vec::new(), bytes_read: 0, diverging: None }
    }

    /// Takes what one turn may read of `rest`. Where that cannot be had now, what was read is the
    /// answer; the consumer asks for the rest again, and is told then why it cannot be read.
    fn read_on(mut self, rest: &SegmentRange, shard: &Shard, target: &Target) -> Read {
        match rest.read_piece(shard.turns.bytes(), ReadMode::Cached, &shard.read_buffers) {
            Ok(Some(piece)) => {
                self.bytes_read += piece.bodies.iter().map(Bytes::len).sum::<usize>();
                self.bodies.extend(piece.bodies);
                match piece.rest {
                    Some(rest) => Read::Started(self, rest),
                    None => Read::Done(self),
                }
            }
            Ok(None) => Read::Done(self),
            Err(failure) => {
                target.complain(&failure);
                Read::Done(self)
            }
        }
    }

    /// There are records behind those that are given: an answer need not wait for any.
    fn has_more(&self) -> bool {
        let last = self.bodies.last().and_then(|last| BatchHeader::parse(last).ok());
        last.is_some_and(|last| last.next_offset().0 < self.told.high_watermark)
    }
}

impl Target {
    /// Reads what this partition gives within `left` bytes; `is_first` grants one whole batch
    /// above any limit. `from_disk` is what an earlier look asked for.
    fn read(
        &self,
        fetch: &Fetch,
        shard: &Shard,
        left: usize,
        is_first: bool,
        from_disk: Option<Result<Vec<Bytes>, WalError>>,
    ) -> Result<Read, ErrorCode> {
        let partition = self.partition.as_ref().map_err(|code| *code)?;
        if fetch.id.version < ZSTD_VERSION && partition.settings().codec == Some(Codec::Zstd) {
            return Err(ErrorCode::UnsupportedCompressionType);
        }
        let limit = self.bytes_max.min(left);
        let read = partition
            .read(self.offset, limit, self.current_leader_epoch, self.last_fetched_epoch)
            .map_err(|refused| error::of_read(&refused))?;
        let told = Told {
            high_watermark: read.numbers.high_watermark.0,
            log_start_offset: read.numbers.log_start_offset.0,
        };
        let (bodies, rest) = match (read.plan, from_disk) {
            (_, Some(result)) => {
                let bodies = result.map_err(|failure| self.refused(failure))?;
                (bodies, None)
            }
            (ReadPlan::Empty, None) => (Vec::new(), None),
            (ReadPlan::Memory(bodies), None) => (bodies, None),
            (ReadPlan::Segment(_), None) if !is_first && limit == 0 => (Vec::new(), None),
            (ReadPlan::Segment(mut range), None) => {
                range.bytes_max = range.bytes_max.min(fetch.segment_bytes_max);
                let turn_bytes = shard.turns.bytes();
                match range.read_piece(turn_bytes, ReadMode::Cached, &shard.read_buffers) {
                    Ok(Some(piece)) => (piece.bodies, piece.rest),
                    Ok(None) => return Ok(Read::NeedsDisk(range)),
                    Err(failure) => return Err(self.refused(failure)),
                }
            }
        };
        // A log gives one whole batch even above the limit; only the first partition may.
        let bytes_read: usize = bodies.iter().map(Bytes::len).sum();
        let is_granted = is_first || bytes_read <= limit;
        let (bodies, rest) = if is_granted { (bodies, rest) } else { (Vec::new(), None) };
        let diverging = read.diverging;
        let outcome = Outcome { code: ErrorCode::None, told, bodies, bytes_read, diverging };
        Ok(match rest {
            Some(rest) => Read::Started(outcome, rest),
            None => Read::Done(outcome),
        })
    }

    fn refused(&self, failure: WalError) -> ErrorCode {
        self.complain(&failure);
        error::of_read(&ReadError::Storage(failure))
    }

    fn complain(&self, failure: &WalError) {
        if let Ok(partition) = &self.partition {
            tracing::error!(partition = %partition.name(), error = %failure, "cannot read");
        }
    }
}

/// Names and ids are never mixed in one request.
const _: () = assert!(TOPIC_ID_VERSION == 13);
