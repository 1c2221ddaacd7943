//! Segment files: where frames live for good.
//!
//! ```text
//! 4 KiB header page:
//!  0  magic "CHS1"    4 | 24  topic id          16 | 64  epoch              4
//!  4  crc32c (8..80)  4 | 40  segment number     8 | 68  nonce              4
//!  8  level           4 | 48  first lsn          8 | 72  partition          4
//! 12  generation      4 | 56  first offset       8 | 76  key id (0 = none)  4
//! 16  previous chain  4 | 20  reserved           4
//! then frames, back to back
//! then, once sealed, the footer: sparse index (24 bytes per entry), then 48 bytes
//!  0  magic "CHF1"    4 | 16  last lsn           8 | 40  end of frames      4
//!  4  crc32c (8..48)  4 | 24  next offset        8 | 44  index crc32c       4
//!  8  index entries   4 | 32  max timestamp      8 |
//! 12  last chain      4 |
//! ```
//!
//! Little endian. The footer's checksum starts from the segment's nonce, so that the footer of
//! another segment never validates. A segment's file is created when the first byte is written, not when its
//! number is chosen: numbers and positions are assigned under the partition mutex, files are
//! created by whoever may block. Sealed segments never change.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use chronik_common::{LeaderEpoch, Lsn, Offset, TopicId};

use crate::error::{DamageReason, WalError};
use crate::frame::{FRAME_HEADER_SIZE, FrameHeader, read_u32, read_u64};
use crate::invariants::{is_end_of, is_next_frame};
use crate::io::{Disk, DiskCall, DiskError, DiskFile, DiskResult, OpenMode};
use crate::layout::segment_name;
use crate::offset_index::{IndexEntry, SparseIndex};

/// Bytes of the header page; the first frame lies behind it.
pub const SEGMENT_HEADER_SIZE: u64 = 4_096;
/// Bytes of the header page that carry fields.
pub const SEGMENT_HEADER_USED: usize = 80;
/// Bytes of the footer behind the index.
pub const SEGMENT_FOOTER_SIZE: usize = 48;
const LEVEL: u32 = 1;
const MAGIC: [u8; 4] = *b"CHS1";
const FOOTER_MAGIC: [u8; 4] = *b"CHF1";

/// Preallocation grows in these steps, in bytes.
const ALLOCATION_STEPS: [u64; 3] = [256 << 10, 4 << 20, 32 << 20];

/// What a segment's header page says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Topic the log belongs to.
    pub topic_id: TopicId,
    /// Partition the log belongs to; -1 for the metadata log.
    pub partition: i32,
    /// Number of the segment in its log.
    pub number: u64,
    /// Position of its first frame.
    pub first_lsn: Lsn,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Leader epoch at its creation.
    pub epoch: LeaderEpoch,
    /// Truncations of the log before this segment began. A truncation always starts a new
    /// segment, so recovery knows from here whether one was already carried out.
    pub generation: u32,
    /// Chain value of the frame before the first one: a segment of another history does not
    /// continue this one, whatever its numbers say.
    pub prev_chain: u32,
    /// Random; written into every frame header of this file.
    pub nonce: u32,
}

