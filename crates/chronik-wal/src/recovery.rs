//! From bytes on disk to logs: what a restart does before anything is served.
//!
//! 1. Each log scans its segments: sealed ones by their footer, open ones frame by frame.
//! 2. The lane's ring is walked in order and each record is offered to its log: frames that are
//!    missing in the segment are appended, cuts are carried out, states replace states.
//! 3. Each log compares its end with what is proven to have been durable. Less than that is
//!    damage and is reported, never cut away.
//!
//! Frames never overwrite: a record that does not continue the log exactly (next lsn, equal
//! chain) belongs to a history that a later truncation removed, and is skipped. Recovering twice
//! gives the same log as recovering once.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chronik_common::{Lsn, Offset};
use chronik_record::BatchHeader;

use crate::envelope;
use crate::epoch_history::EpochHistory;
use crate::error::{Verdict, WalError};
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};
use crate::io::{Disk, DiskFile};
use crate::journal::{
    FLAG_STARTS_SEGMENT, JournalRecord, LogId, RecordKind, RingWalk, parse_records,
    unpack_segment_position, walk_ring,
};
use crate::layout::{OFFSET_INDEX, parse_segment_name, segment_name};
use crate::log_state::{HardStateRow, StateSnapshot, load_snapshot};
use crate::nonce::NonceSource;
use crate::offset_index::{OFFSET_INDEX_MAGIC, SegmentTable, SparseIndex};
use crate::partition_log::{LogIdentity, LogParts, SegmentState};
use crate::reader::{ScannedFrame, read_frame_at, scan_segment};
use crate::segment::{SEGMENT_HEADER_SIZE, Segment, SegmentEnd, SegmentHeader};

/// Segment numbers in the journal keep this many bits.
const SEGMENT_NUMBER_MASK: u64 = (1 << 24) - 1;

/// What a journal record says about the segment of its frame.
#[derive(Clone, Copy)]
struct SegmentHint {
    starts_segment: bool,
    /// Low 16 bits of the segment's number.
    number: u16,
}

