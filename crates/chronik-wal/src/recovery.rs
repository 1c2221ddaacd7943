//! From bytes on disk to logs: what a restart does before anything is served.
//!
//! 1. Each log scans its segments: sealed ones by their footer, open ones frame by frame.
//! 2. The lane's ring is walked in order and each record is offered to its log: frames that are
//!    missing in the segment are appended, cuts are carried out, states replace states.
//! 3. Each log compares its end with what is proven to have been durable. Less than that is
//!    damage and is reported, never cut away.
//!
//! Frames never overwrite: a record that does not continue the log exactly (next lsn, equal
//! chain) belongs to a history that a later truncation removed, and is skipped. Histories are
//! told apart by their generation, the number of truncations before them: a proof of an older
//! generation holds only below the cuts of the newer ones. Recovering twice gives the same log
//! as recovering once.
//!
//! What a killed process left in the page cache counts like everything else, so all that was
//! read is synced before the log is handed over. Frames that no earlier sync is known to cover
//! are written once more before that: the process may have died of a failed sync, after which
//! the kernel takes pages for clean that never reached the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chronik_common::{Lsn, Offset};
use chronik_record::BatchHeader;

use crate::envelope;
use crate::epoch_history::EpochHistory;
use crate::error::{DamageReason, Verdict, WalError};
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind, log_start_of};
use crate::invariants::{is_end_of, is_next_segment};
use crate::io::{Disk, DiskFile, DiskResult};
use crate::journal::{
    FLAG_STARTS_SEGMENT, JournalRecord, LogId, RecordKind, RingFacts, RingWalk, parse_records,
    unpack_segment_position, walk_ring,
};
use crate::layout::{OFFSET_INDEX, parse_segment_name, segment_name};
use crate::log_state::{HardStateRow, StateSnapshot, load_snapshot};
use crate::nonce::NonceSource;
use crate::offset_index::{OFFSET_INDEX_MAGIC, SegmentTable, SparseIndex};
use crate::partition_log::{LogIdentity, LogParts, SegmentState};
use crate::reader::{ScannedFrame, read_frame_at, scan_segment, scan_segment_from};
use crate::segment::{Segment, SegmentEnd, SegmentHeader};

/// Segment numbers in the journal keep this many bits.
const SEGMENT_NUMBER_MASK: u64 = (1 << 24) - 1;

/// Largest number a file is believed to have: the numbers behind it are never used up.
const SEGMENT_NUMBER_MAX: u64 = u64::MAX >> 1;

/// Bytes of frames that are written once more together.
const REWRITE_BYTES: u64 = 1 << 20;

/// What a journal record says about the segment of its frame.
#[derive(Clone, Copy)]
struct SegmentHint {
    starts_segment: bool,
    /// Low 16 bits of the segment's number.
    number: u16,
    /// Truncations of the log before the frame.
    generation: u32,
}

impl SegmentHint {
    /// The segment's number, which is at least `smallest`.
    fn number_from(self, smallest: u64) -> u64 {
        smallest.saturating_add(u64::from(self.number.wrapping_sub(smallest as u16)))
    }
}

/// What recovery did to one log, for the one line it prints per log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Bytes of frames verified in segments.
    pub bytes_scanned: u64,
    /// Frames taken over from the journal.
    pub frames_replayed: u64,
    /// Bytes behind the last valid frame of the open segment that were dropped.
    pub bytes_cut: u64,
}

/// One log being recovered.
pub(crate) struct LogRecovery {
    disk: Arc<dyn Disk>,
    nonces: NonceSource,
    directory: PathBuf,
    identity: LogIdentity,
    allocation_max: u64,
    segments: VecDeque<SegmentState>,
    /// Files with smaller numbers were trimmed.
    first_number: u64,
    /// True if the table of segments is damaged, so that the first file decides.
    must_find_begin: bool,
    /// Files behind a hole that the journal may fill.
    detached: VecDeque<Arc<Segment>>,
    /// Numbers of files that are none of the log's segments: their header page is unreadable or
    /// belongs elsewhere.
    unreadable: Vec<u64>,
    /// Larger than the number of any file in the directory.
    next_number: u64,
    next_lsn: Lsn,
    next_offset: Offset,
    /// `None` until the first frame of the log's files is known.
    last_chain: Option<u32>,
    log_start_offset: Offset,
    /// Exact in [`LogRecovery::known`] segments; of others only how they began.
    epochs: EpochHistory,
    /// Log starts in known segments, oldest first.
    log_starts: Vec<(Lsn, Offset)>,
    /// Numbers of the segments whose frames were all looked at by this start and need no second
    /// look.
    known: BTreeSet<u64>,
    generation: u32,
    /// Per generation, the last frame that is proven to have been durable in it.
    proofs: BTreeMap<u32, Lsn>,
    /// Per generation, the first frame removed by the truncation that began it.
    cuts: BTreeMap<u32, Lsn>,
    /// The first frame that should be in a segment and is not readable there.
    unreadable_frame: Option<Lsn>,
    /// Generation and last frame of the newest known sync.
    synced: (u32, Lsn),
    /// True if an earlier start found a hole in the journal.
    was_damaged: bool,
    state: Bytes,
    snapshot: Option<StateSnapshot>,
    report: RecoveryReport,
}

