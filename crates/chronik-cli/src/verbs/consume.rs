//! `consume`: records of topics to standard output.
//!
//! Each partition has a cursor. Without `--follow` it stops where the log ended when the command
//! started, so that a topic that is being written to is read to an end, too. Order is that of
//! offsets within a partition; partitions take turns.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use chronik_common::ErrorCode;
use chronik_record::{BatchError, BatchHeader, DecompressionLimits, records};
use clap::Args;

use super::Context;
use crate::arguments::OutputFormat;
use crate::client::{Client, ClientError, FetchFrom, FetchedPartition, KafkaCode, LogPoint};
use crate::failure::{Exit, Failure};
use crate::record_format::{Located, RecordFormat, TSV_COLUMNS, write_json, write_tsv};
use crate::start_position::StartPosition;

/// Longest wait of a broker for new records, shared by all brokers that are asked in turn.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Wait before a partition is asked again that could not be read for a reason that passes.
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// Refusals of one partition in a row before the command gives up.
const REFUSALS_MAX: u32 = 100;
/// Largest batch after decompression, in bytes.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Print records of topics.
///
/// Starts at the oldest record and stops at the end that each partition has when the command
/// starts, like cat. --follow goes on waiting for new records, like tail -f; -n stops after N
/// records in either case. `-s end` implies --follow.
///
/// Text is the value and a line end unless -f says otherwise; -o json is one object a line, which
/// produce --from jsonl reads; -o tsv is topic, partition, offset, timestamp in ms, key, value,
/// headers. Records of open and aborted transactions are printed, too.
#[derive(Clone, Args, Debug)]
#[command(after_help = "Examples:\n  \
                        chronik consume demo -s start -n 1\n  \
                        chronik consume orders -s -10 --follow -f '%p@%o %k=%v\\n'")]
pub struct ConsumeArguments {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Where to start in each partition: start, end, -N (N records before the end), +OFFSET or
    /// OFFSET, or @TIME: @2026-11-21, @2026-11-21T10:00 (local), @2026-11-21T10:00:00Z, @-1h, or
    /// @ and seconds or milliseconds since 1970.
    #[arg(
        short,
        long,
        value_name = "POSITION",
        default_value = "start",
        allow_hyphen_values = true
    )]
    start: StartPosition,
    /// Stop after so many records.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Form of a record: %t topic, %p partition, %o offset, %T timestamp in ms, %k key, %K its
    /// length, %v value, %V its length, %h headers, %%; \n, \t, \r, \0, \\. No line end is added.
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<RecordFormat>,
    /// Wait for new records; Ctrl-C ends.
    #[arg(long)]
    follow: bool,
}

pub(crate) fn run(arguments: &ConsumeArguments, context: &Context) -> Result<Exit, Failure> {
    if arguments.format.is_some() && context.console.format() != OutputFormat::Text {
        let message = "-f formats text; leave it or -o out".to_owned();
        return Err(Failure::Usage { message });
    }
    let mut client = context.client();
    let follows = arguments.follow || arguments.start == StartPosition::End;
    let mut cursors = Vec::new();
    for topic in &arguments.topics {
        cursors.extend(Cursor::of_topic(&mut client, topic, arguments.start, follows)?);
    }
    let mut printer = Printer::new(arguments, context)?;
    if follows {
        context.console.progress("Waiting for records; Ctrl-C ends.");
    }
    let mut reader = LogReader { client: &mut client, cursors };
    while !printer.is_done() && reader.step(&mut printer)? {
        printer.flush()?;
    }
    printer.flush()?;
    if printer.printed == 0 && arguments.count != Some(0) {
        context.console.progress("No records there. --follow waits for new ones.");
    }
    Ok(Exit::Ok)
}

/// How far one partition was read.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cursor {
    topic: String,
    partition: i32,
    /// The next offset.
    position: i64,
    /// Reading stops here, exclusive; `None` goes on for ever.
    stop: Option<i64>,
    /// Refusals since records last came.
    refusals: u32,
}

impl Cursor {
    fn of_topic(
        client: &mut Client,
        topic: &str,
        start: StartPosition,
        follows: bool,
    ) -> Result<Vec<Self>, Failure> {
        client.topic(topic)?;
        let starts = client.offsets(topic, LogPoint::Start)?;
        let ends = client.offsets(topic, LogPoint::End)?;
        let times = match start {
            StartPosition::Time(moment) => {
                client.offsets(topic, LogPoint::Time(moment.epoch_ms()))?
            }
            _ => BTreeMap::new(),
        };
        let cursor = |(partition, first): (i32, i64)| {
            let end = ends.get(&partition).copied().unwrap_or(first);
            let at_time = times.get(&partition).copied();
            let stop = (!follows).then_some(end);
            let position = position_of(start, first, end, at_time);
            Self { topic: topic.to_owned(), partition, position, stop, refusals: 0 }
        };
        let longest = ends.values().copied().max().unwrap_or_default();
        match start {
            StartPosition::Offset(offset) if offset > longest => {
                Err(Failure::OffsetBeyondEnd { topic: topic.to_owned(), offset, end: longest })
            }
            _ => Ok(starts.into_iter().map(cursor).collect()),
        }
    }

