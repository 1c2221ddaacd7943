//! `topic`: list, create, describe, delete.
//!
//! Creating asks nothing, like `mkdir`: nothing is lost by it, and an existing topic is refused.
//! Deleting loses records, so it tells what would be lost and asks.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::client::{
    Client, ClientError, ConfigResource, ConfigSetting, LogPoint, NewTopic, TopicView,
};
use crate::failure::{Exit, Failure};
use crate::output::{Paint, Report};
use crate::table::{Table, cell, list_cell};

/// List, create, describe and delete topics.
#[derive(Clone, Args, Debug)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
                  chronik topic list\n  \
                  chronik topic create orders --partitions 12"
)]
pub struct TopicArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: TopicVerb,
}

/// What to do with topics.
#[derive(Clone, Subcommand, Debug)]
pub enum TopicVerb {
    /// List topics.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  \
                      chronik topic list\n  \
                      chronik topic list -o json -b kafka.example:9092"
    )]
    List,
    /// Create topics.
    ///
    /// Asks nothing, because nothing is lost: a topic that exists is refused.
    #[command(after_help = "Examples:\n  \
                            chronik topic create orders --partitions 12\n  \
                            chronik topic create audit --config retention.ms=-1 --dry-run")]
    Create(CreateArguments),
    /// Show partitions, offsets and changed configs of topics.
    #[command(after_help = "Examples:\n  \
                            chronik topic describe orders\n  \
                            chronik topic describe orders -o tsv --tsv-header")]
    Describe(DescribeArguments),
    /// Delete topics with all their records.
    ///
    /// Tells what would be lost and asks; without a terminal it needs --yes.
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  \
                      chronik topic delete demo\n  \
                      chronik topic delete demo orders --yes"
    )]
    Delete(DeleteArguments),
}

/// Arguments of `topic create`.
#[derive(Clone, Args, Debug)]
pub struct CreateArguments {
    /// Names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Number of partitions; the cluster's default if left out.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Number of replicas; the cluster's default if left out.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replicas: Option<i16>,
    /// A topic config under Kafka's name; may be repeated.
    #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = parse_config)]
    configs: Vec<(String, String)>,
    /// Ask the cluster whether it would work, and create nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `topic describe`.
#[derive(Clone, Args, Debug)]
pub struct DescribeArguments {
    /// Names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
}

/// Arguments of `topic delete`.
#[derive(Clone, Args, Debug)]
pub struct DeleteArguments {
    /// Names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Show what would be lost, and delete nothing.
    #[arg(long)]
    dry_run: bool,
}

impl TopicVerb {
    /// The verb as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::List => "topic list",
            Self::Create(_) => "topic create",
            Self::Describe(_) => "topic describe",
            Self::Delete(_) => "topic delete",
        }
    }
}

fn parse_config(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() { Err("expected NAME=VALUE") } else { Ok((name.into(), value.into())) }
}

pub(crate) fn run(verb: &TopicVerb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        TopicVerb::List => list(context),
        TopicVerb::Create(arguments) => create(arguments, context),
        TopicVerb::Describe(arguments) => describe(arguments, context),
        TopicVerb::Delete(arguments) => delete(arguments, context),
    }
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let topics = context.client().topics()?;
    if topics.is_empty() {
        context.console.progress("There is no topic yet. Create one: chronik topic create demo");
    }
    context.console.report(&TopicList { topics: topics.iter().map(TopicRow::of).collect() })
}

#[derive(Serialize)]
struct TopicList {
    topics: Vec<TopicRow>,
}

#[derive(Serialize)]
struct TopicRow {
    name: String,
    partitions: usize,
    replicas: usize,
    topic_id: Option<String>,
    is_internal: bool,
}

impl TopicRow {
    fn of(topic: &TopicView) -> Self {
        Self {
            name: topic.name.clone(),
            partitions: topic.partitions.len(),
            replicas: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
            topic_id: topic_id(topic),
            is_internal: topic.is_internal,
        }
    }
}

fn topic_id(topic: &TopicView) -> Option<String> {
    (!topic.id.is_zero()).then(|| topic.id.to_string())
}

impl Report for TopicList {
    fn table(&self) -> Table {
        let mut table = Table::new(&["name", "partitions", "replicas", "topic_id"]);
        for topic in &self.topics {
            table.push(vec![
                cell(&topic.name),
                cell(topic.partitions),
                cell(topic.replicas),
                topic.topic_id.clone(),
            ]);
        }
        table
    }
}

