//! `dev`: a server in this process, for trying things out.
//!
//! The server is the real one, with an fsync before every acknowledgement; only its data
//! directory, and with `--port 0` its ports, are chosen so that it gets in nobody's way.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use chronik_server::{DevOptions, ReadyInfo};
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::arguments::OutputFormat;
use crate::failure::Failure;
use crate::output::{Paint, Report};
use crate::table::{Table, cell};

const DATA_DIRECTORY: &str = "./chronik-dev";

/// Start a server to try things out, with its data in ./chronik-dev; Ctrl-C stops it.
///
/// Topics are created when they are first used. With -o json the ready message is one object
/// with the addresses, so that scripts can use --port 0.
#[derive(Clone, Args, Debug)]
#[command(after_help = "Examples:\n  \
                        chronik dev\n  \
                        chronik dev --ephemeral --port 0 --topic demo:1 -o json")]
pub struct DevArguments {
    /// Number of nodes; this release runs one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u16,
    /// Keep the data in a temporary directory and remove it at the end.
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Port for Kafka clients; 0 takes free ports, also for HTTP.
    #[arg(long, value_name = "PORT", default_value_t = 9_092)]
    port: u16,
    /// Directory for the data [default: ./chronik-dev].
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A topic to create before the server is ready; may be repeated.
    #[arg(long = "topic", value_name = "NAME[:PARTITIONS[:REPLICAS]]")]
    topics: Vec<DevTopic>,
}

/// An argument of `--topic`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct DevTopic {
    name: String,
    partitions: Option<i32>,
}

/// An argument of `--topic` that cannot be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum InvalidTopic {
    #[error("expected NAME, NAME:PARTITIONS or NAME:PARTITIONS:REPLICAS")]
    Form,
    #[error("a server of one node keeps one replica")]
    Replicas,
}

impl FromStr for DevTopic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        let mut parts = text.split(':');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or(InvalidTopic::Form)?;
        let mut count = || -> Result<Option<i32>, InvalidTopic> {
            let number = |part: &str| part.parse().ok().filter(|count| *count > 0);
            parts.next().map(|part| number(part).ok_or(InvalidTopic::Form)).transpose()
        };
        let (partitions, replicas) = (count()?, count()?);
        if parts.next().is_some() {
            return Err(InvalidTopic::Form);
        }
        if replicas.is_some_and(|replicas| replicas > 1) {
            return Err(InvalidTopic::Replicas);
        }
        Ok(Self { name: name.to_owned(), partitions })
    }
}

pub(crate) fn run(arguments: &DevArguments, context: &Context) -> ExitCode {
    if arguments.nodes != 1 {
        return context.console.fail(&Failure::OneNodeOnly { nodes: arguments.nodes }).into();
    }
    let place = match DataPlace::of(arguments) {
        Ok(place) => place,
        Err(failure) => return context.console.fail(&failure).into(),
    };
    let topics = arguments.topics.iter().map(|it| (it.name.clone(), it.partitions));
    let options = DevOptions {
        data_dir: place.path.clone(),
        kafka_port: arguments.port,
        topics: topics.collect(),
        set: Vec::new(),
    };
    let mut was_ready = false;
    let exit = chronik_server::run_dev(&options, |ready| {
        was_ready = true;
        // A reader that went away does not stop the server.
        let _ = context.console.report(&Ready::of(ready, place.is_temporary));
    });
    // People have the server's own message; a program that reads standard output gets this one.
    if !was_ready && context.console.format() == OutputFormat::Json {
        context.console.fail(&Failure::Server);
    }
    place.clear();
    exit
}

/// Where the data of one run is.
struct DataPlace {
    path: PathBuf,
    is_temporary: bool,
}

impl DataPlace {
    fn of(arguments: &DevArguments) -> Result<Self, Failure> {
        if !arguments.ephemeral {
            let path = arguments.data_dir.clone().unwrap_or_else(|| DATA_DIRECTORY.into());
            return Ok(Self { path, is_temporary: false });
        }
        let path = std::env::temp_dir().join(format!("chronik-dev-{}", std::process::id()));
        // A directory of this name was left by a process that no longer exists.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)
            .map_err(|source| Failure::TemporaryDirectory { path: path.clone(), source })?;
        Ok(Self { path, is_temporary: true })
    }