impl SegmentHeader {
    fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE as usize] {
        let mut page = [0; SEGMENT_HEADER_SIZE as usize];
        page[..4].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&LEVEL.to_le_bytes());
        page[12..16].copy_from_slice(&self.generation.to_le_bytes());
        page[16..20].copy_from_slice(&self.prev_chain.to_le_bytes());
        page[24..40].copy_from_slice(&self.topic_id.0);
        page[40..48].copy_from_slice(&self.number.to_le_bytes());
        page[48..56].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        page[56..64].copy_from_slice(&self.first_offset.0.to_le_bytes());
        page[64..68].copy_from_slice(&self.epoch.0.to_le_bytes());
        page[68..72].copy_from_slice(&self.nonce.to_le_bytes());
        page[72..76].copy_from_slice(&self.partition.to_le_bytes());
        let crc = crc32c::crc32c(&page[8..SEGMENT_HEADER_USED]);
        page[4..8].copy_from_slice(&crc.to_le_bytes());
        page
    }

    fn decode(page: &[u8]) -> Result<Self, DamageReason> {
        if page.len() < SEGMENT_HEADER_USED {
            return Err(DamageReason::TooShort);
        }
        let inspected = Self::inspect(page).ok_or(DamageReason::Magic)?;
        if !inspected.is_checksum_ok {
            return Err(DamageReason::HeaderChecksum);
        }
        // A key id other than 0 means encrypted frames, which this release cannot read.
        if inspected.level != LEVEL || inspected.key_id != 0 {
            return Err(DamageReason::Magic);
        }
        let header = inspected.header;
        if header.first_lsn == Lsn::ZERO || header.first_offset.0 < 0 {
            return Err(DamageReason::Inconsistent);
        }
        Ok(header)
    }

    /// Decodes a header page without believing it, for tools that look at damaged files; `None`
    /// if it is too short or begins differently.
    #[must_use]
    pub fn inspect(page: &[u8]) -> Option<InspectedHeader> {
        let page = page.get(..SEGMENT_HEADER_USED).filter(|page| page.starts_with(&MAGIC))?;
        Some(InspectedHeader {
            header: Self {
                topic_id: chronik_common::Uuid(page[24..40].try_into().expect("sixteen bytes")),
                partition: read_u32(page, 72) as i32,
                number: read_u64(page, 40),
                first_lsn: Lsn(read_u64(page, 48)),
                first_offset: Offset(read_u64(page, 56) as i64),
                epoch: LeaderEpoch(read_u32(page, 64) as i32),
                generation: read_u32(page, 12),
                prev_chain: read_u32(page, 16),
                nonce: read_u32(page, 68),
            },
            level: read_u32(page, 8),
            key_id: read_u32(page, 76),
            is_checksum_ok: read_u32(page, 4) == crc32c::crc32c(&page[8..]),
        })
    }
}

/// A header page as it lies on the disk, right or wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InspectedHeader {
    /// The fields.
    pub header: SegmentHeader,
    /// Level of the format.
    pub level: u32,
    /// Key of encrypted frames; 0 for none.
    pub key_id: u32,
    /// True if the page's checksum is that of its fields.
    pub is_checksum_ok: bool,
}

/// Where a segment's frames end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentEnd {
    /// Last frame; `first_lsn - 1` while the segment is empty.
    pub last_lsn: Lsn,
    /// Chain value of the last frame (of the frame before the segment while it is empty).
    pub last_chain: u32,
    /// First offset behind the segment.
    pub next_offset: Offset,
    /// Largest record timestamp; -1 if there is none.
    pub max_timestamp: i64,
    /// Position behind the last frame, in bytes.
    pub position: u64,
}

impl SegmentEnd {
    /// The end of a segment without frames.
    #[must_use]
    pub fn empty(header: &SegmentHeader) -> Self {
        Self {
            last_lsn: header.first_lsn.previous(),
            last_chain: header.prev_chain,
            next_offset: header.first_offset,
            max_timestamp: -1,
            position: SEGMENT_HEADER_SIZE,
        }
    }
}

/// What a sealed segment's footer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFooter {
    /// Last frame.
    pub last_lsn: Lsn,
    /// Chain value of the last frame.
    pub last_chain: u32,
    /// First offset behind the segment.
    pub next_offset: Offset,
    /// Largest record timestamp; -1 if there is none.
    pub max_timestamp: i64,
    /// Position behind the last frame, in bytes.
    pub frames_end: u64,
    /// Entries of the index between the frames and the footer.
    pub index_entries: u32,
    /// CRC-32C of the index.
    pub index_crc: u32,
}

