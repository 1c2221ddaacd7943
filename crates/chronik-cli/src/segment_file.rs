//! Reads a segment file for `debug segment`, whatever state it is in.
//!
//! The server's own reader stops at the first byte that does not verify and tells nothing about
//! it. This one shows a header page and a footer even if their checksums differ, and goes on
//! behind a damaged body. Everything is decoded by chronik-wal. Nothing is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use chronik_wal::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};
use chronik_wal::{
    DamageReason, SEGMENT_FOOTER_SIZE, SEGMENT_HEADER_SIZE, SEGMENT_HEADER_USED, SegmentFooter,
    SegmentHeader,
};
use serde::Serialize;

/// What a segment file holds.
#[derive(Serialize, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) file: String,
    pub(crate) file_bytes: u64,
    pub(crate) header: Option<HeaderPage>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) footer: Option<Footer>,
    /// Position behind the last frame.
    pub(crate) frames_end: u64,
    /// Zeros behind the last frame of an open segment: room for more.
    pub(crate) preallocated_bytes: u64,
    /// Everything that does not verify, in order of position.
    pub(crate) damage: Vec<Damage>,
}

/// The header page.
#[derive(Serialize, Debug)]
pub(crate) struct HeaderPage {
    pub(crate) level: u32,
    pub(crate) topic_id: String,
    pub(crate) partition: i32,
    pub(crate) number: u64,
    pub(crate) first_lsn: u64,
    pub(crate) first_offset: i64,
    pub(crate) epoch: i32,
    pub(crate) generation: u32,
    pub(crate) nonce: u32,
    pub(crate) key_id: u32,
    pub(crate) is_crc_ok: bool,
}

/// One frame.
#[derive(Serialize, Debug)]
pub(crate) struct Frame {
    pub(crate) position: u64,
    pub(crate) lsn: u64,
    pub(crate) kind: &'static str,
    pub(crate) epoch: i32,
    pub(crate) base_offset: i64,
    /// The last record's offset; `None` for frames without records.
    pub(crate) last_offset: Option<i64>,
    pub(crate) records: u32,
    pub(crate) body_bytes: u32,
    pub(crate) append_time_ms: i64,
    /// True if the body is the one the header describes.
    pub(crate) is_crc_ok: bool,
    /// True if it follows the frame before.
    pub(crate) is_chain_ok: bool,
}

/// The footer of a sealed segment.
#[derive(Serialize, Debug)]
pub(crate) struct Footer {
    pub(crate) index_entries: u32,
    pub(crate) last_lsn: u64,
    pub(crate) last_chain: u32,
    pub(crate) next_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) frames_end: u64,
    pub(crate) is_crc_ok: bool,
    pub(crate) is_index_crc_ok: bool,
}

/// Something that does not verify.
#[derive(Serialize, Debug)]
pub(crate) struct Damage {
    pub(crate) position: u64,
    pub(crate) what: String,
}