    /// Removes a temporary directory; what cannot be removed is left to the system's own care.
    fn clear(&self) {
        if self.is_temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The ready message.
#[derive(Serialize)]
struct Ready {
    kafka: String,
    advertised: String,
    http: String,
    data_dir: String,
    is_ephemeral: bool,
    cluster_id: String,
    pids: Vec<u32>,
    ready_ms: u64,
}

impl Ready {
    fn of(ready: &ReadyInfo, is_ephemeral: bool) -> Self {
        Self {
            kafka: ready.kafka_addr.to_string(),
            advertised: ready.advertised.clone(),
            http: ready.http_addr.to_string(),
            data_dir: ready.data_dir.display().to_string(),
            is_ephemeral,
            cluster_id: ready.cluster_id.clone(),
            pids: vec![std::process::id()],
            ready_ms: ready.ready_in.as_millis() as u64,
        }
    }

    /// What to type to reach this server: nothing more where the default does.
    fn bootstrap_flag(&self) -> String {
        if self.advertised == "localhost:9092" {
            String::new()
        } else {
            format!(" -b {}", self.advertised)
        }
    }
}

impl Report for Ready {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "kafka",
            "advertised",
            "http",
            "data_dir",
            "cluster_id",
            "pid",
            "ready_ms",
        ]);
        table.push(vec![
            cell(&self.kafka),
            cell(&self.advertised),
            cell(&self.http),
            cell(&self.data_dir),
            cell(&self.cluster_id),
            self.pids.first().and_then(cell),
            cell(self.ready_ms),
        ]);
        table
    }

    fn text(&self, paint: Paint) -> String {
        let local = |address: &str| match address.rsplit_once(':') {
            Some((host, port)) if is_loopback(host) => format!("localhost:{port}"),
            _ => address.to_owned(),
        };
        let kafka = local(&self.kafka);
        let http = format!("http://{}", local(&self.http));
        let data = &self.data_dir;
        let width = [&kafka, &http, data].map(|text| text.len()).into_iter().max().unwrap_or(0);
        let data_note = if self.is_ephemeral {
            "removed at the end; fsync before every ack"
        } else {
            "fsync before every ack"
        };
        format!(
            "chronik {version} {ready} in {ms} ms\n  \
             Kafka      {kafka:width$}  (clients are told: {advertised})\n  \
             HTTP       {http:width$}  metrics and health\n  \
             Data       {data:width$}  {data_note}\n  \
             Try        echo hello | chronik produce demo{flag}\n",
            version = env!("CARGO_PKG_VERSION"),
            ready = paint.good("ready"),
            ms = self.ready_ms,
            advertised = self.advertised,
            flag = self.bootstrap_flag(),
        )
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_a_name_with_up_to_two_numbers() {
        let topic = |name: &str, partitions| Ok(DevTopic { name: name.to_owned(), partitions });
        assert_eq!("demo".parse(), topic("demo", None));
        assert_eq!("demo:3".parse(), topic("demo", Some(3)));
        assert_eq!("demo:3:1".parse(), topic("demo", Some(3)));
        assert_eq!("demo:3:2".parse::<DevTopic>(), Err(InvalidTopic::Replicas));
        for text in ["", ":3", "demo:", "demo:0", "demo:x", "demo:1:1:1"] {
            assert_eq!(text.parse::<DevTopic>(), Err(InvalidTopic::Form), "{text:?}");
        }
    }

    #[test]
    fn the_ready_message_says_what_to_do_next() {
        let ready = |advertised: &str, kafka: &str| Ready {
            kafka: kafka.to_owned(),
            advertised: advertised.to_owned(),
            http: "127.0.0.1:6092".to_owned(),
            data_dir: "./chronik-dev".to_owned(),
            is_ephemeral: false,
            cluster_id: "fX9".to_owned(),
            pids: vec![1],
            ready_ms: 38,
        };
        let text = ready("localhost:9092", "127.0.0.1:9092").text(Paint::plain());
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!(
                "chronik {version} ready in 38 ms\n  \
                 Kafka      localhost:9092         (clients are told: localhost:9092)\n  \
                 HTTP       http://localhost:6092  metrics and health\n  \
                 Data       ./chronik-dev          fsync before every ack\n  \
                 Try        echo hello | chronik produce demo\n"
            )
        );
        let text = ready("localhost:4711", "[::1]:4711").text(Paint::plain());
        assert!(text.ends_with("produce demo -b localhost:4711\n"), "{text}");
    }
}