fn create(arguments: &CreateArguments, context: &Context) -> Result<Exit, Failure> {
    let mut client = context.client();
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for name in &arguments.names {
        let topic = NewTopic {
            name: name.clone(),
            partitions: arguments.partitions,
            replicas: arguments.replicas,
            configs: arguments.configs.clone(),
        };
        let mut row = CreatedRow::of(&topic);
        match client.create_topic(&topic, arguments.dry_run) {
            Ok(created) => {
                row.topic_id = (!created.id.is_zero()).then(|| created.id.to_string());
                row.partitions = created.partitions.or(row.partitions);
                row.replicas = created.replicas.or(row.replicas);
                row.is_created = !arguments.dry_run;
            }
            Err(error) if error.is_unreachable() => return Err(error.into()),
            Err(error) => {
                row.error = Some(error.code());
                failures.push(error);
            }
        }
        rows.push(row);
    }
    let report = CreatedTopics { is_dry_run: arguments.dry_run, topics: rows };
    finish(&report, failures, report.topics.len(), context)
}

/// Prints the rows; if some of them failed, also why. A failure that is the only row is told as
/// itself.
fn finish<R: Report>(
    report: &R,
    mut failures: Vec<ClientError>,
    total: usize,
    context: &Context,
) -> Result<Exit, Failure> {
    match (failures.len(), total) {
        (0, _) => context.console.report(report),
        (1, 1) => Err(failures.remove(0).into()),
        (failed, total) => {
            let error = failures.remove(0);
            let first = format!("{} {error}", error.code());
            let failure = Failure::Rows { failed, total, things: "topics", first };
            context.console.report_failed(report, &failure)
        }
    }
}

#[derive(Serialize)]
struct CreatedTopics {
    is_dry_run: bool,
    topics: Vec<CreatedRow>,
}

#[derive(Serialize)]
struct CreatedRow {
    name: String,
    partitions: Option<i32>,
    replicas: Option<i16>,
    topic_id: Option<String>,
    is_created: bool,
    error: Option<&'static str>,
}

impl CreatedRow {
    fn of(topic: &NewTopic) -> Self {
        Self {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replicas: topic.replicas,
            topic_id: None,
            is_created: false,
            error: None,
        }
    }
}

impl Report for CreatedTopics {
    fn table(&self) -> Table {
        let mut table = Table::new(&["name", "partitions", "replicas", "topic_id", "result"]);
        for topic in &self.topics {
            let done = if self.is_dry_run { "would be created" } else { "created" };
            table.push(vec![
                cell(&topic.name),
                topic.partitions.and_then(cell),
                topic.replicas.and_then(cell),
                topic.topic_id.clone(),
                cell(topic.error.unwrap_or(done)),
            ]);
        }
        table
    }
}

fn describe(arguments: &DescribeArguments, context: &Context) -> Result<Exit, Failure> {
    let mut client = context.client();
    let topics: Result<Vec<_>, _> =
        arguments.names.iter().map(|name| TopicDetails::ask(&mut client, name)).collect();
    context.console.report(&TopicDescriptions { topics: topics? })
}

#[derive(Serialize)]
struct TopicDescriptions {
    topics: Vec<TopicDetails>,
}

#[derive(Serialize)]
struct TopicDetails {
    name: String,
    topic_id: Option<String>,
    is_internal: bool,
    partitions: Vec<PartitionRow>,
    /// Configs that are set on the topic itself.
    configs: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct PartitionRow {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    offline: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
}

impl TopicDetails {
    /// Offsets are left out while a partition has no leader to ask.
    fn ask(client: &mut Client, name: &str) -> Result<Self, ClientError> {
        let topic = client.topic(name)?;
        let is_led = topic.partitions.iter().all(|partition| partition.leader.is_some());
        let mut offsets = |point| {
            if is_led { client.offsets(name, point) } else { Ok(BTreeMap::new()) }
        };
        let (starts, ends) = (offsets(LogPoint::Start)?, offsets(LogPoint::End)?);
        let settings = client.describe_configs(&ConfigResource::Topic(name.to_owned()), None)?;
        let is_own = |setting: &ConfigSetting| setting.source == "topic";
        let configs = settings.into_iter().filter(is_own).map(|it| (it.name, it.value));
        let partitions = topic.partitions.iter().map(|partition| PartitionRow {
            partition: partition.index,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            in_sync: partition.in_sync.clone(),
            offline: partition.offline.clone(),
            start_offset: starts.get(&partition.index).copied(),
            end_offset: ends.get(&partition.index).copied(),
        });
        Ok(Self {
            name: topic.name.clone(),
            topic_id: topic_id(&topic),
            is_internal: topic.is_internal,
            partitions: partitions.collect(),
            configs: configs.collect(),
        })
    }