pub(crate) struct RecoveredParts {
    pub(crate) parts: LogParts,
    pub(crate) snapshot: Option<StateSnapshot>,
    pub(crate) report: RecoveryReport,
}

impl LogRecovery {
    /// Scans the files of one log.
    pub(crate) fn scan(
        disk: Arc<dyn Disk>,
        nonces: NonceSource,
        directory: PathBuf,
        identity: LogIdentity,
        allocation_max: u64,
        stored: Option<&HardStateRow>,
    ) -> Result<Self, WalError> {
        let mut log = Self {
            disk,
            nonces,
            directory,
            identity,
            allocation_max,
            segments: VecDeque::new(),
            first_number: 0,
            must_find_begin: false,
            detached: VecDeque::new(),
            unreadable: Vec::new(),
            next_number: 0,
            next_lsn: Lsn::FIRST,
            next_offset: Offset::ZERO,
            last_chain: Some(0),
            log_start_offset: Offset::ZERO,
            epochs: EpochHistory::default(),
            log_starts: Vec::new(),
            known: BTreeSet::new(),
            generation: 0,
            proofs: BTreeMap::new(),
            cuts: BTreeMap::new(),
            unreadable_frame: None,
            synced: stored.map_or((0, Lsn::ZERO), |row| (row.generation, Lsn(row.synced_lsn))),
            was_damaged: stored.is_some_and(|row| row.is_damaged),
            state: stored.map_or_else(Bytes::new, |row| row.state.clone()),
            snapshot: None,
            report: RecoveryReport::default(),
        };
        if let Some(row) = stored {
            log.prove(row.generation, Lsn(row.synced_lsn));
        }
        // What is read below must not go back to an older state in a power cut later on.
        log.disk.sync_directory(&log.directory)?;
        log.prove_by_table()?;
        for number in log.segment_numbers()? {
            log.next_number = number.saturating_add(1);
            log.scan_one(number)?;
        }
        Ok(log)
    }

    /// Notes that all frames up to `last` were durable in `generation`.
    fn prove(&mut self, generation: u32, last: Lsn) {
        self.generation = self.generation.max(generation);
        let proof = self.proofs.entry(generation).or_default();
        *proof = last.max(*proof);
    }

    /// Notes that `generation` began with the removal of all frames from `first` on.
    fn note_cut(&mut self, generation: u32, first: Lsn) {
        self.generation = self.generation.max(generation);
        let cut = self.cuts.entry(generation).or_insert(first);
        *cut = first.min(*cut);
    }

    /// The last frame that must be there.
    fn proven(&self) -> Lsn {
        let left = |(generation, last): (&u32, &Lsn)| {
            let newer = self.cuts.range((Bound::Excluded(*generation), Bound::Unbounded));
            newer.map(|(_, first)| first.previous()).fold(*last, Lsn::min)
        };
        self.proofs.iter().map(left).max().unwrap_or(Lsn::ZERO)
    }