impl SegmentFile {
    /// Reads the whole file. What does not verify is part of the result, not an error.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut segment = Self {
            file: path.display().to_string(),
            file_bytes: length,
            header: None,
            frames: Vec::new(),
            footer: None,
            frames_end: SEGMENT_HEADER_SIZE,
            preallocated_bytes: 0,
            damage: Vec::new(),
        };
        segment.read_header(&file)?;
        if segment.header.is_some() {
            segment.read_footer(&file)?;
            segment.read_frames(&file)?;
            segment.check_end(&file)?;
        }
        Ok(segment)
    }

    fn damaged(&mut self, position: u64, what: impl Into<String>) {
        self.damage.push(Damage { position, what: what.into() });
    }

    fn read_header(&mut self, file: &File) -> io::Result<()> {
        let page = read_up_to(file, 0, SEGMENT_HEADER_USED)?;
        let Some(inspected) = SegmentHeader::inspect(&page) else {
            self.damaged(0, "no segment: the header page does not begin as one");
            return Ok(());
        };
        let fields = inspected.header;
        let header = HeaderPage {
            level: inspected.level,
            generation: fields.generation,
            topic_id: fields.topic_id.to_string(),
            number: fields.number,
            first_lsn: fields.first_lsn.0,
            first_offset: fields.first_offset.0,
            epoch: fields.epoch.0,
            nonce: fields.nonce,
            partition: fields.partition,
            key_id: inspected.key_id,
            is_crc_ok: inspected.is_checksum_ok,
        };
        if !header.is_crc_ok {
            self.damaged(0, "header page: checksum differs");
        }
        self.header = Some(header);
        Ok(())
    }

    fn read_footer(&mut self, file: &File) -> io::Result<()> {
        let Some(at) = self.file_bytes.checked_sub(SEGMENT_FOOTER_SIZE as u64) else {
            return Ok(());
        };
        let bytes = read_up_to(file, at, SEGMENT_FOOTER_SIZE)?;
        let nonce = self.header.as_ref().map_or(0, |header| header.nonce);
        let Some((fields, is_crc_ok)) = SegmentFooter::inspect(&bytes, nonce) else {
            return Ok(());
        };
        if !is_crc_ok {
            self.damaged(at, "footer: checksum differs");
        }
        let mut footer = Footer {
            index_entries: fields.index_entries,
            last_chain: fields.last_chain,
            last_lsn: fields.last_lsn.0,
            next_offset: fields.next_offset.0,
            max_timestamp: fields.max_timestamp,
            frames_end: fields.frames_end,
            is_crc_ok,
            is_index_crc_ok: false,
        };
        if let Some(index_bytes) = at.checked_sub(footer.frames_end) {
            let index = read_up_to(file, footer.frames_end, index_bytes as usize)?;
            footer.is_index_crc_ok = crc32c::crc32c(&index) == fields.index_crc;
        }
        if !footer.is_index_crc_ok {
            self.damaged(footer.frames_end, "index: checksum differs");
        }
        self.footer = Some(footer);
        Ok(())
    }

    fn read_frames(&mut self, file: &File) -> io::Result<()> {
        let end = match &self.footer {
            Some(footer) if footer.is_crc_ok => footer.frames_end.min(self.file_bytes),
            _ => self.file_bytes,
        };
        let mut previous: Option<FrameHeader> = None;
        while self.frames_end < end {
            let position = self.frames_end;
            let bytes = read_up_to(file, position, FRAME_HEADER_SIZE)?;
            let Some(bytes) = bytes.first_chunk() else {
                self.damaged(position, DamageReason::TooShort.to_string());
                return Ok(());
            };
            if self.footer.is_none() && bytes.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            let (header, nonce) = match FrameHeader::decode(bytes) {
                Ok(decoded) => decoded,
                Err(reason) => {
                    self.damaged(position, format!("no frame: {reason}"));
                    return Ok(());
                }
            };
            if self.header.as_ref().is_some_and(|page| page.nonce != nonce) {
                self.damaged(position, format!("no frame: {}", DamageReason::Nonce));
                return Ok(());
            }
            self.read_frame(file, &header, previous.as_ref())?;
            previous = Some(header);
        }
        Ok(())
    }

    fn read_frame(
        &mut self,
        file: &File,
        header: &FrameHeader,
        previous: Option<&FrameHeader>,
    ) -> io::Result<()> {
        let position = self.frames_end;
        let body = read_up_to(file, position + FRAME_HEADER_SIZE as u64, header.body_len as usize)?;
        let is_crc_ok = header.matches_body(&body);
        let is_chain_ok = match (previous, &self.header) {
            (Some(previous), _) => {
                header.lsn == previous.lsn.next()
                    && header.prev_chain == previous.chain()
                    && header.base_offset == previous.next_offset()
            }
            (None, Some(page)) => {
                header.lsn.0 == page.first_lsn && header.base_offset.0 == page.first_offset
            }
            (None, None) => false,
        };
        if !is_crc_ok {
            self.damaged(position, format!("frame {}: {}", header.lsn, DamageReason::BodyChecksum));
        }
        if !is_chain_ok {
            self.damaged(position, format!("frame {}: {}", header.lsn, DamageReason::Chain));
        }
        let has_records = header.last_offset_delta >= 0;
        self.frames.push(Frame {
            position,
            lsn: header.lsn.0,
            kind: kind_name(header.kind),
            epoch: header.epoch.0,
            base_offset: header.base_offset.0,
            last_offset: has_records.then(|| header.next_offset().0 - 1),
            records: header.record_count,
            body_bytes: header.body_len,
            append_time_ms: header.append_time_ms,
            is_crc_ok,
            is_chain_ok,
        });
        self.frames_end = (position + header.size()).min(self.file_bytes);
        Ok(())
    }

    /// An open segment ends in zeros; a sealed one ends where its footer says.
    fn check_end(&mut self, file: &File) -> io::Result<()> {
        let Some(footer) = &self.footer else {
            if self.damage.is_empty() {
                self.check_zeros(file)?;
            }
            return Ok(());
        };
        let last_lsn = self.frames.last().map(|frame| frame.lsn);
        if last_lsn.is_some_and(|lsn| lsn != footer.last_lsn) {
            let (at, promised) = (self.frames_end, footer.last_lsn);
            self.damaged(at, format!("the footer says that frame {promised} is the last one"));
        }
        Ok(())
    }

    fn check_zeros(&mut self, file: &File) -> io::Result<()> {
        const STEP: usize = 1 << 20;
        let mut position = self.frames_end;
        while position < self.file_bytes {
            let bytes = read_up_to(file, position, STEP)?;
            if let Some(index) = bytes.iter().position(|byte| *byte != 0) {
                self.damaged(position + index as u64, "bytes behind the last frame are not zero");
                return Ok(());
            }
            if bytes.is_empty() {
                break;
            }
            position += bytes.len() as u64;
        }
        self.preallocated_bytes = self.file_bytes.saturating_sub(self.frames_end);
        Ok(())
    }
}

fn kind_name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Data => "data",
        FrameKind::EpochStart => "epoch-start",
        FrameKind::Config => "config",
        FrameKind::LogStart => "log-start",
        FrameKind::TierManifest => "tier-manifest",
        FrameKind::MetaCommand => "meta-command",
    }
}

/// Fewer bytes than asked for at the end of the file.
fn read_up_to(file: &File, position: u64, count: usize) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(position);
    let mut bytes = vec![0; count.min(usize::try_from(left).unwrap_or(usize::MAX))];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
