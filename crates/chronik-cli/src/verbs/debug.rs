//! `debug`: what is really on disk.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Paint, Report};
use crate::segment_file::{Footer, HeaderPage, SegmentFile};
use crate::table::{Table, cell};

/// Look at files of a data directory.
#[derive(Clone, Args, Debug)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
                  chronik debug segment chronik-dev/wal/partitions/demo-0/segment_000.wal\n  \
                  chronik debug segment segment_000.wal -o json"
)]
pub struct DebugArguments {
    /// What to look at.
    #[command(subcommand)]
    pub(crate) verb: DebugVerb,
}

/// What to look at.
#[derive(Clone, Subcommand, Debug)]
pub enum DebugVerb {
    /// Print header page, frames and footer of segment files and verify their checksums.
    ///
    /// Reads only, so it may run beside a server. Exit code 1 if anything does not verify.
    #[command(after_help = "Examples:\n  \
                            chronik debug segment chronik-dev/wal/partitions/demo-0/segment_000.wal\n  \
                            chronik debug segment segment_000.wal segment_001.wal -o tsv")]
    Segment(SegmentArguments),
}

/// Arguments of `debug segment`.
#[derive(Clone, Args, Debug)]
pub struct SegmentArguments {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl DebugVerb {
    /// The verb as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Segment(_) => "debug segment",
        }
    }
}

pub(crate) fn run(verb: &DebugVerb, context: &Context) -> Result<Exit, Failure> {
    let DebugVerb::Segment(arguments) = verb;
    let mut files = Vec::new();
    for path in &arguments.files {
        let unreadable = |source| Failure::UnreadableFile { path: path.clone(), source };
        files.push(SegmentFile::read(path).map_err(unreadable)?);
    }
    let damaged: Vec<_> = files.iter().filter(|file| !file.damage.is_empty()).collect();
    let failure = damaged.first().map(|first| Failure::Rows {
        failed: damaged.len(),
        total: files.len(),
        things: "segments",
        first: format!("{} at byte {}", first.damage[0].what, first.damage[0].position),
    });
    let report = SegmentReport { segments: files };
    match failure {
        Some(failure) => context.console.report_failed(&report, &failure),
        None => context.console.report(&report),
    }
}

#[derive(Serialize)]
struct SegmentReport {
    segments: Vec<SegmentFile>,
}

const FRAME_COLUMNS: &[&str] = &[
    "file",
    "position",
    "lsn",
    "kind",
    "epoch",
    "base_offset",
    "last_offset",
    "records",
    "body_bytes",
    "append_time_ms",
    "crc",
    "chain",
];

fn frame_rows(segment: &SegmentFile) -> impl Iterator<Item = Vec<Option<String>>> {
    let verdict = |is_ok: bool| cell(if is_ok { "ok" } else { "BAD" });
    segment.frames.iter().map(move |frame| {
        vec![
            cell(frame.position),
            cell(frame.lsn),
            cell(frame.kind),
            cell(frame.epoch),
            cell(frame.base_offset),
            frame.last_offset.and_then(cell),
            cell(frame.records),
            cell(frame.body_bytes),
            cell(frame.append_time_ms),
            verdict(frame.is_crc_ok),
            verdict(frame.is_chain_ok),
        ]
    })
}

impl Report for SegmentReport {
    fn table(&self) -> Table {
        let mut table = Table::new(FRAME_COLUMNS);
        for segment in &self.segments {
            for row in frame_rows(segment) {
                table.push(std::iter::once(cell(&segment.file)).chain(row).collect());
            }
        }
        table
    }

    fn text(&self, paint: Paint) -> String {
        let one = |segment: &SegmentFile| segment_text(segment, paint);
        self.segments.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

fn segment_text(segment: &SegmentFile, paint: Paint) -> String {
    let mut text = format!("File    {} ({} bytes)\n", segment.file, segment.file_bytes);
    if let Some(header) = &segment.header {
        text.push_str(&header_line(header, paint));
    }
    let mut table = Table::new(&FRAME_COLUMNS[1..]);
    frame_rows(segment).for_each(|row| table.push(row));
    text.push_str(&table.to_text());
    match &segment.footer {
        Some(footer) => text.push_str(&footer_line(footer, paint)),
        None if segment.header.is_some() => text.push_str(&format!(
            "Footer  none: the segment is open; frames end at {}, {} bytes are preallocated\n",
            segment.frames_end, segment.preallocated_bytes
        )),
        None => {}
    }
    for damage in &segment.damage {
        let line = format!("{} at byte {}\n", damage.what, damage.position);
        text.push_str(&format!("{}  {line}", paint.bad("Damage")));
    }
    text
}

fn header_line(header: &HeaderPage, paint: Paint) -> String {
    format!(
        "Header  topic id {}, partition {}, segment {}, first lsn {}, first offset {}, epoch {}, \
         generation {}, nonce {:08x}, level {}, crc {}\n",
        header.topic_id,
        header.partition,
        header.number,
        header.first_lsn,
        header.first_offset,
        header.epoch,
        header.generation,
        header.nonce,
        header.level,
        verdict(header.is_crc_ok, paint),
    )
}

fn footer_line(footer: &Footer, paint: Paint) -> String {
    format!(
        "Footer  last lsn {}, next offset {}, max timestamp {}, frames end at {}, {} index \
         entries, crc {}, index crc {}\n",
        footer.last_lsn,
        footer.next_offset,
        footer.max_timestamp,
        footer.frames_end,
        footer.index_entries,
        verdict(footer.is_crc_ok, paint),
        verdict(footer.is_index_crc_ok, paint),
    )
}

fn verdict(is_ok: bool, paint: Paint) -> String {
    if is_ok { paint.good("ok") } else { paint.bad("BAD") }
}