    fn segment_numbers(&self) -> Result<Vec<u64>, WalError> {
        let listing = self.disk.list(&self.directory)?;
        let mut numbers: Vec<u64> =
            listing.iter().filter_map(|entry| parse_segment_name(&entry.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The table of segments proves that sealed segments existed, should a file be missing. A
    /// damaged table proves nothing and is written anew.
    ///
    /// It also says where the log's files begin: files below its first row were trimmed, and a
    /// first file above it means that the ones before are still only in the journal.
    fn prove_by_table(&mut self) -> Result<(), WalError> {
        let path = self.directory.join(OFFSET_INDEX);
        match envelope::load::<SegmentTable>(&*self.disk, &path, OFFSET_INDEX_MAGIC) {
            Ok(Some(table)) => {
                let sealed = table.rows.iter().filter(|row| row.is_sealed);
                let last = Lsn(sealed.map(|row| row.last_lsn).max().unwrap_or(0));
                // A table from before the last truncation may list what that removed.
                if table.generation >= self.generation {
                    self.prove(table.generation, last);
                }
                if let Some(first) = table.rows.first() {
                    self.first_number = first.number.min(SEGMENT_NUMBER_MAX);
                    self.begin_at(Lsn(first.first_lsn.max(1)), Offset(first.first_offset.max(0)));
                }
            }
            Ok(None) => {}
            Err(WalError::Damaged { .. }) => self.must_find_begin = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.directory.join(segment_name(number))
    }

    /// Scans segment `number` and attaches it where it continues the log.
    fn scan_one(&mut self, number: u64) -> Result<(), WalError> {
        let opened =
            Segment::open(Arc::clone(&self.disk), self.path_of(number), self.allocation_max);
        let segment = match opened {
            Ok(segment) => Arc::new(segment),
            Err(WalError::Damaged { .. }) => {
                self.unreadable.push(number);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let header = segment.header;
        if header.topic_id != self.identity.topic_id || header.partition != self.identity.partition
        {
            return Err(WalError::ForeignDirectory(self.directory.display().to_string()));
        }
        if header.number != number || number > SEGMENT_NUMBER_MAX {
            self.unreadable.push(number);
            return Ok(());
        }
        if number < self.first_number {
            return Ok(segment.remove()?);
        }
        if std::mem::take(&mut self.must_find_begin) {
            self.begin_at(header.first_lsn, header.first_offset);
        }
        if !self.detached.is_empty() || !self.is_continued_by(&header)? {
            self.detached.push_back(segment);
            return Ok(());
        }
        if header.first_lsn < self.next_lsn {
            // Only a truncation begins a file before the end of the one before it.
            let newest = self.segments.back().map(|last| last.segment.header.generation);
            if newest.is_none_or(|newest| header.generation <= newest) {
                self.unreadable.push(number);
                return Ok(());
            }
            self.cut(header.first_lsn)?;
            // Frames before it that are unreadable leave a hole.
            if header.first_lsn != self.next_lsn || !self.is_continued_by(&header)? {
                self.detached.push_back(segment);
                return Ok(());
            }
        }
        self.attach(segment)
    }

    /// True if the log, up to where the segment starts, is the history the segment continues.
    fn is_continued_by(&self, segment: &SegmentHeader) -> Result<bool, WalError> {
        if segment.first_lsn > self.next_lsn {
            return Ok(false);
        }
        if segment.first_lsn == self.next_lsn {
            return Ok(match self.segments.back() {
                Some(last) => is_next_segment(&last.segment.header, &last.end, segment),
                None => {
                    let has_chain = self.last_chain.is_none_or(|chain| chain == segment.prev_chain);
                    has_chain && segment.first_offset == self.next_offset
                }
            });
        }
        let chain = self.chain_behind(segment.first_lsn.previous())?;
        Ok(chain == Some(segment.prev_chain))
    }

    fn begin_at(&mut self, first_lsn: Lsn, first_offset: Offset) {
        self.next_lsn = first_lsn;
        self.next_offset = first_offset;
        self.log_start_offset = first_offset;
        self.last_chain = (first_lsn == Lsn::FIRST).then_some(0);
    }

    /// Adds a segment that starts where the log ends, with whatever frames it holds.
    fn attach(&mut self, segment: Arc<Segment>) -> Result<(), WalError> {
        let header = segment.header;
        assert_eq!(header.first_lsn, self.next_lsn, "a segment is attached where the log ends");
        if let Some(last) = self.segments.back() {
            assert!(
                is_next_segment(&last.segment.header, &last.end, &header),
                "{header:?} is attached behind {:?} of {:?}",
                last.end,
                last.segment.header
            );
        }
        self.note_cut(header.generation, header.first_lsn);
        match segment.read_footer() {
            Ok((footer, _))
                if footer.last_lsn >= header.first_lsn && is_end_of(&header, &footer.end()) =>
            {
                let end = footer.end();
                self.prove(header.generation, end.last_lsn);
                // Epochs that began inside are found when the snapshot is completed.
                let (first_lsn, first_offset) = (header.first_lsn, header.first_offset);
                let _ = self.epochs.note_read(header.epoch, first_lsn, first_offset);
                self.next_lsn = end.last_lsn.next();
                self.next_offset = end.next_offset;
                self.last_chain = Some(end.last_chain);
                self.segments.push_back(SegmentState {
                    segment,
                    end,
                    is_sealed: true,
                    index: SparseIndex::default(),
                    needs_sync: false,
                });
                return Ok(());
            }
            Ok(_) | Err(WalError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut state = SegmentState {
            end: SegmentEnd::empty(&header),
            segment: Arc::clone(&segment),
            is_sealed: false,
            index: SparseIndex::default(),
            needs_sync: true,
        };
        let synced = if header.generation <= self.synced.0 { self.synced.1 } else { Lsn::ZERO };
        if header.first_lsn > synced {
            segment.rewrite_header()?;
        }
        let (epochs, log_starts) = (&mut self.epochs, &mut self.log_starts);
        let mut accepted = 0;
        let mut rewriter = Rewriter::new(&segment);
        let mut failure = None;
        scan_segment(&segment, segment.file_length()?, |frame| {
            let header = &frame.header;
            if !epochs.note_read(header.epoch, header.lsn, header.base_offset) {
                return false;
            }
            if header.lsn > synced
                && let Err(error) = rewriter.add(frame)
            {
                failure = Some(error);
                return false;
            }
            note_frame(&mut state, header, frame.position, max_timestamp(frame));
            log_starts.extend(log_start_of(header, frame.body).map(|start| (header.lsn, start)));
            accepted += header.size();
            true
        })?;
        failure.map_or_else(|| rewriter.flush(), Err)?;
        self.report.bytes_scanned += accepted;
        self.known.insert(header.number);
        self.next_lsn = state.end.last_lsn.next();
        self.next_offset = state.end.next_offset;
        self.last_chain = Some(state.end.last_chain);
        self.segments.push_back(state);
        Ok(())
    }

    /// Offers one journal record to the log.
    pub(crate) fn apply(&mut self, record: &JournalRecord<'_>) -> Result<(), WalError> {
        let starts_segment = record.header.flags & FLAG_STARTS_SEGMENT != 0;
        let segment = SegmentHint {
            starts_segment,
            number: record.header.segment,
            generation: record.header.generation,
        };
        match record.header.kind {
            RecordKind::Frame | RecordKind::SegmentRef => {
                // The journal is written in order: with this record all frames before it were
                // durable too.
                self.prove(record.header.generation, record.header.lsn);
                let Some((header, body)) = split_frame(record.body) else { return Ok(()) };
                if self.is_superseded(record.header.generation) {
                    return Ok(());
                }
                match record.header.kind {
                    RecordKind::Frame => self.replay_frame(&header, body, segment),
                    _ => self.replay_reference(&header, record.header.aux, segment),
                }
            }
            RecordKind::Truncated => self.replay_cut(record.header.lsn, record.header.generation),
            RecordKind::LogState => {
                self.state = Bytes::copy_from_slice(record.body);
                Ok(())
            }
        }
    }

    /// True for frames of a history that ended before the last segment began: what of them was
    /// not removed is in the segments before it.
    fn is_superseded(&self, generation: u32) -> bool {
        self.segments.back().is_some_and(|last| generation < last.segment.header.generation)
    }

    fn continues(&self, header: &FrameHeader) -> bool {
        header.lsn == self.next_lsn
            && self.last_chain.is_none_or(|chain| chain == header.prev_chain)
            && header.base_offset == self.next_offset
            && self.epochs.last_epoch().is_none_or(|last| last <= header.epoch)
    }

    fn replay_frame(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
        hint: SegmentHint,
    ) -> Result<(), WalError> {
        if !self.continues(header) || !header.matches_body(body) {
            return Ok(());
        }
        self.open_segment_for(header, hint)?;
        // Attaching a file behind a hole may have brought the frame along.
        if !self.continues(header) {
            return Ok(());
        }
        let body = Bytes::copy_from_slice(body);
        let state = self.segments.back_mut().expect("a segment was opened for the frame");
        let position = state.end.position;
        state.segment.write_frames(position, std::iter::once((header, &body)))?;
        state.needs_sync = true;
        note_frame(state, header, position, batch_max_timestamp(header, &body));
        self.note_replayed(header, &body);
        Ok(())
    }

    /// A frame that was written to its segment before the journal group was.
    fn replay_reference(
        &mut self,
        header: &FrameHeader,
        aux: u64,
        hint: SegmentHint,
    ) -> Result<(), WalError> {
        if header.lsn < self.next_lsn {
            return Ok(());
        }
        if self.continues(header) {
            self.open_segment_for(header, hint)?;
        }
        if self.continues(header) {
            let (number, position) = unpack_segment_position(aux);
            let state = self.segments.back_mut().expect("a segment was opened for the frame");
            let is_there = state.segment.header.number & SEGMENT_NUMBER_MASK == number
                && state.end.position == position;
            if is_there && let Some(body) = read_frame_at(&state.segment, position, header)? {
                note_frame(state, header, position, batch_max_timestamp(header, &body));
                self.note_replayed(header, &body);
                return Ok(());
            }
        }
        Ok(())
    }

    fn note_replayed(&mut self, header: &FrameHeader, body: &[u8]) {
        let fits = self.epochs.note_read(header.epoch, header.lsn, header.base_offset);
        assert!(fits, "a frame that continues the log continues its epochs: {header:?}");
        self.next_lsn = header.lsn.next();
        self.next_offset = header.next_offset();
        self.last_chain = Some(header.chain());
        self.log_starts.extend(log_start_of(header, body).map(|start| (header.lsn, start)));
        self.report.frames_replayed += 1;
    }

    /// Makes sure the last segment is the one the frame was meant for.
    fn open_segment_for(
        &mut self,
        header: &FrameHeader,
        hint: SegmentHint,
    ) -> Result<(), WalError> {
        let is_at_start = self
            .segments
            .back()
            .is_some_and(|state| !state.is_sealed && state.segment.header.first_lsn == header.lsn);
        let must_roll = match self.segments.back() {
            None => true,
            Some(state) => state.is_sealed || (hint.starts_segment && !is_at_start),
        };
        if !must_roll {
            return Ok(());
        }
        let smallest = self.segments.back().map_or(self.first_number, |last| after(&last.segment));
        let number = hint.number_from(smallest);
        let generation = self.segments.back().map_or(0, |last| last.segment.header.generation);
        let is_next = |segment: &Arc<Segment>| {
            segment.header.number == number
                && segment.header.first_lsn == header.lsn
                && segment.header.prev_chain == header.prev_chain
                && segment.header.first_offset == header.base_offset
                && segment.header.generation >= generation
        };
        if self.detached.front().is_some_and(is_next) {
            let segment = self.detached.pop_front().expect("just seen");
            return self.attach(segment);
        }
        let segment_header = SegmentHeader {
            topic_id: self.identity.topic_id,
            partition: self.identity.partition,
            number,
            first_lsn: header.lsn,
            first_offset: header.base_offset,
            epoch: header.epoch,
            generation: hint.generation,
            prev_chain: header.prev_chain,
            nonce: self.nonces.next(),
        };
        if let Some(last) = self.segments.back() {
            assert!(
                is_next_segment(&last.segment.header, &last.end, &segment_header),
                "{segment_header:?} is begun behind {:?} of {:?}",
                last.end,
                last.segment.header
            );
        }
        let segment = Segment::new(
            Arc::clone(&self.disk),
            &self.directory,
            segment_header,
            self.allocation_max,
        );
        self.detached.retain(|other| other.header.number != number);
        self.unreadable.retain(|other| *other != number);
        self.next_number = self.next_number.max(number.saturating_add(1));
        self.known.insert(number);
        self.segments.push_back(SegmentState {
            segment: Arc::new(segment),
            end: SegmentEnd::empty(&segment_header),
            is_sealed: false,
            index: SparseIndex::default(),
            needs_sync: true,
        });
        Ok(())
    }

    /// A truncation: already carried out if the log goes on in a file that was begun after it.
    fn replay_cut(&mut self, lsn: Lsn, generation: u32) -> Result<(), WalError> {
        self.note_cut(generation, lsn);
        let is_newer = |segment: &Segment| segment.header.generation >= generation;
        if self.segments.iter().any(|state| is_newer(&state.segment)) {
            return Ok(());
        }
        let is_removed = |segment: &Segment| !is_newer(segment) && segment.header.first_lsn >= lsn;
        for segment in self.detached.iter().filter(|segment| is_removed(segment)) {
            segment.remove()?;
        }
        self.detached.retain(|segment| !is_removed(segment));
        if lsn < self.next_lsn {
            self.cut(lsn)?;
        }
        self.attach_detached()
    }

    /// Attaches files behind a hole that is none any more.
    fn attach_detached(&mut self) -> Result<(), WalError> {
        while let Some(segment) = self.detached.front() {
            let header = segment.header;
            if header.first_lsn != self.next_lsn || !self.is_continued_by(&header)? {
                break;
            }
            let segment = self.detached.pop_front().expect("just seen");
            self.attach(segment)?;
        }
        Ok(())
    }

    /// Drops frames from `lsn` on.
    fn cut(&mut self, lsn: Lsn) -> Result<(), WalError> {
        assert!(lsn < self.next_lsn, "{lsn:?} lies behind the end, {:?}", self.next_lsn);
        let mut begin = None;
        while self.segments.back().is_some_and(|state| state.segment.header.first_lsn >= lsn) {
            let state = self.segments.pop_back().expect("just seen");
            begin = Some(state.segment.header);
            state.segment.remove()?;
        }
        self.epochs.truncate(lsn);
        self.log_starts.retain(|(at, _)| *at < lsn);
        let Some(state) = self.segments.back_mut() else {
            if let Some(begin) = begin {
                self.next_lsn = begin.first_lsn;
                self.next_offset = begin.first_offset;
                self.last_chain = Some(begin.prev_chain);
            }
            return Ok(());
        };
        // A sealed segment was not looked at frame by frame.
        if state.is_sealed {
            self.known.remove(&state.segment.header.number);
        }
        let old_end = state.end.position;
        state.end = SegmentEnd::empty(&state.segment.header);
        state.index = SparseIndex::default();
        state.is_sealed = false;
        let segment = Arc::clone(&state.segment);
        let reached = scan_segment(&segment, old_end, |frame| {
            if frame.header.lsn >= lsn {
                return false;
            }
            note_frame(state, &frame.header, frame.position, max_timestamp(frame));
            true
        })?;
        if reached.damage.is_some() && state.end.last_lsn.next() < lsn {
            // Frames that must stay are unreadable: nothing is cut, the log is reported.
            self.unreadable_frame.get_or_insert(state.end.last_lsn.next());
        } else {
            state.segment.cut(state.end.position)?;
            state.needs_sync = true;
        }
        self.next_lsn = state.end.last_lsn.next();
        self.next_offset = state.end.next_offset;
        self.last_chain = Some(state.end.last_chain);
        Ok(())
    }

    /// Ends the recovery: judges the log, loads its snapshot, makes everything durable.
    pub(crate) fn finish(mut self, is_journal_damaged: bool) -> Result<RecoveredParts, WalError> {
        self.attach_detached()?;
        let end = self.next_lsn.previous();
        self.load_snapshot(end)?;
        if self.log_start_offset > self.next_offset {
            // Bytes that verify and contradict each other: nothing is readable, nothing may follow.
            self.log_start_offset = self.next_offset;
            self.unreadable_frame.get_or_insert(self.next_lsn);
        }
        let proven = self.proven();
        let verdict = if proven > end {
            Verdict::LostTail { end, proven_end: proven }
        } else if let Some(first) = self.unreadable_frame {
            Verdict::DamagedRange { first }
        } else if is_journal_damaged || self.was_damaged {
            Verdict::JournalDamaged
        } else {
            Verdict::Ok
        };
        if verdict == Verdict::Ok {
            self.drop_leftovers()?;
        }
        for state in self.segments.iter_mut().filter(|state| state.needs_sync) {
            state.segment.sync()?;
            state.needs_sync = false;
        }
        self.disk.sync_directory(&self.directory)?;
        let next_segment_number = self.segments.back().map_or(0, |last| after(&last.segment));
        let parts = LogParts {
            identity: self.identity,
            directory: self.directory,
            generation: self.generation,
            segments: self.segments,
            next_segment_number: next_segment_number.max(self.next_number),
            next_lsn: self.next_lsn,
            log_end_offset: self.next_offset,
            last_chain: self.last_chain.unwrap_or(0),
            log_start_offset: self.log_start_offset,
            epochs: self.epochs,
            state: self.state,
            proven_lsn: proven,
            verdict,
        };
        Ok(RecoveredParts { parts, snapshot: self.snapshot, report: self.report })
    }

    /// Removes what lies behind the end of an undamaged log: it was never acknowledged.
    fn drop_leftovers(&mut self) -> Result<(), WalError> {
        for segment in self.detached.drain(..) {
            segment.remove()?;
        }
        for number in self.unreadable.drain(..) {
            self.disk.remove_file(&self.directory.join(segment_name(number)))?;
        }
        let Some(state) = self.segments.back().filter(|state| !state.is_sealed) else {
            return Ok(());
        };
        let mut behind = [0; 4_096];
        let read = state.segment.read_at(state.end.position, &mut behind)?;
        if behind[..read].iter().any(|byte| *byte != 0) {
            self.report.bytes_cut = state.segment.file_length()? - state.end.position;
            state.segment.cut(state.end.position)?;
        }
        Ok(())
    }

    /// Loads the newest snapshot of this history and completes epochs and log start from it.
    fn load_snapshot(&mut self, end: Lsn) -> Result<(), WalError> {
        let mut failure = None;
        self.snapshot = load_snapshot(&*self.disk, &self.directory, |snapshot| {
            let chain = self.chain_behind(snapshot.at());
            let chain = chain.unwrap_or_else(|error| {
                failure = Some(error);
                None
            });
            snapshot.at() <= end
                && snapshot.next_offset <= self.next_offset.0
                && chain == Some(snapshot.chain)
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let known = std::mem::take(&mut self.epochs);
        let from = match &self.snapshot {
            Some(snapshot) => {
                self.log_start_offset =
                    self.log_start_offset.max(Offset(snapshot.log_start_offset));
                self.epochs = snapshot.epoch_history();
                snapshot.at().next()
            }
            None => Lsn::FIRST,
        };
        let mut unreadable = None;
        for state in &self.segments {
            if state.end.last_lsn < from {
                continue;
            }
            let number = state.segment.header.number;
            if self.known.contains(&number) && adopt(&mut self.epochs, &known, state, from) {
                let in_segment = from.max(state.segment.header.first_lsn)..=state.end.last_lsn;
                let starts = self.log_starts.iter().filter(|(lsn, _)| in_segment.contains(lsn));
                let start = starts.map(|(_, start)| *start).max();
                self.log_start_offset = self.log_start_offset.max(start.unwrap_or(Offset::ZERO));
                continue;
            }
            let (epochs, start) = (&mut self.epochs, &mut self.log_start_offset);
            let mut read = state.segment.header.first_lsn.previous();
            scan_segment(&state.segment, state.end.position, |frame| {
                let header = &frame.header;
                if header.lsn >= from {
                    if !epochs.note_read(header.epoch, header.lsn, header.base_offset) {
                        return false;
                    }
                    if let Some(offset) = log_start_of(header, frame.body) {
                        *start = offset.max(*start);
                    }
                }
                read = header.lsn;
                true
            })?;
            if read < state.end.last_lsn {
                unreadable = unreadable.or(Some(read.next()));
            }
        }
        self.unreadable_frame = self.unreadable_frame.or(unreadable);
        Ok(())
    }

    /// Chain value of the log behind `lsn`; `None` where the log has no readable frame.
    fn chain_behind(&self, lsn: Lsn) -> Result<Option<u32>, WalError> {
        if lsn == Lsn::ZERO {
            return Ok(Some(0));
        }
        let begins_before = |state: &SegmentState| state.segment.header.first_lsn <= lsn.next();
        let Some(state) = self.segments.iter().rev().find(|state| begins_before(state)) else {
            return Ok(None);
        };
        let header = &state.segment.header;
        if header.first_lsn == lsn.next() {
            return Ok(Some(header.prev_chain));
        }
        if state.end.last_lsn == lsn {
            return Ok(Some(state.end.last_chain));
        }
        let mut chain = None;
        // What this start has looked at is not looked at once more: only the frame is.
        let is_known = self.known.contains(&header.number);
        let begin = state.index.entry_before(lsn).filter(|_| is_known);
        let behind = state.index.entry_behind(lsn).filter(|_| is_known);
        let end = behind.map_or(state.end.position, |entry| u64::from(entry.position));
        scan_segment_from(&state.segment, begin, end, |frame| {
            chain = Some(frame.header.chain()).filter(|_| frame.header.lsn == lsn);
            chain.is_none()
        })?;
        Ok(chain)
    }
}

/// Takes the epochs of a segment from `from` on out of what is known of it; `false`, taking
/// nothing, if that does not continue `epochs`.
fn adopt(epochs: &mut EpochHistory, known: &EpochHistory, state: &SegmentState, from: Lsn) -> bool {
    let header = &state.segment.header;
    let first = from.max(header.first_lsn);
    if first > state.end.last_lsn {
        return true;
    }
    let mut adopted = epochs.clone();
    let Some(epoch) = known.epoch_of(first) else { return false };
    let is_known = if first == header.first_lsn {
        adopted.note_read(epoch, first, header.first_offset)
    } else {
        adopted.last_epoch() == Some(epoch) || known.rows().iter().any(|row| row.first_lsn == first)
    };
    let in_segment = first..=state.end.last_lsn;
    let mut rows = known.rows().iter().filter(|row| in_segment.contains(&row.first_lsn));
    let fits =
        is_known && rows.all(|row| adopted.note_read(row.epoch, row.first_lsn, row.first_offset));
    if fits {
        *epochs = adopted;
    }
    fits
}

/// Writes frames to where they are, many at a time.
struct Rewriter<'a> {
    segment: &'a Segment,
    frames: Vec<(FrameHeader, Bytes)>,
    /// Where the first of them lies, and their bytes.
    position: u64,
    bytes: u64,
}

impl<'a> Rewriter<'a> {
    fn new(segment: &'a Segment) -> Self {
        Self { segment, frames: Vec::new(), position: 0, bytes: 0 }
    }

    /// Takes the frame behind the one before it.
    fn add(&mut self, frame: &ScannedFrame<'_>) -> DiskResult<()> {
        if self.frames.is_empty() {
            self.position = frame.position;
        }
        self.frames.push((frame.header, Bytes::copy_from_slice(frame.body)));
        self.bytes += frame.header.size();
        if self.bytes < REWRITE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> DiskResult<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let frames = self.frames.iter().map(|(header, body)| (header, body));
        self.segment.write_frames(self.position, frames)?;
        self.frames.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// The number of the segment that follows.
fn after(segment: &Segment) -> u64 {
    segment.header.number.saturating_add(1)
}

fn note_frame(state: &mut SegmentState, header: &FrameHeader, position: u64, max_timestamp: i64) {
    let relative = (header.base_offset.0 - state.segment.header.first_offset.0).max(0) as u64;
    state.index.note(header.lsn, relative, position, state.end.max_timestamp);
    state.end = SegmentEnd {
        last_lsn: header.lsn,
        last_chain: header.chain(),
        next_offset: header.next_offset(),
        max_timestamp: state.end.max_timestamp.max(max_timestamp),
        position: position + header.size(),
    };
}

fn max_timestamp(frame: &ScannedFrame<'_>) -> i64 {
    batch_max_timestamp(&frame.header, frame.body)
}

fn batch_max_timestamp(header: &FrameHeader, body: &[u8]) -> i64 {
    if header.kind != FrameKind::Data {
        return -1;
    }
    BatchHeader::parse(body).map_or(-1, |batch| batch.max_timestamp)
}

fn split_frame(body: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let (header, rest) = body.split_first_chunk::<FRAME_HEADER_SIZE>()?;
    let (header, nonce) = FrameHeader::decode(header).ok()?;
    (nonce == 0).then_some((header, rest))
}

/// Walks a lane's ring and offers every record to its log. Records of logs that are gone (their
/// topic was deleted) are skipped.
///
/// # Errors
/// A failed disk call, or a group that validates and cannot be parsed: another release wrote it.
pub(crate) fn replay_ring(
    files: &[Arc<dyn DiskFile>],
    facts: RingFacts,
    logs: &mut BTreeMap<LogId, LogRecovery>,
) -> Result<RingWalk, WalError> {
    walk_ring(files, facts, |header, payload| {
        let Some(records) = parse_records(payload, header.record_count) else {
            return Err(WalError::Damaged {
                file: files[0].path().display().to_string(),
                position: 0,
                reason: DamageReason::Kind,
            });
        };
        for record in &records {
            if let Some(log) = logs.get_mut(&record.header.log) {
                log.apply(record)?;
            }
        }
        Ok(())
    })
}