impl SegmentHint {
    /// The segment's number, which is at least `smallest`.
    fn number_from(self, smallest: u64) -> u64 {
        smallest + u64::from(self.number.wrapping_sub(smallest as u16))
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
    /// Numbers of files whose header page is unreadable.
    unreadable: Vec<u64>,
    next_lsn: Lsn,
    next_offset: Offset,
    /// `None` until the first frame of the log's files is known.
    last_chain: Option<u32>,
    log_start_offset: Offset,
    epochs: EpochHistory,
    generation: u32,
    proven: Lsn,
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
            next_lsn: Lsn::FIRST,
            next_offset: Offset::ZERO,
            last_chain: Some(0),
            log_start_offset: Offset::ZERO,
            epochs: EpochHistory::default(),
            generation: 0,
            proven: Lsn(stored.map_or(0, |row| row.synced_lsn)),
            state: stored.map_or_else(Bytes::new, |row| row.state.clone()),
            snapshot: None,
            report: RecoveryReport::default(),
        };
        log.prove_by_table()?;
        for number in log.segment_numbers()? {
            if !log.scan_one(number)? {
                break;
            }
        }
        Ok(log)
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
                self.proven = self.proven.max(last);
                if let Some(first) = table.rows.first() {
                    self.first_number = first.number;
                    self.begin_at(Lsn(first.first_lsn), Offset(first.first_offset));
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

    /// Scans segment `number`; `false` when nothing behind it can be attached.
    fn scan_one(&mut self, number: u64) -> Result<bool, WalError> {
        let opened =
            Segment::open(Arc::clone(&self.disk), self.path_of(number), self.allocation_max);
        let segment = match opened {
            Ok(segment) => Arc::new(segment),
            Err(WalError::Damaged { .. }) => {
                self.unreadable.push(number);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let header = segment.header;
        if header.topic_id != self.identity.topic_id || header.partition != self.identity.partition
        {
            return Err(WalError::ForeignDirectory(self.directory.display().to_string()));
        }
        if header.number < self.first_number {
            segment.remove()?;
            return Ok(true);
        }
        if std::mem::take(&mut self.must_find_begin) {
            self.begin_at(header.first_lsn, header.first_offset);
        }
        if header.first_lsn > self.next_lsn || !self.detached.is_empty() {
            self.detached.push_back(segment);
            return Ok(true);
        }
        if header.first_lsn < self.next_lsn {
            self.cut(header.first_lsn)?;
        }
        self.attach(segment)?;
        Ok(true)
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
        self.generation = self.generation.max(header.generation);
        match segment.read_footer() {
            Ok((footer, _)) if footer.last_lsn >= header.first_lsn => {
                let end = footer.end();
                self.epochs_of_segment(&header);
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
            end: SegmentEnd {
                last_lsn: header.first_lsn.previous(),
                last_chain: self.last_chain.unwrap_or(0),
                next_offset: header.first_offset,
                max_timestamp: -1,
                position: SEGMENT_HEADER_SIZE,
            },
            segment: Arc::clone(&segment),
            is_sealed: false,
            index: SparseIndex::default(),
            needs_sync: false,
        };
        let expected_chain = self.last_chain;
        let epochs = &mut self.epochs;
        let mut accepted = 0;
        scan_segment(&segment, segment.file_length()?, None, |frame| {
            let is_first = frame.header.lsn == header.first_lsn;
            let breaks_chain =
                is_first && expected_chain.is_some_and(|chain| chain != frame.header.prev_chain);
            let breaks_epoch = epochs.last_epoch().is_some_and(|last| frame.header.epoch < last);
            if breaks_chain || breaks_epoch {
                return false;
            }
            epochs.note(frame.header.epoch, frame.header.lsn, frame.header.base_offset);
            note_frame(&mut state, &frame.header, frame.position, max_timestamp(frame));
            accepted += frame.header.size();
            true
        })?;
        self.report.bytes_scanned += accepted;
        self.next_lsn = state.end.last_lsn.next();
        self.next_offset = state.end.next_offset;
        if state.end.position > SEGMENT_HEADER_SIZE {
            self.last_chain = Some(state.end.last_chain);
        }
        self.segments.push_back(state);
        Ok(())
    }

    fn epochs_of_segment(&mut self, header: &SegmentHeader) {
        if self.epochs.last_epoch().is_none_or(|last| header.epoch > last) {
            self.epochs.note(header.epoch, header.first_lsn, header.first_offset);
        }
    }

    /// Offers one journal record to the log.
    pub(crate) fn apply(&mut self, record: &JournalRecord<'_>) -> Result<(), WalError> {
        let starts_segment = record.header.flags & FLAG_STARTS_SEGMENT != 0;
        let segment = SegmentHint { starts_segment, number: record.header.segment };
        match record.header.kind {
            RecordKind::Frame => {
                self.proven = self.proven.max(Lsn(record.header.aux));
                let Some((header, body)) = split_frame(record.body) else { return Ok(()) };
                self.replay_frame(&header, body, segment)
            }
            RecordKind::SegmentRef => {
                let Some((header, _)) = split_frame(record.body) else { return Ok(()) };
                self.replay_reference(&header, record.header.aux, segment)
            }
            RecordKind::Truncated => self.replay_cut(record.header.lsn, record.header.generation),
            RecordKind::LogState => {
                self.state = Bytes::copy_from_slice(record.body);
                Ok(())
            }
        }
    }

    fn continues(&self, header: &FrameHeader) -> bool {
        header.lsn == self.next_lsn
            && self.last_chain.is_none_or(|chain| chain == header.prev_chain)
            && header.base_offset == self.next_offset
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
        self.note_replayed(header);
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
                self.note_replayed(header);
                return Ok(());
            }
            // The group was durable, so the frame was too: without its bytes it is lost.
            self.proven = self.proven.max(header.lsn);
        }
        Ok(())
    }

    fn note_replayed(&mut self, header: &FrameHeader) {
        if self.epochs.last_epoch().is_none_or(|last| header.epoch > last) {
            self.epochs.note(header.epoch, header.lsn, header.base_offset);
        }
        self.next_lsn = header.lsn.next();
        self.next_offset = header.next_offset();
        self.last_chain = Some(header.chain());
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
        let smallest =
            self.segments.back().map_or(self.first_number, |last| last.segment.header.number + 1);
        let number = hint.number_from(smallest);
        let is_next = |segment: &Arc<Segment>| {
            segment.header.number == number && segment.header.first_lsn == header.lsn
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
            generation: self.generation,
            nonce: self.nonces.next(),
        };
        let segment = Segment::new(
            Arc::clone(&self.disk),
            &self.directory,
            segment_header,
            self.allocation_max,
        );
        self.detached.retain(|other| other.header.number != number);
        self.unreadable.retain(|other| *other != number);
        self.segments.push_back(SegmentState {
            segment: Arc::new(segment),
            end: SegmentEnd {
                last_lsn: header.lsn.previous(),
                last_chain: header.prev_chain,
                next_offset: header.base_offset,
                max_timestamp: -1,
                position: SEGMENT_HEADER_SIZE,
            },
            is_sealed: false,
            index: SparseIndex::default(),
            needs_sync: true,
        });
        Ok(())
    }

    /// A truncation: already carried out if the log goes on in a file that was begun after it.
    fn replay_cut(&mut self, lsn: Lsn, generation: u32) -> Result<(), WalError> {
        self.proven = self.proven.min(lsn.previous());
        self.generation = self.generation.max(generation);
        let is_newer = |segment: &Segment| segment.header.generation >= generation;
        if self.segments.iter().any(|state| is_newer(&state.segment)) {
            return Ok(());
        }
        for segment in self.detached.iter().filter(|segment| !is_newer(segment)) {
            segment.remove()?;
        }
        self.detached.retain(|segment| is_newer(segment));
        if lsn < self.next_lsn { self.cut(lsn) } else { Ok(()) }
    }

    /// Drops frames from `lsn` on.
    fn cut(&mut self, lsn: Lsn) -> Result<(), WalError> {
        while self.segments.back().is_some_and(|state| state.segment.header.first_lsn >= lsn) {
            let state = self.segments.pop_back().expect("just seen");
            state.segment.remove()?;
        }
        self.epochs.truncate(lsn);
        let Some(state) = self.segments.back_mut() else {
            self.next_lsn = lsn;
            return Ok(());
        };
        let mut end = SegmentEnd {
            last_lsn: state.segment.header.first_lsn.previous(),
            last_chain: 0,
            next_offset: state.segment.header.first_offset,
            max_timestamp: state.end.max_timestamp,
            position: SEGMENT_HEADER_SIZE,
        };
        scan_segment(&state.segment, state.end.position, None, |frame| {
            if frame.header.lsn >= lsn {
                return false;
            }
            end.last_lsn = frame.header.lsn;
            end.last_chain = frame.header.chain();
            end.next_offset = frame.header.next_offset();
            end.position = frame.position + frame.header.size();
            true
        })?;
        state.segment.cut(end.position)?;
        state.end = end;
        state.is_sealed = false;
        state.index.truncate(lsn);
        self.next_lsn = end.last_lsn.next();
        self.next_offset = end.next_offset;
        self.last_chain = Some(end.last_chain);
        Ok(())
    }

    /// Ends the recovery: makes replayed frames durable, judges the log, loads its snapshot.
    pub(crate) fn finish(mut self, is_journal_damaged: bool) -> Result<RecoveredParts, WalError> {
        let end = self.next_lsn.previous();
        let verdict = if self.proven > end {
            Verdict::LostTail { end, proven_end: self.proven }
        } else if is_journal_damaged {
            Verdict::JournalDamaged
        } else {
            Verdict::Ok
        };
        if verdict == Verdict::Ok {
            self.drop_leftovers()?;
        }
        for state in &self.segments {
            if state.needs_sync {
                state.segment.sync()?;
            }
        }
        self.load_snapshot(end)?;
        let parts = LogParts {
            identity: self.identity,
            directory: self.directory,
            generation: self.generation,
            segments: self
                .segments
                .into_iter()
                .map(|state| SegmentState { needs_sync: false, ..state })
                .collect(),
            next_lsn: self.next_lsn,
            log_end_offset: self.next_offset,
            last_chain: self.last_chain.unwrap_or(0),
            log_start_offset: self.log_start_offset,
            epochs: self.epochs,
            state: self.state,
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
        let segments = &self.segments;
        self.snapshot = load_snapshot(&*self.disk, &self.directory, |snapshot| {
            snapshot.at() <= end && chain_matches(segments, snapshot)
        })?;
        let from = match &self.snapshot {
            Some(snapshot) => {
                self.log_start_offset =
                    self.log_start_offset.max(Offset(snapshot.log_start_offset));
                self.epochs = snapshot.epoch_history();
                snapshot.at().next()
            }
            None => {
                self.epochs = EpochHistory::default();
                Lsn::FIRST
            }
        };
        for state in &self.segments {
            if state.end.last_lsn < from {
                continue;
            }
            let (epochs, start) = (&mut self.epochs, &mut self.log_start_offset);
            scan_segment(&state.segment, state.end.position, None, |frame| {
                if frame.header.lsn >= from {
                    epochs.note(frame.header.epoch, frame.header.lsn, frame.header.base_offset);
                    if let Some(offset) = log_start_of(frame) {
                        *start = (*start).max(offset);
                    }
                }
                true
            })?;
        }
        Ok(())
    }
}

fn log_start_of(frame: &ScannedFrame<'_>) -> Option<Offset> {
    let is_start = frame.header.kind == FrameKind::LogStart;
    let bytes: [u8; 8] = frame.body.try_into().ok().filter(|_| is_start)?;
    Some(Offset(i64::from_le_bytes(bytes)))
}

/// True if the frame a snapshot was taken behind is the frame the log has there, as far as that
/// can be seen without reading: at the ends of segments; elsewhere the position suffices because
/// truncation never reaches below a snapshot that was stored after its frames were synced.
fn chain_matches(segments: &VecDeque<SegmentState>, snapshot: &StateSnapshot) -> bool {
    segments
        .iter()
        .find(|state| state.end.last_lsn == snapshot.at())
        .is_none_or(|state| state.end.last_chain == snapshot.chain)
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
pub(crate) fn replay_ring(
    files: &[Arc<dyn DiskFile>],
    logs: &mut BTreeMap<LogId, LogRecovery>,
) -> Result<RingWalk, WalError> {
    walk_ring(files, |header, payload| {
        let Some(records) = parse_records(payload, header.record_count) else { return Ok(()) };
        for record in &records {
            if let Some(log) = logs.get_mut(&record.header.log) {
                log.apply(record)?;
            }
        }
        Ok(())
    })
}
