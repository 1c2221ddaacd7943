//! `config`: what a broker or topic is set to, and what a server started here would be set to.

use std::path::PathBuf;

use chronik_config::{Sources, load};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::client::{Client, ClientError, ConfigResource, ConfigSetting};
use crate::failure::{Exit, Failure};
use crate::output::{Paint, Report};
use crate::table::{Table, cell};

/// Show configs of brokers, topics and this machine.
#[derive(Clone, Args, Debug)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
                  chronik config list --topic orders\n  \
                  chronik config list --origin"
)]
pub struct ConfigArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: ConfigVerb,
}

/// What to do with configs.
#[derive(Clone, Subcommand, Debug)]
pub enum ConfigVerb {
    /// List configs with where each value comes from.
    ///
    /// Without a flag these are the configs of the broker that answers, as it tells them.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  \
                      chronik config list --topic orders\n  \
                      chronik config list --origin"
    )]
    List(Place),
    /// Show one config; as text only its value.
    #[command(after_help = "Examples:\n  \
                            chronik config get retention.ms --topic orders\n  \
                            chronik config get listener.kafka_port --origin")]
    Get(GetArguments),
}

/// Whose configs.
#[derive(Clone, Args, Debug)]
pub struct Place {
    /// The configs of a topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// The configs of the broker with this id.
    #[arg(long, value_name = "ID", conflicts_with = "topic")]
    broker: Option<i32>,
    /// What a server started here would use, and the file line, variable or default each value
    /// comes from; asks no server.
    #[arg(long, conflicts_with_all = ["topic", "broker"])]
    origin: bool,
    /// The configuration file for --origin, instead of the first one found.
    #[arg(short, long, value_name = "FILE", requires = "origin")]
    config: Option<PathBuf>,
}

/// Arguments of `config get`.
#[derive(Clone, Args, Debug)]
pub struct GetArguments {
    /// Name of the config.
    #[arg(value_name = "NAME")]
    name: String,
    /// Whose.
    #[command(flatten)]
    place: Place,
}

impl ConfigVerb {
    /// The verb as it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "config list",
            Self::Get(_) => "config get",
        }
    }
}

pub(crate) fn run(verb: &ConfigVerb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        ConfigVerb::List(place) => {
            let list = if place.origin { local(place)? } else { remote(place, None, context)? };
            context.console.report(&list)
        }
        ConfigVerb::Get(GetArguments { name, place }) => {
            let list =
                if place.origin { local(place)? } else { remote(place, Some(name), context)? };
            let resource = list.resource.clone();
            let found = list.configs.into_iter().find(|row| row.name == *name);
            let row =
                found.ok_or_else(|| Failure::UnknownConfig { resource, name: name.clone() })?;
            context.console.report(&row)
        }
    }
}

/// What the loader of the server makes of this machine's file and environment.
fn local(place: &Place) -> Result<ConfigList, Failure> {
    let sources = Sources::from_process(place.config.as_deref()).map_err(Failure::Configuration)?;
    let loaded = load(&sources).map_err(Failure::Configuration)?;
    let row = |entry: chronik_config::Entry| ConfigRow {
        name: entry.key.to_owned(),
        value: entry.value.map(|value| value.plain()),
        source: entry.origin.to_string(),
    };
    let configs = loaded.entries().into_iter().map(row).collect();
    Ok(ConfigList { resource: "this machine".to_owned(), configs })
}

fn remote(place: &Place, only: Option<&str>, context: &Context) -> Result<ConfigList, Failure> {
    let mut client = context.client();
    let resource = match (&place.topic, place.broker) {
        (Some(topic), _) => ConfigResource::Topic(topic.clone()),
        (None, Some(broker)) => ConfigResource::Broker(broker),
        (None, None) => ConfigResource::Broker(answering_broker(&mut client)?),
    };
    let row = |setting: ConfigSetting| ConfigRow {
        name: setting.name,
        value: setting.value,
        source: setting.source,
    };
    let configs = client.describe_configs(&resource, only)?.into_iter().map(row).collect();
    let resource = match resource {
        ConfigResource::Topic(name) => format!("topic {name}"),
        ConfigResource::Broker(id) => format!("broker {id}"),
    };
    Ok(ConfigList { resource, configs })
}

/// The controller: a broker that is there in any cluster.
fn answering_broker(client: &mut Client) -> Result<i32, ClientError> {
    let cluster = client.describe_cluster()?;
    let first = cluster.brokers.first().map_or(cluster.controller, |broker| broker.id);
    let is_broker = cluster.brokers.iter().any(|broker| broker.id == cluster.controller);
    Ok(if is_broker { cluster.controller } else { first })
}

#[derive(Serialize)]
struct ConfigList {
    resource: String,
    configs: Vec<ConfigRow>,
}

#[derive(Serialize)]
struct ConfigRow {
    name: String,
    value: Option<String>,
    source: String,
}

const COLUMNS: &[&str] = &["name", "value", "source"];

impl ConfigRow {
    fn cells(&self) -> Vec<Option<String>> {
        vec![cell(&self.name), self.value.clone(), cell(&self.source)]
    }
}

impl Report for ConfigList {
    fn table(&self) -> Table {
        let mut table = Table::new(COLUMNS);
        self.configs.iter().for_each(|row| table.push(row.cells()));
        table
    }
}

impl Report for ConfigRow {
    fn table(&self) -> Table {
        let mut table = Table::new(COLUMNS);
        table.push(self.cells());
        table
    }

    /// Only the value, for `$(...)`.
    fn text(&self, _paint: Paint) -> String {
        format!("{}\n", self.value.as_deref().unwrap_or_default())
    }
}