impl SegmentFooter {
    fn encode(&self, nonce: u32) -> [u8; SEGMENT_FOOTER_SIZE] {
        let mut bytes = [0; SEGMENT_FOOTER_SIZE];
        bytes[..4].copy_from_slice(&FOOTER_MAGIC);
        bytes[8..12].copy_from_slice(&self.index_entries.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.last_chain.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.last_lsn.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.next_offset.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.max_timestamp.to_le_bytes());
        let frames_end = u32::try_from(self.frames_end).expect("segments are below 4 GiB");
        bytes[40..44].copy_from_slice(&frames_end.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.index_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(nonce, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The footer as an end of frames.
    #[must_use]
    pub fn end(&self) -> SegmentEnd {
        SegmentEnd {
            last_lsn: self.last_lsn,
            last_chain: self.last_chain,
            next_offset: self.next_offset,
            max_timestamp: self.max_timestamp,
            position: self.frames_end,
        }
    }

    fn decode(bytes: &[u8], nonce: u32) -> Result<Self, DamageReason> {
        if bytes.len() < SEGMENT_FOOTER_SIZE {
            return Err(DamageReason::TooShort);
        }
        match Self::inspect(bytes, nonce) {
            Some((footer, true)) => Ok(footer),
            Some((_, false)) => Err(DamageReason::HeaderChecksum),
            None => Err(DamageReason::Magic),
        }
    }

    /// Decodes a footer without believing it; the flag is true if its checksum is right. `None`
    /// if the bytes are too short or begin differently. `nonce` is the segment's.
    #[must_use]
    pub fn inspect(bytes: &[u8], nonce: u32) -> Option<(Self, bool)> {
        let bytes =
            bytes.get(..SEGMENT_FOOTER_SIZE).filter(|bytes| bytes.starts_with(&FOOTER_MAGIC))?;
        let footer = Self {
            index_entries: read_u32(bytes, 8),
            last_chain: read_u32(bytes, 12),
            last_lsn: Lsn(read_u64(bytes, 16)),
            next_offset: Offset(read_u64(bytes, 24) as i64),
            max_timestamp: read_u64(bytes, 32) as i64,
            frames_end: u64::from(read_u32(bytes, 40)),
            index_crc: read_u32(bytes, 44),
        };
        Some((footer, read_u32(bytes, 4) == crc32c::crc32c_append(nonce, &bytes[8..])))
    }
}

struct FileState {
    file: Option<Arc<dyn DiskFile>>,
    allocated: u64,
    is_directory_synced: bool,
    /// True once the log is deleted: its directory may be gone, its name may be another's.
    is_retired: bool,
}

/// One segment file of one log. Shared by the log, the commit thread, the background worker and
/// readers.
pub struct Segment {
    /// What its header page says (or will say once it is written).
    pub header: SegmentHeader,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    allocation_max: u64,
    state: Mutex<FileState>,
    /// Sparse index of a sealed segment, loaded at the first read that needs it.
    sealed_index: Mutex<Option<Arc<SparseIndex>>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Segment {
    /// A segment that has no file yet. Preallocation stops at `allocation_max` bytes.
    #[must_use]
    pub fn new(
        disk: Arc<dyn Disk>,
        directory: &std::path::Path,
        header: SegmentHeader,
        allocation_max: u64,
    ) -> Self {
        assert!(
            header.nonce != 0 && header.first_lsn > Lsn::ZERO && header.first_offset.0 >= 0,
            "a reader would refuse the segment: {header:?}"
        );
        Self {
            path: directory.join(segment_name(header.number)),
            header,
            disk,
            allocation_max,
            state: Mutex::new(FileState {
                file: None,
                allocated: 0,
                is_directory_synced: false,
                is_retired: false,
            }),
            sealed_index: Mutex::default(),
        }
    }

    /// Opens an existing segment file and verifies its header page.
    ///
    /// # Errors
    /// A failed disk call, or [`WalError::Damaged`].
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf, allocation_max: u64) -> Result<Self, WalError> {
        let file = disk.open(&path, OpenMode::ReadWrite)?;
        let mut page = [0; SEGMENT_HEADER_USED];
        let read = file.read_at(0, &mut page)?;
        let header = SegmentHeader::decode(&page[..read]).map_err(|reason| WalError::Damaged {
            file: path.display().to_string(),
            position: 0,
            reason,
        })?;
        let allocated = file.length()?;
        Ok(Self {
            header,
            disk,
            path,
            allocation_max,
            // A killed process may have created the file without getting to the sync.
            state: Mutex::new(FileState {
                file: Some(file),
                allocated,
                is_directory_synced: false,
                is_retired: false,
            }),
            sealed_index: Mutex::default(),
        })
    }

    /// The file's path, for messages.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Lets go of the file's name because the log is deleted: from here on nothing is created
    /// under it, and writes succeed without effect.
    pub fn retire(&self) {
        self.state.lock().expect("no holder of a segment panics").is_retired = true;
    }

    /// The file to write to. `None` if the log was deleted before it existed: decided under the
    /// lock that [`Segment::retire`] takes, because the directory may be removed right after.
    fn file_to_write(&self, state: &mut FileState) -> DiskResult<Option<Arc<dyn DiskFile>>> {
        if state.is_retired && state.file.is_none() {
            return Ok(None);
        }
        self.file(state).map(Some)
    }

    /// The open file, created with its header page if it does not exist yet.
    fn file(&self, state: &mut FileState) -> DiskResult<Arc<dyn DiskFile>> {
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        if state.is_retired {
            let gone = std::io::ErrorKind::NotFound.into();
            return Err(DiskError::new(DiskCall::Open, &self.path, gone));
        }
        let file = self.disk.open(&self.path, OpenMode::ReadWrite)?;
        // A file of this number left by a crash before its first sync holds nothing durable.
        file.set_length(0)?;
        file.write_at(0, &mut [IoSlice::new(&self.header.encode())])?;
        state.allocated = SEGMENT_HEADER_SIZE;
        state.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Writes the header page once more; see recovery.
    ///
    /// # Errors
    /// A failed disk call.
    pub fn rewrite_header(&self) -> DiskResult<()> {
        self.open_file()?.write_at(0, &mut [IoSlice::new(&self.header.encode())])
    }

    /// Writes frames back to back from `position`. Blocks only as a buffered write does. Not
    /// durable before [`Segment::sync`].
    ///
    /// # Errors
    /// A failed disk call.
    pub fn write_frames<'a>(
        &self,
        position: u64,
        frames: impl Iterator<Item = (&'a FrameHeader, &'a Bytes)> + Clone,
    ) -> DiskResult<()> {
        let size: u64 = frames.clone().map(|(header, _)| header.size()).sum();
        assert!(position >= SEGMENT_HEADER_SIZE, "frames lie behind the header page: {position}");
        let file = {
            let mut state = self.state.lock().expect("no holder of a segment panics");
            let Some(file) = self.file_to_write(&mut state)? else { return Ok(()) };
            self.reserve(&mut state, &file, position + size)?;
            file
        };
        debug_assert!(
            frames.clone().zip(frames.clone().skip(1)).all(|(a, b)| is_next_frame(a.0, b.0)),
            "frames are written in order, {size} bytes at {position} of {self:?}"
        );
        if let Some((first, _)) = frames.clone().next() {
            assert!(
                first.lsn >= self.header.first_lsn && first.base_offset >= self.header.first_offset,
                "{:?} at {:?} does not belong into {:?}",
                first.lsn,
                first.base_offset,
                self.header
            );
        }
        let headers: Vec<[u8; FRAME_HEADER_SIZE]> =
            frames.clone().map(|(header, _)| header.encode(self.header.nonce)).collect();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(headers.len() * 2);
        for (header, (_, body)) in headers.iter().zip(frames) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(body));
        }
        file.write_at(position, &mut slices)
    }

    fn reserve(&self, state: &mut FileState, file: &Arc<dyn DiskFile>, end: u64) -> DiskResult<()> {
        if end <= state.allocated {
            return Ok(());
        }
        let step = ALLOCATION_STEPS
            .into_iter()
            .find(|step| state.allocated < *step)
            .unwrap_or(ALLOCATION_STEPS[2]);
        let target = (state.allocated + step).min(self.allocation_max).max(end);
        file.allocate(state.allocated, target - state.allocated)?;
        state.allocated = target;
        Ok(())
    }

    /// Makes everything written so far durable, the file's name included.
    ///
    /// # Errors
    /// A failed disk call; the log must stop.
    pub fn sync(&self) -> DiskResult<()> {
        let (file, is_directory_synced) = {
            let mut state = self.state.lock().expect("no holder of a segment panics");
            let Some(file) = self.file_to_write(&mut state)? else { return Ok(()) };
            (file, state.is_directory_synced)
        };
        file.sync()?;
        if !is_directory_synced {
            let directory = self.path.parent().expect("segments lie in a directory");
            let result = self.disk.sync_directory(directory);
            let mut state = self.state.lock().expect("no holder of a segment panics");
            if state.is_retired {
                return Ok(());
            }
            result?;
            state.is_directory_synced = true;
        }
        Ok(())
    }

    /// Cuts everything from `position` on and makes the cut durable.
    ///
    /// # Errors
    /// A failed disk call; the log must stop.
    pub fn cut(&self, position: u64) -> DiskResult<()> {
        assert!(position >= SEGMENT_HEADER_SIZE, "a cut keeps the header page: {position}");
        let file = {
            let mut state = self.state.lock().expect("no holder of a segment panics");
            let Some(file) = self.file_to_write(&mut state)? else { return Ok(()) };
            state.allocated = position;
            file
        };
        *self.lock_index() = None;
        file.set_length(position)?;
        self.sync()
    }

    fn lock_index(&self) -> MutexGuard<'_, Option<Arc<SparseIndex>>> {
        self.sealed_index.lock().expect("no holder of a segment's index panics")
    }

