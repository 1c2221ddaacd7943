//! Incremental fetch sessions (KIP-227): a client names its partitions once and then only what
//! changes; the answer carries only partitions with news.
//!
//! Sessions live in one node-wide cache with a bound. A full cache evicts a session that was not
//! used for two minutes; if there is none, the client gets no session and goes on with full
//! fetches, which is legal and only costs bytes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chronik_common::{ErrorCode, MonotonicMs, Rng, TopicId};
use chronik_protocol::fetch::FetchRequest;

/// A session that was not used for this long may be evicted.
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// Most partitions in a session; a client that wants more sends them every time.
const SESSION_PARTITIONS_MAX: usize = 10_000;
/// First version with topic ids instead of names.
pub(crate) const TOPIC_ID_VERSION: i16 = 13;
/// Epoch of a request outside any session.
const FINAL_EPOCH: i32 = -1;
/// Epoch of a request that opens a session.
const INITIAL_EPOCH: i32 = 0;

/// A topic as the client names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

/// One partition a client wants.
#[derive(Clone, Debug)]
pub(crate) struct WantedPartition {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
    pub(crate) fetch_offset: i64,
    pub(crate) bytes_max: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    /// What the client was last told; `None` if nothing yet.
    pub(crate) told: Option<Told>,
    /// The last answer had records of it.
    got_records: bool,
}

/// Numbers of a partition in the last answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
}

/// What a fetch is about, after its session was looked up.
#[derive(Debug)]
pub(crate) struct SessionFetch {
    pub(crate) partitions: Vec<WantedPartition>,
    /// The session to answer in; `None` outside any.
    pub(crate) session: Option<Arc<Session>>,
    /// Only partitions with news are answered.
    pub(crate) is_incremental: bool,
}

impl SessionFetch {
    /// Id for the answer; 0 outside any session.
    pub(crate) fn session_id(&self) -> i32 {
        self.session.as_ref().map_or(0, |session| session.id)
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    id: i32,
    uses_topic_ids: bool,
    state: Mutex<SessionState>,
}

#[derive(Debug)]
struct SessionState {
    next_epoch: i32,
    last_used: MonotonicMs,
    /// In the order in which they get their share of the next answer.
    partitions: Vec<WantedPartition>,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().expect("no holder of a session panics")
    }

    /// Notes what the client is being told, in the order of the session's partitions, and lets
    /// those that got records wait for those that did not.
    ///
    /// A client that sends its next request before this answer may have changed the order; what is
    /// not noted then is only told once more.
    pub(crate) fn note_told<'a>(&self, told: impl Iterator<Item = Noted<'a>>) {
        let mut state = self.lock();
        let mut told = told.peekable();
        for known in &mut state.partitions {
            let is_it =
                |it: &Noted<'_>| *it.topic == known.topic && it.partition == known.partition;
            let noted = told.next_if(is_it);
            known.got_records = noted.as_ref().is_some_and(|it| it.has_records);
            if let Some(noted) = noted {
                known.told = Some(noted.told);
            }
        }
        // Stable: otherwise their order stays.
        state.partitions.sort_by_key(|known| known.got_records);
    }
}

/// What a client is being told about a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted<'a> {
    pub(crate) topic: &'a TopicKey,
    pub(crate) partition: i32,
    pub(crate) told: Told,
    pub(crate) has_records: bool,
}

/// All sessions of a node.
pub(crate) struct FetchSessions {
    max: usize,
    cache: Mutex<Cache>,
}

struct Cache {
    sessions: HashMap<i32, Arc<Session>>,
    rng: Box<dyn Rng>,
    /// No session is old enough to be evicted before this: a full cache need not be searched by
    /// every client that asks in vain.
    none_evictable_before: MonotonicMs,
}

impl FetchSessions {
    pub(crate) fn new(max: usize, rng: Box<dyn Rng>) -> Self {
        let none_evictable_before = MonotonicMs::default();
        let cache = Cache { sessions: HashMap::new(), rng, none_evictable_before };
        Self { max, cache: Mutex::new(cache) }
    }

    /// Open sessions.
    pub(crate) fn count(&self) -> usize {
        self.cache.lock().expect("no holder of the cache panics").sessions.len()
    }