    /// Records between the two ends of all partitions; an upper bound after compaction.
    fn record_count(&self) -> i64 {
        let count = |it: &PartitionRow| {
            it.end_offset.unwrap_or_default() - it.start_offset.unwrap_or_default()
        };
        self.partitions.iter().map(count).sum()
    }
}

const PARTITION_COLUMNS: &[&str] = &[
    "topic",
    "partition",
    "leader",
    "leader_epoch",
    "replicas",
    "in_sync",
    "offline",
    "start_offset",
    "end_offset",
];

impl PartitionRow {
    fn cells(&self) -> Vec<Option<String>> {
        vec![
            cell(self.partition),
            self.leader.and_then(cell),
            cell(self.leader_epoch),
            list_cell(&self.replicas),
            list_cell(&self.in_sync),
            list_cell(&self.offline),
            self.start_offset.and_then(cell),
            self.end_offset.and_then(cell),
        ]
    }
}

impl Report for TopicDescriptions {
    fn table(&self) -> Table {
        let mut table = Table::new(PARTITION_COLUMNS);
        for topic in &self.topics {
            for partition in &topic.partitions {
                let name = std::iter::once(cell(&topic.name));
                table.push(name.chain(partition.cells()).collect());
            }
        }
        table
    }

    fn text(&self, _paint: Paint) -> String {
        let one = |topic: &TopicDetails| {
            let mut table = Table::new(&PARTITION_COLUMNS[1..]);
            topic.partitions.iter().for_each(|partition| table.push(partition.cells()));
            let mut text = format!("Topic   {}\n", topic.name);
            if let Some(id) = &topic.topic_id {
                text.push_str(&format!("Id      {id}\n"));
            }
            for (name, value) in &topic.configs {
                text.push_str(&format!("Config  {name}={}\n", value.as_deref().unwrap_or("-")));
            }
            text + &table.to_text()
        };
        self.topics.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

fn delete(arguments: &DeleteArguments, context: &Context) -> Result<Exit, Failure> {
    let mut client = context.client();
    let doomed: Result<Vec<_>, _> =
        arguments.names.iter().map(|name| TopicDetails::ask(&mut client, name)).collect();
    let doomed = doomed?;
    let mut rows: Vec<_> = doomed.iter().map(DeletedRow::of).collect();
    if arguments.dry_run {
        return context.console.report(&DeletedTopics { is_dry_run: true, topics: rows });
    }
    context.console.ask(&deletion_plan(&doomed))?;
    let mut failures = Vec::new();
    for row in &mut rows {
        match client.delete_topic(&row.name) {
            Ok(()) => row.is_deleted = true,
            Err(error) => {
                row.error = Some(error.code());
                failures.push(error);
            }
        }
    }
    let report = DeletedTopics { is_dry_run: false, topics: rows };
    finish(&report, failures, report.topics.len(), context)
}

/// What is lost, as sentences.
fn deletion_plan(topics: &[TopicDetails]) -> String {
    let one = |topic: &TopicDetails| {
        let (partitions, records) = (topic.partitions.len(), topic.record_count());
        format!("{} ({partitions} partitions, {records} records)", topic.name)
    };
    let list: Vec<_> = topics.iter().map(one).collect();
    format!("This deletes {}. The records cannot be brought back.", list.join(" and "))
}

#[derive(Serialize)]
struct DeletedTopics {
    is_dry_run: bool,
    topics: Vec<DeletedRow>,
}

#[derive(Serialize)]
struct DeletedRow {
    name: String,
    partitions: usize,
    records: i64,
    is_deleted: bool,
    error: Option<&'static str>,
}

impl DeletedRow {
    fn of(topic: &TopicDetails) -> Self {
        Self {
            name: topic.name.clone(),
            partitions: topic.partitions.len(),
            records: topic.record_count(),
            is_deleted: false,
            error: None,
        }
    }
}

impl Report for DeletedTopics {
    fn table(&self) -> Table {
        let mut table = Table::new(&["name", "partitions", "records", "result"]);
        for topic in &self.topics {
            let done = if self.is_dry_run { "would be deleted" } else { "deleted" };
            table.push(vec![
                cell(&topic.name),
                cell(topic.partitions),
                cell(topic.records),
                cell(topic.error.unwrap_or(done)),
            ]);
        }
        table
    }
}