    /// Appends the footer behind the last frame, drops preallocated space, syncs.
    ///
    /// # Errors
    /// A failed disk call; the log must stop.
    pub fn seal(&self, index: &SparseIndex, end: &SegmentEnd) -> DiskResult<()> {
        assert!(
            is_end_of(&self.header, end),
            "a footer describes its own segment: {end:?} in {:?}",
            self.header
        );
        assert!(
            index.last().is_none_or(|entry| {
                entry.lsn <= end.last_lsn && u64::from(entry.position) < end.position
            }),
            "an index ends before its frames do: {:?}, {end:?}",
            index.last()
        );
        let index_bytes = index.encode();
        let frames_end = end.position;
        let footer = SegmentFooter {
            last_lsn: end.last_lsn,
            last_chain: end.last_chain,
            next_offset: end.next_offset,
            max_timestamp: end.max_timestamp,
            frames_end,
            index_entries: index.len() as u32,
            index_crc: crc32c::crc32c(&index_bytes),
        };
        let file = {
            let mut state = self.state.lock().expect("no holder of a segment panics");
            let Some(file) = self.file_to_write(&mut state)? else { return Ok(()) };
            file
        };
        file.set_length(frames_end)?;
        let footer = footer.encode(self.header.nonce);
        let mut slices = [IoSlice::new(&index_bytes), IoSlice::new(&footer)];
        file.write_at(frames_end, &mut slices)?;
        self.sync()
    }