    /// Finds out what a request is about.
    ///
    /// # Errors
    /// The top-level error code of the answer.
    pub(crate) fn enter(
        &self,
        request: &FetchRequest<'_>,
        version: i16,
        now: MonotonicMs,
    ) -> Result<SessionFetch, ErrorCode> {
        let uses_topic_ids = version >= TOPIC_ID_VERSION;
        let mut cache = self.cache.lock().expect("no holder of the cache panics");
        match request.session_epoch {
            FINAL_EPOCH | INITIAL_EPOCH => {
                cache.sessions.remove(&request.session_id);
                let partitions = wanted(request, uses_topic_ids);
                let wants_session = request.session_epoch == INITIAL_EPOCH;
                let session = wants_session
                    .then(|| cache.open(self.max, uses_topic_ids, &partitions, now))
                    .flatten();
                Ok(SessionFetch { partitions, session, is_incremental: false })
            }
            epoch => {
                let session = cache
                    .sessions
                    .get(&request.session_id)
                    .cloned()
                    .ok_or(ErrorCode::FetchSessionIdNotFound)?;
                drop(cache);
                if session.uses_topic_ids != uses_topic_ids {
                    return Err(ErrorCode::FetchSessionTopicIdError);
                }
                let mut state = session.lock();
                if state.next_epoch != epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                state.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
                state.last_used = now;
                update(&mut state.partitions, request, uses_topic_ids);
                let partitions = state.partitions.clone();
                drop(state);
                Ok(SessionFetch { partitions, session: Some(session), is_incremental: true })
            }
        }
    }
}

