//! `produce`: records from standard input to a topic.
//!
//! A thread reads, so that records that came are sent after a few milliseconds even while the
//! next one is still being typed.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use chronik_record::{Codec, RecordHeader};
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::client::{Acks, PartitionSummary, Producer, ProducerOptions, RecordToSend, TopicView};
use crate::failure::{Exit, Failure};
use crate::output::Report;
use crate::record_input::{InputDefect, InputForm, InputRecord, read_record};
use crate::start_position::now_ms;
use crate::table::{Table, cell};

/// Longest wait of a record for company in its batch.
const LINGER: Duration = Duration::from_millis(5);
/// Records that were read and wait for a batch, at most.
const QUEUE_RECORDS: usize = 256;

/// Send records from standard input to a topic.
///
/// Each line is a record (see --from). A record with a key goes to the partition that every
/// Kafka client gives that key; others are spread. With --acks all, which is the default, a
/// record that had to be sent twice is stored once. The result tells the offsets.
#[derive(Clone, Args, Debug)]
#[command(after_help = "Examples:\n  \
                        echo hello | chronik produce demo\n  \
                        chronik produce orders --from jsonl --compression zstd < orders.jsonl")]
pub struct ProduceArguments {
    /// The topic; the cluster may create it.
    topic: String,
    /// Key of records that have none of their own.
    #[arg(short, long, value_name = "KEY")]
    key: Option<String>,
    /// A header to add to every record; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The partition of every record, whatever its key.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Form of the input.
    #[arg(long, value_enum, default_value_t)]
    from: InputForm,
    /// What has to hold before a record counts as sent.
    #[arg(long, value_enum, default_value_t, allow_hyphen_values = true)]
    acks: Acks,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "CODEC", default_value = "none")]
    compression: Codec,
    /// Read the input and tell which partitions it would go to, but send nothing.
    #[arg(long)]
    dry_run: bool,
}

fn parse_header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A line that was read, or why there is none.
type Line = Result<InputRecord, (u64, InputDefect)>;

pub(crate) fn run(arguments: &ProduceArguments, context: &Context) -> Result<Exit, Failure> {
    let mut client = context.client();
    let name = &arguments.topic;
    let topic =
        if arguments.dry_run { client.topic(name)? } else { client.topic_or_create(name)? };
    check_partition(&topic, arguments.partition)?;
    let options = ProducerOptions {
        acks: if arguments.dry_run { Acks::None } else { arguments.acks },
        codec: arguments.compression,
        partition: arguments.partition,
    };
    let producer = Producer::new(&mut client, topic, options)?;
    let (sender, lines) = sync_channel(QUEUE_RECORDS);
    let form = arguments.from;
    // The thread ends with the input; if sending fails first, it ends with the process.
    drop(thread::spawn(move || read_lines(form, &sender)));
    if io::stdin().is_terminal() {
        context.console.progress("Type one record a line; Ctrl-D ends.");
    }
    let sent = if arguments.dry_run {
        count_only(&producer, &lines, arguments)?
    } else {
        send_all(producer, &lines, arguments)?
    };
    context.console.report(&Produced::of(arguments, &sent))
}

fn check_partition(topic: &TopicView, partition: Option<i32>) -> Result<(), Failure> {
    match partition {
        Some(partition) if topic.partition(partition).is_none() => {
            let last = topic.partitions.len() as i32 - 1;
            Err(Failure::NoSuchPartition { topic: topic.name.clone(), partition, last })
        }
        _ => Ok(()),
    }
}

fn read_lines(form: InputForm, sender: &SyncSender<Line>) {
    let mut input = io::stdin().lock();
    for number in 1.. {
        let line = match read_record(&mut input, form) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => return,
            Err(defect) => Err((number, defect)),
        };
        let is_last = line.is_err();
        if sender.send(line).is_err() || is_last {
            return;
        }
    }
}

/// Sends lines until they end. Records before a defect are sent before it is reported.
fn send_all(
    mut producer: Producer<'_>,
    lines: &Receiver<Line>,
    arguments: &ProduceArguments,
) -> Result<BTreeMap<i32, PartitionSummary>, Failure> {
    let mut oldest = Instant::now();
    loop {
        let received = if producer.is_empty() {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            lines.recv_timeout(LINGER.saturating_sub(oldest.elapsed()))
        };
        match received {
            Ok(Ok(record)) => {
                if producer.is_empty() {
                    oldest = Instant::now();
                }
                push(&mut producer, &record, arguments)?;
            }
            Ok(Err((line, defect))) => {
                producer.flush()?;
                let sent = producer.sent().values().map(|summary| summary.records).sum();
                return Err(Failure::Input { line, defect, sent });
            }
            Err(RecvTimeoutError::Timeout) => producer.flush()?,
            Err(RecvTimeoutError::Disconnected) => {
                producer.flush()?;
                return Ok(producer.sent().clone());
            }
        }
    }
}

fn push(
    producer: &mut Producer<'_>,
    record: &InputRecord,
    arguments: &ProduceArguments,
) -> Result<(), Failure> {
    let own = record.headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
    let added =
        arguments.headers.iter().map(|(key, value)| (key.as_bytes(), Some(value.as_bytes())));
    let headers: Vec<_> =
        own.chain(added).map(|(key, value)| RecordHeader { key, value }).collect();
    producer.push(&RecordToSend {
        key: key_of(record, arguments),
        value: record.value.as_deref(),
        headers: &headers,
        timestamp_ms: record.timestamp_ms.unwrap_or_else(now_ms),
    })?;
    Ok(())
}

fn key_of<'a>(record: &'a InputRecord, arguments: &'a ProduceArguments) -> Option<&'a [u8]> {
    record.key.as_deref().or(arguments.key.as_deref().map(str::as_bytes))
}

/// Counts lines by the partition they would go to.
fn count_only(
    producer: &Producer<'_>,
    lines: &Receiver<Line>,
    arguments: &ProduceArguments,
) -> Result<BTreeMap<i32, PartitionSummary>, Failure> {
    let mut counted: BTreeMap<i32, PartitionSummary> = BTreeMap::new();
    for line in lines {
        let record = line.map_err(|(line, defect)| Failure::Input { line, defect, sent: 0 })?;
        let partition = producer.partition_of(key_of(&record, arguments));
        counted.entry(partition).or_default().records += 1;
    }
    Ok(counted)
}

#[derive(Serialize)]
struct Produced {
    topic: String,
    is_dry_run: bool,
    records: u64,
    partitions: Vec<ProducedRow>,
}

#[derive(Serialize)]
struct ProducedRow {
    partition: i32,
    records: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

impl Produced {
    fn of(arguments: &ProduceArguments, sent: &BTreeMap<i32, PartitionSummary>) -> Self {
        let row = |(partition, summary): (&i32, &PartitionSummary)| ProducedRow {
            partition: *partition,
            records: summary.records,
            first_offset: summary.first_offset,
            last_offset: summary.last_offset,
        };
        Self {
            topic: arguments.topic.clone(),
            is_dry_run: arguments.dry_run,
            records: sent.values().map(|summary| summary.records).sum(),
            partitions: sent.iter().map(row).collect(),
        }
    }
}

impl Report for Produced {
    fn table(&self) -> Table {
        let mut table =
            Table::new(&["topic", "partition", "records", "first_offset", "last_offset"]);
        for row in &self.partitions {
            table.push(vec![
                cell(&self.topic),
                cell(row.partition),
                cell(row.records),
                row.first_offset.and_then(cell),
                row.last_offset.and_then(cell),
            ]);
        }
        table
    }
}