    /// The footer and the index of a sealed segment.
    ///
    /// # Errors
    /// A failed read, or [`WalError::Damaged`] when there is no valid footer.
    pub fn read_footer(&self) -> Result<(SegmentFooter, SparseIndex), WalError> {
        let file = {
            let mut state = self.state.lock().expect("no holder of a segment panics");
            self.file(&mut state)?
        };
        let length = file.length()?;
        let damaged = |position, reason| WalError::Damaged {
            file: self.path.display().to_string(),
            position,
            reason,
        };
        let footer_at = length.saturating_sub(SEGMENT_FOOTER_SIZE as u64);
        let mut bytes = [0; SEGMENT_FOOTER_SIZE];
        let read = file.read_at(footer_at, &mut bytes)?;
        let footer = SegmentFooter::decode(&bytes[..read], self.header.nonce)
            .map_err(|reason| damaged(footer_at, reason))?;
        let index_len = u64::from(footer.index_entries) * IndexEntry::SIZE as u64;
        if footer.frames_end.checked_add(index_len) != Some(footer_at) {
            return Err(damaged(footer_at, DamageReason::Length));
        }
        let mut index_bytes = vec![0; index_len as usize];
        let read = file.read_at(footer.frames_end, &mut index_bytes)?;
        if read != index_bytes.len() || crc32c::crc32c(&index_bytes) != footer.index_crc {
            return Err(damaged(footer.frames_end, DamageReason::BodyChecksum));
        }
        Ok((footer, SparseIndex::decode(&index_bytes)))
    }

    /// The index of a sealed segment, from memory or from its footer.
    ///
    /// # Errors
    /// As [`Segment::read_footer`].
    pub fn sealed_index(&self) -> Result<Arc<SparseIndex>, WalError> {
        if let Some(index) = self.cached_index() {
            return Ok(index);
        }
        let (_, index) = self.read_footer()?;
        let index = Arc::new(index);
        *self.lock_index() = Some(Arc::clone(&index));
        Ok(index)
    }

    /// The index of a sealed segment if it is in memory.
    #[must_use]
    pub fn cached_index(&self) -> Option<Arc<SparseIndex>> {
        self.lock_index().clone()
    }

    /// Reads up to `buffer.len()` bytes; fewer at the end of the file.
    ///
    /// # Errors
    /// A failed read.
    pub fn read_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.open_file()?.read_at(position, buffer)
    }

    /// Like [`Segment::read_at`], from memory only; `None` when the device would be needed.
    ///
    /// # Errors
    /// A failed read.
    pub fn read_cached_at(&self, position: u64, buffer: &mut [u8]) -> DiskResult<Option<usize>> {
        self.open_file()?.read_cached_at(position, buffer)
    }

    fn open_file(&self) -> DiskResult<Arc<dyn DiskFile>> {
        let mut state = self.state.lock().expect("no holder of a segment panics");
        self.file(&mut state)
    }

    /// Length of the file in bytes, preallocated space included.
    ///
    /// # Errors
    /// A failed disk call.
    pub fn file_length(&self) -> DiskResult<u64> {
        self.open_file()?.length()
    }

    /// Where preallocated space probably begins at or behind `position`; see
    /// [`DiskFile::data_end`].
    ///
    /// # Errors
    /// A failed disk call.
    pub fn data_end(&self, position: u64) -> DiskResult<u64> {
        Ok(self.open_file()?.data_end(position))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// A failed disk call.
    pub fn remove(&self) -> DiskResult<()> {
        self.disk.remove_file(&self.path)
    }
}