    fn is_done(&self) -> bool {
        self.stop.is_some_and(|stop| self.position >= stop)
    }
}

/// The first offset to read of a log from `first` to `end`. An offset outside the log means its
/// nearest end: partitions of one topic have different lengths.
fn position_of(start: StartPosition, first: i64, end: i64, at_time: Option<i64>) -> i64 {
    match start {
        StartPosition::Start => first,
        StartPosition::End => end,
        StartPosition::BeforeEnd(count) => end.saturating_sub(count).max(first),
        StartPosition::Offset(offset) => offset.clamp(first, end),
        StartPosition::Time(_) => at_time.unwrap_or(end),
    }
}

/// Reads all cursors forward.
struct LogReader<'c> {
    client: &'c mut Client,
    cursors: Vec<Cursor>,
}

impl LogReader<'_> {
    /// Asks every leader once and prints what came; `false` when every cursor is done.
    fn step(&mut self, printer: &mut Printer) -> Result<bool, Failure> {
        let by_leader = self.wanted_by_leader()?;
        let max_wait = WAIT_MAX / by_leader.len().max(1) as u32;
        let mut is_waiting = false;
        for (leader, wanted) in &by_leader {
            match self.client.fetch(*leader, wanted, max_wait) {
                Ok(fetched) => {
                    for partition in fetched {
                        is_waiting |= self.take(&partition, printer)?;
                    }
                }
                Err(error) if error.is_retriable() => {
                    self.count_refusal(wanted, error)?;
                    is_waiting = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if is_waiting {
            thread::sleep(RETRY_WAIT);
            self.client.forget_topics();
        }
        Ok(!by_leader.is_empty())
    }

    fn wanted_by_leader(&mut self) -> Result<BTreeMap<i32, Vec<FetchFrom>>, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<FetchFrom>> = BTreeMap::new();
        for cursor in self.cursors.iter().filter(|cursor| !cursor.is_done()) {
            let leader = self.client.leader(&cursor.topic, cursor.partition)?;
            by_leader.entry(leader).or_default().push(FetchFrom {
                topic: cursor.topic.clone(),
                partition: cursor.partition,
                offset: cursor.position,
            });
        }
        Ok(by_leader)
    }

    /// Prints the records of one partition; `true` if it has to be asked again later.
    fn take(&mut self, fetched: &FetchedPartition, printer: &mut Printer) -> Result<bool, Failure> {
        let is_same =
            |it: &&mut Cursor| it.topic == fetched.topic && it.partition == fetched.partition;
        let Some(cursor) = self.cursors.iter_mut().find(is_same) else { return Ok(false) };
        match &fetched.records {
            Ok(bytes) => {
                cursor.refusals = 0;
                print_batches(cursor, bytes, printer)?;
                Ok(false)
            }
            Err(code) if code.is(ErrorCode::OffsetOutOfRange) => {
                // Retention passed the cursor; what it would read next is the oldest record.
                let starts = self.client.offsets(&fetched.topic, LogPoint::Start)?;
                let first = starts.get(&fetched.partition).copied().unwrap_or_default();
                if first <= cursor.position {
                    return Err(refusal(fetched, *code).into());
                }
                cursor.position = first;
                Ok(false)
            }
            Err(code) => {
                let refused = refusal(fetched, *code);
                cursor.refusals += 1;
                if refused.is_retriable() && cursor.refusals < REFUSALS_MAX {
                    return Ok(true);
                }
                Err(refused.into())
            }
        }
    }

    fn count_refusal(&mut self, wanted: &[FetchFrom], error: ClientError) -> Result<(), Failure> {
        let is_wanted = |cursor: &Cursor| {
            wanted.iter().any(|it| it.topic == cursor.topic && it.partition == cursor.partition)
        };
        for cursor in self.cursors.iter_mut().filter(|cursor| is_wanted(cursor)) {
            cursor.refusals += 1;
            if cursor.refusals >= REFUSALS_MAX {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

fn refusal(fetched: &FetchedPartition, code: KafkaCode) -> ClientError {
    let action = format!("read {}-{}", fetched.topic, fetched.partition);
    ClientError::Refused { action, code, message: None }
}

/// Prints the records of whole batches from the cursor's position on and moves it behind them.
fn print_batches(cursor: &mut Cursor, bytes: &Bytes, printer: &mut Printer) -> Result<(), Failure> {
    let mut rest: &[u8] = bytes;
    while rest.len() >= BatchHeader::SIZE && !cursor.is_done() && !printer.is_done() {
        let position = cursor.position;
        let (topic, partition) = (cursor.topic.clone(), cursor.partition);
        let unreadable = |reason| ClientError::Batch { topic, partition, offset: position, reason };
        let size = BatchHeader::parse(rest).map_err(unreadable.clone())?.size();
        // A broker cuts the last batch where its limit is.
        let Some((batch, behind)) = rest.split_at_checked(size) else { return Ok(()) };
        rest = behind;
        print_batch(cursor, batch, printer).map_err(|error| match error {
            PrintError::Batch(reason) => Failure::from(unreadable(reason)),
            PrintError::Output(failure) => failure,
        })?;
    }
    Ok(())
}

enum PrintError {
    Batch(BatchError),
    Output(Failure),
}

impl From<BatchError> for PrintError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

fn print_batch(cursor: &mut Cursor, batch: &[u8], printer: &mut Printer) -> Result<(), PrintError> {
    let header = BatchHeader::parse(batch)?;
    header.verify_crc(batch).map_err(BatchError::from)?;
    if !header.attributes.is_control() {
        let opened = records(batch, DecompressionLimits::output_bytes(BATCH_BYTES_MAX))?;
        for record in &opened {
            let record = record?;
            let offset = record.offset.0;
            let is_behind = cursor.stop.is_some_and(|stop| offset >= stop);
            if offset < cursor.position || is_behind {
                continue;
            }
            let located = Located { topic: &cursor.topic, partition: cursor.partition, record };
            printer.print(&located).map_err(PrintError::Output)?;
            if printer.is_done() {
                return Ok(());
            }
        }
    }
    cursor.position = header.next_offset().0.max(cursor.position);
    Ok(())
}

/// Writes records until enough are written.
struct Printer {
    output: std::io::BufWriter<std::io::StdoutLock<'static>>,
    buffer: Vec<u8>,
    form: Form,
    printed: u64,
    printed_max: u64,
}

enum Form {
    Text(RecordFormat),
    Json,
    Tsv,
}

impl Printer {
    fn new(arguments: &ConsumeArguments, context: &Context) -> Result<Self, Failure> {
        let form = match context.console.format() {
            OutputFormat::Text => Form::Text(arguments.format.clone().unwrap_or_default()),
            OutputFormat::Json => Form::Json,
            OutputFormat::Tsv => Form::Tsv,
        };
        let mut output = context.console.stream();
        if matches!(form, Form::Tsv) && context.console.has_tsv_header() {
            writeln!(output, "{}", TSV_COLUMNS.join("\t")).map_err(Failure::Output)?;
        }
        let printed_max = arguments.count.unwrap_or(u64::MAX);
        Ok(Self { output, buffer: Vec::new(), form, printed: 0, printed_max })
    }

    fn is_done(&self) -> bool {
        self.printed >= self.printed_max
    }

    fn print(&mut self, located: &Located<'_>) -> Result<(), Failure> {
        self.buffer.clear();
        match &self.form {
            Form::Text(format) => format.write(located, &mut self.buffer),
            Form::Json => write_json(located, &mut self.buffer),
            Form::Tsv => write_tsv(located, &mut self.buffer),
        }
        self.printed += 1;
        self.output.write_all(&self.buffer).map_err(Failure::Output)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.output.flush().map_err(Failure::Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start_position::Moment;

    #[test]
    fn a_position_is_an_offset_between_the_ends_of_the_log() {
        let position = |start| position_of(start, 10, 30, None);
        assert_eq!(position(StartPosition::Start), 10);
        assert_eq!(position(StartPosition::End), 30);
        assert_eq!(position(StartPosition::BeforeEnd(5)), 25);
        assert_eq!(position(StartPosition::BeforeEnd(50)), 10);
        assert_eq!(position(StartPosition::Offset(20)), 20);
        assert_eq!(position(StartPosition::Offset(3)), 10, "retention removed it");
        assert_eq!(position(StartPosition::Offset(31)), 30, "another partition is longer");
        let time = StartPosition::Time(Moment::At(0));
        assert_eq!(position_of(time, 10, 30, Some(12)), 12);
        assert_eq!(position_of(time, 10, 30, None), 30, "every record is older");
    }
}