impl Cache {
    /// A new session, or none if there is no room for it.
    fn open(
        &mut self,
        max: usize,
        uses_topic_ids: bool,
        partitions: &[WantedPartition],
        now: MonotonicMs,
    ) -> Option<Arc<Session>> {
        if partitions.is_empty() || partitions.len() > SESSION_PARTITIONS_MAX {
            return None;
        }
        if self.sessions.len() >= max {
            self.evict(now)?;
        }
        let id = loop {
            let id = (self.rng.next_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let state = SessionState { next_epoch: 1, last_used: now, partitions: partitions.to_vec() };
        let session = Arc::new(Session { id, uses_topic_ids, state: Mutex::new(state) });
        self.sessions.insert(id, Arc::clone(&session));
        Some(session)
    }

    /// Removes the session that was not used for the longest time, if that is long enough.
    fn evict(&mut self, now: MonotonicMs) -> Option<()> {
        if now < self.none_evictable_before {
            return None;
        }
        let used = self.sessions.values().map(|session| (session.lock().last_used, session.id));
        let (last_used, id) = used.min()?;
        let evictable_from = last_used.after(EVICTION_AGE);
        if now < evictable_from {
            // Uses only move on: no other session gets old enough before this one.
            self.none_evictable_before = evictable_from;
            return None;
        }
        self.sessions.remove(&id);
        Some(())
    }
}

fn wanted(request: &FetchRequest<'_>, uses_topic_ids: bool) -> Vec<WantedPartition> {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let key = topic_key(&topic.topic, topic.topic_id, uses_topic_ids);
        for item in &topic.partitions {
            partitions.push(WantedPartition {
                topic: key.clone(),
                partition: item.partition,
                fetch_offset: item.fetch_offset,
                bytes_max: item.partition_max_bytes,
                current_leader_epoch: item.current_leader_epoch,
                last_fetched_epoch: item.last_fetched_epoch,
                told: None,
                got_records: false,
            });
        }
    }
    partitions
}

fn topic_key(name: &str, id: TopicId, uses_topic_ids: bool) -> TopicKey {
    if uses_topic_ids { TopicKey::Id(id) } else { TopicKey::Name(name.into()) }
}

/// Removes forgotten partitions, then updates or adds the named ones.
fn update(partitions: &mut Vec<WantedPartition>, request: &FetchRequest<'_>, uses_topic_ids: bool) {
    let forgotten: HashSet<(TopicKey, i32)> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let key = topic_key(&topic.topic, topic.topic_id, uses_topic_ids);
            topic.partitions.iter().map(move |partition| (key.clone(), *partition))
        })
        .collect();
    if !forgotten.is_empty() {
        partitions.retain(|known| !forgotten.contains(&(known.topic.clone(), known.partition)));
    }
    let named = wanted(request, uses_topic_ids);
    if named.is_empty() {
        return;
    }
    let places: HashMap<(TopicKey, i32), usize> = partitions
        .iter()
        .enumerate()
        .map(|(place, known)| ((known.topic.clone(), known.partition), place))
        .collect();
    for new in named {
        match places.get(&(new.topic.clone(), new.partition)) {
            Some(place) => {
                let told = partitions[*place].told;
                partitions[*place] = WantedPartition { told, ..new };
            }
            None if partitions.len() < SESSION_PARTITIONS_MAX => partitions.push(new),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_common::SeededRng;
    use chronik_protocol::fetch::{FetchPartition, FetchTopic, ForgottenTopic};

    fn request(
        id: i32,
        epoch: i32,
        partitions: &[(i32, i64)],
        forgotten: &[i32],
    ) -> FetchRequest<'static> {
        let topic = |partitions: Vec<FetchPartition>| FetchTopic {
            topic: "t".into(),
            partitions,
            ..FetchTopic::default()
        };
        let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            ..FetchPartition::default()
        };
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            topics: vec![topic(partitions.iter().map(partition).collect())],
            forgotten_topics_data: vec![ForgottenTopic {
                topic: "t".into(),
                partitions: forgotten.to_vec(),
                ..ForgottenTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    fn sessions(max: usize) -> FetchSessions {
        FetchSessions::new(max, Box::new(SeededRng::new(3)))
    }

    fn offsets(fetch: &SessionFetch) -> Vec<(i32, i64)> {
        fetch.partitions.iter().map(|one| (one.partition, one.fetch_offset)).collect()
    }

    /// Kafka: `FetchSessionTest`.
    #[test]
    fn a_session_remembers_partitions_and_applies_changes() {
        let sessions = sessions(10);
        let now = MonotonicMs(0);
        let first = sessions.enter(&request(0, 0, &[(0, 5), (1, 6)], &[]), 12, now).unwrap();
        let id = first.session_id();
        assert!(id > 0 && !first.is_incremental);
        let second = sessions.enter(&request(id, 1, &[(1, 9), (2, 1)], &[0]), 12, now).unwrap();
        assert!(second.is_incremental);
        assert_eq!(offsets(&second), [(1, 9), (2, 1)]);
        let third = sessions.enter(&request(id, 2, &[], &[]), 12, now).unwrap();
        assert_eq!(offsets(&third), [(1, 9), (2, 1)]);
    }

    #[test]
    fn wrong_epochs_unknown_ids_and_changed_topic_keys_are_refused() {
        let sessions = sessions(10);
        let now = MonotonicMs(0);
        let id = sessions.enter(&request(0, 0, &[(0, 0)], &[]), 12, now).unwrap().session_id();
        let enter = |id, epoch, version| {
            sessions.enter(&request(id, epoch, &[], &[]), version, now).map(|_| ()).unwrap_err()
        };
        assert_eq!(enter(id, 2, 12), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(enter(id ^ 1, 1, 12), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(enter(id, 1, 13), ErrorCode::FetchSessionTopicIdError);
        sessions.enter(&request(id, -1, &[], &[]), 12, now).unwrap();
        assert_eq!(enter(id, 1, 12), ErrorCode::FetchSessionIdNotFound);
    }

    #[test]
    fn a_full_cache_evicts_only_what_was_idle_for_two_minutes() {
        let sessions = sessions(1);
        let open = |at| sessions.enter(&request(0, 0, &[(0, 0)], &[]), 12, MonotonicMs(at));
        let first = open(0).unwrap().session_id();
        assert_eq!(open(119_999).unwrap().session_id(), 0, "no session, but the fetch is served");
        let second = open(120_000).unwrap().session_id();
        assert!(second != 0 && second != first);
        assert_eq!(sessions.count(), 1);
        // Used meanwhile, it is not the one that the cache, asked in vain, expected to be free.
        assert_eq!(open(130_000).unwrap().session_id(), 0);
        sessions.enter(&request(second, 1, &[], &[]), 12, MonotonicMs(200_000)).unwrap();
        assert_eq!(open(240_000).unwrap().session_id(), 0);
        assert_eq!(open(319_999).unwrap().session_id(), 0);
        assert!(open(320_000).unwrap().session_id() != 0);
    }

    #[test]
    fn partitions_that_got_records_go_to_the_end_of_the_line() {
        let sessions = sessions(1);
        let now = MonotonicMs(0);
        let fetch = sessions.enter(&request(0, 0, &[(0, 0), (1, 0)], &[]), 12, now).unwrap();
        let told = Told { high_watermark: 7, log_start_offset: 0 };
        let topic = &TopicKey::Name("t".into());
        let noted = |partition| Noted { topic, partition, told, has_records: partition == 0 };
        fetch.session.as_ref().unwrap().note_told([noted(0), noted(1)].into_iter());
        let next = sessions.enter(&request(fetch.session_id(), 1, &[], &[]), 12, now).unwrap();
        assert_eq!(offsets(&next), [(1, 0), (0, 0)]);
        assert!(next.partitions.iter().all(|known| known.told == Some(told)));
        // What is told in another order is not mistaken for something else.
        let other = Told { high_watermark: 9, ..told };
        let late = [Noted { told: other, ..noted(0) }, noted(1)];
        fetch.session.as_ref().unwrap().note_told(late.into_iter());
        let last = sessions.enter(&request(fetch.session_id(), 2, &[], &[]), 12, now).unwrap();
        let told_of = |partition| {
            last.partitions.iter().find(|known| known.partition == partition).unwrap().told
        };
        assert_eq!((told_of(0), told_of(1)), (Some(other), Some(told)));
    }
}
