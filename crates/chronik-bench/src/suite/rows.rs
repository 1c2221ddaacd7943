//! The rows of the suite: names, commands, and the figure that counts.

/// What a row does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// One load.
    Load,
    /// A load at half of the rate that a closed loop reached just before.
    HalfOfMaximum,
    /// A backlog is written first; then it is read.
    CatchUp {
        /// True if a paced producer writes at the same time.
        with_live: bool,
    },
    /// A backlog that fits into the server's memory is written; then it is read again and again.
    TailFetch,
    /// A counted load; the server is killed and started again in the middle of it.
    KillInTheMiddle,
    /// Topics are created.
    CreateTopics,
    /// Partitions and connections without load.
    Idle,
    /// A backlog is written; the server is killed and started again.
    Restart,
    /// A load on a disk that takes longer to sync by so many microseconds.
    SlowDisk {
        /// Added to every sync.
        delay_micros: u32,
    },
    /// A load beside threads that only compute, and alone before and after.
    Noisy {
        /// Their number.
        hogs: u32,
    },
    /// A load beside a neighbour, and alone before and after.
    Beside(Neighbour),
}

/// Other clients of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Neighbour {
    /// Consumers that ask for much and hardly read.
    SlowConsumers,
    /// A reader of a backlog at full speed.
    Backlog,
    /// The same at another server of the machine: what the reader costs the producers there, it
    /// costs them without their server.
    BacklogElsewhere,
    /// Connections that do nothing.
    IdleConnections,
    /// All of them.
    Together,
}

/// The load of the row `neighbours`.
const PRODUCERS: &str = "-c 64 --connections per-task --rate 5k --acks 1";

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What it measures.
    pub what: &'static str,
    /// The figure that counts.
    pub primary: &'static str,
    /// True if the same load against the floors says something.
    pub has_floor: bool,
    /// Its variants, at least one.
    pub variants: &'static [Variant],
}

/// A variant of a row.
#[derive(Debug)]
pub(crate) struct Variant {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Command line of its load.
    line: &'static str,
    /// What is added to it for a trial.
    small: &'static str,
}

impl Variant {
    /// The command line of the load, as words.
    pub(crate) fn words(&self, is_small: bool) -> Vec<String> {
        let small = if is_small { self.small } else { "" };
        let words = self.line.split_whitespace().chain(small.split_whitespace());
        words.map(str::to_owned).collect()
    }

    /// True if librdkafka makes the load.
    pub(crate) fn needs_librdkafka(&self) -> bool {
        self.line.contains("--client rdkafka")
    }
}

const fn load(name: &'static str, line: &'static str) -> Variant {
    variant(name, Kind::Load, line)
}

const fn variant(name: &'static str, kind: Kind, line: &'static str) -> Variant {
    Variant { name, kind, line, small: "" }
}

const fn row(
    name: &'static str,
    what: &'static str,
    primary: &'static str,
    variants: &'static [Variant],
) -> Row {
    Row { name, what, primary, has_floor: true, variants }
}

const fn without_floor(
    name: &'static str,
    what: &'static str,
    primary: &'static str,
    variants: &'static [Variant],
) -> Row {
    Row { name, what, primary, has_floor: false, variants }
}

/// Every row that one node can run, in order.
pub(crate) const ROWS: &[Row] = &[
    row(
        "single-64",
        "64 connections, one request of one message each",
        "requests_per_second",
        &[
            load("acks 1", "-c 64 --connections per-task --acks 1"),
            load("acks 0", "-c 64 --connections per-task --acks 0"),
            load("acks all", "-c 64 --connections per-task --acks all"),
        ],
    ),
    row(
        "single-128",
        "128 connections, one request of one message each",
        "requests_per_second",
        &[
            load("acks 1", "-c 128 --connections per-task --acks 1"),
            load("acks 0", "-c 128 --connections per-task --acks 0"),
            load("acks all", "-c 128 --connections per-task --acks all"),
        ],
    ),
    without_floor(
        "one-in-flight",
        "one connection, one message of 100 B at a time",
        "p50_ms",
        &[load("acks all", "-c 1 --connections per-task --acks all -s 100")],
    ),
    row(
        "plan-64",
        "the plan's command: 64 tasks share one connection",
        "messages_per_second",
        &[load("acks 1", "-c 64")],
    ),
    row(
        "plan-128",
        "the plan's command: 128 tasks share one connection",
        "messages_per_second",
        &[load("acks 1", "-c 128")],
    ),
    row(
        "batch-100B",
        "4 producers, 6 partitions, batches of 64 KB of 100 B messages",
        "megabytes_per_second",
        &[
            load(
                "acks 1",
                "-c 4 --connections per-task --in-flight 6000 --linger-ms 5 --batch-size 65536 \
                 -s 100 -p 6 --acks 1",
            ),
            load(
                "acks all",
                "-c 4 --connections per-task --in-flight 6000 --linger-ms 5 --batch-size 65536 \
                 -s 100 -p 6 --acks all",
            ),
        ],
    ),
    row(
        "batch-1KB",
        "4 producers, 6 partitions, batches of 64 KB of 1 KB messages",
        "megabytes_per_second",
        &[
            load(
                "acks 1",
                "-c 4 --connections per-task --in-flight 1000 --linger-ms 5 --batch-size 65536 \
                 -s 1024 -p 6 --acks 1",
            ),
            load(
                "acks all",
                "-c 4 --connections per-task --in-flight 1000 --linger-ms 5 --batch-size 65536 \
                 -s 1024 -p 6 --acks all",
            ),
        ],
    ),
    // In the first seconds the files of new partitions are created, at a third of a core.
    row(
        "parts-1000",
        "64 and 1,000 connections over 1,000 partitions, and 4 producers of 1 KB messages",
        "server_cpu_micros_per_request",
        &[
            Variant {
                small: "-p 50 -w 1",
                ..load("64 connections", "-c 64 --connections per-task --acks 1 -p 1000 -w 5")
            },
            Variant {
                small: "-p 50 -c 50 -w 1",
                ..load("1,000 connections", "-c 1000 --connections per-task --acks 1 -p 1000 -w 5")
            },
            Variant {
                small: "-p 50",
                ..load(
                    "batches",
                    "-c 4 --connections per-task --in-flight 20000 --linger-ms 5 --batch-size \
                     65536 -s 1024 --acks 1 -p 1000",
                )
            },
        ],
    ),
    without_floor(
        "rate-e2e",
        "open loop, one consumer: time until the consumer has the message",
        "p99_ms",
        &[
            load("1 K/s", "-m e2e -c 256 --rate 1k --arrival poisson"),
            load("10 K/s", "-m e2e -c 256 --rate 10k --arrival poisson"),
            variant("half of maximum", Kind::HalfOfMaximum, "-m e2e -c 256 --arrival poisson"),
        ],
    ),
    without_floor(
        "tail-fanout",
        "50 MB/s in, read at the tail by every consumer",
        "server_cpu_seconds_per_gigabyte_read",
        &[
            load(
                "1 consumer",
                "-m mixed -c 2000 --connections 4 --linger-ms 2 --batch-size 65536 -s 1024 --rate \
                 50k --consumers 1",
            ),
            load(
                "8 consumers",
                "-m mixed -c 2000 --connections 4 --linger-ms 2 --batch-size 65536 -s 1024 --rate \
                 50k --consumers 8",
            ),
        ],
    ),
    without_floor(
        "catchup-warm",
        "a backlog of 2 GB in the page cache, read by one consumer",
        "megabytes_per_second",
        &[
            Variant {
                small: "-n 60000",
                ..variant("alone", Kind::CatchUp { with_live: false }, "-n 2000000 -s 1000")
            },
            Variant {
                small: "-n 60000",
                ..variant("with 20 MB/s", Kind::CatchUp { with_live: true }, "-n 2000000 -s 1000")
            },
        ],
    ),
    without_floor(
        "tail-fetch",
        "30 MB that are still in the server's memory, read again and again",
        "megabytes_per_second",
        &[
            Variant {
                small: "-n 3000",
                ..variant("1 consumer", Kind::TailFetch, "-n 30000 -s 1000 --consumers 1")
            },
            Variant {
                small: "-n 3000",
                ..variant("8 consumers", Kind::TailFetch, "-n 30000 -s 1000 --consumers 8")
            },
        ],
    ),
    without_floor(
        "librdkafka-produce",
        "one producer of librdkafka, 100,000 messages under way or more",
        "messages_per_second",
        &[
            load(
                "100 B",
                "--client rdkafka -c 1 --in-flight 200000 --linger-ms 5 --batch-size 1000000 \
                 --acks all -s 100",
            ),
            load(
                "256 B, 6 partitions",
                "--client rdkafka -c 1 --in-flight 200000 --linger-ms 5 --batch-size 1000000 \
                 --acks all -s 256 -p 6",
            ),
            load(
                "1 KB",
                "--client rdkafka -c 1 --in-flight 100000 --linger-ms 5 --batch-size 1000000 \
                 --acks all -s 1024",
            ),
        ],
    ),
    without_floor(
        "librdkafka-consume",
        "a backlog in the page cache, read by one consumer of librdkafka, message by message",
        "messages_per_second",
        &[
            Variant {
                small: "-n 60000",
                ..variant(
                    "1 KB",
                    Kind::CatchUp { with_live: false },
                    "-n 1000000 -s 1024 --client rdkafka",
                )
            },
            Variant {
                small: "-n 100000",
                ..variant(
                    "100 B",
                    Kind::CatchUp { with_live: false },
                    "-n 3000000 -s 100 --client rdkafka",
                )
            },
        ],
    ),
    without_floor(
        "acks-ladder",
        "the same open loop with each level of acknowledgement",
        "p50_ms",
        &[
            load("acks 0", "-c 64 --connections per-task --rate 2k --acks 0"),
            load("acks 1", "-c 64 --connections per-task --rate 2k --acks 1"),
            load("acks all", "-c 64 --connections per-task --rate 2k --acks all"),
        ],
    ),
    without_floor(
        "no-loss-1M",
        "1 M messages of idempotent producers; kill -9 and restart in the middle; audit",
        "lost",
        &[Variant {
            small: "-n 100000",
            ..variant(
                "kill -9",
                Kind::KillInTheMiddle,
                "-m verify -c 512 --connections 8 -p 6 -n 1000000",
            )
        }],
    ),
    without_floor(
        "meta-write",
        "topics created by 8 tasks",
        "operations_per_second",
        &[variant("create", Kind::CreateTopics, "-m metadata -c 8")],
    ),
    without_floor(
        "idle",
        "1,000 partitions and 1,000 connections without load",
        "server_cpu_percent",
        &[Variant { small: "-p 50 -c 50", ..variant("idle", Kind::Idle, "-p 1000 -c 1000") }],
    ),
    without_floor(
        "restart",
        "1 GB over 1,000 partitions, kill -9: time to the first acknowledgement",
        "first_ack_ms",
        &[Variant {
            small: "-p 50 -n 30000",
            ..variant("kill -9", Kind::Restart, "-p 1000 -n 1000000 -s 1000")
        }],
    ),
    without_floor(
        "slow-disk",
        "64 connections; every sync takes longer",
        "requests_per_second",
        &[
            variant(
                "0.5 ms",
                Kind::SlowDisk { delay_micros: 500 },
                "-c 64 --connections per-task --acks 1",
            ),
            variant(
                "2 ms",
                Kind::SlowDisk { delay_micros: 2_000 },
                "-c 64 --connections per-task --acks 1",
            ),
            variant(
                "10 ms",
                Kind::SlowDisk { delay_micros: 10_000 },
                "-c 64 --connections per-task --acks 1",
            ),
        ],
    ),
    without_floor(
        "noisy",
        "64 connections beside two threads that only compute, and alone before and after",
        "rate_retained_percent",
        &[variant("2 hogs", Kind::Noisy { hogs: 2 }, "-c 64 --connections per-task --acks 1")],
    ),
    without_floor(
        "neighbours",
        "64 producers in an open loop of 5,000 msg/s beside other clients, and alone before and after",
        "interval_p99_ratio",
        &[
            variant("8 slow consumers", Kind::Beside(Neighbour::SlowConsumers), PRODUCERS),
            variant("reader of 1 GB", Kind::Beside(Neighbour::Backlog), PRODUCERS),
            variant(
                "reader of 1 GB elsewhere",
                Kind::Beside(Neighbour::BacklogElsewhere),
                PRODUCERS,
            ),
            variant("5,000 idle connections", Kind::Beside(Neighbour::IdleConnections), PRODUCERS),
            variant("all of them", Kind::Beside(Neighbour::Together), PRODUCERS),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;
    use crate::librdkafka;
    use crate::plan::Plan;

    #[test]
    fn every_line_of_every_row_is_a_run_that_fits_together() {
        for row in ROWS {
            assert!(!row.variants.is_empty(), "{}", row.name);
            for variant in row.variants {
                for is_small in [false, true] {
                    let words = variant.words(is_small);
                    let line = std::iter::once("chronik-bench".to_owned()).chain(words);
                    let parsed = Arguments::try_parse_from(line);
                    let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", row.name));
                    let plan = Plan::new(parsed.load);
                    let can_run = librdkafka::IS_BUILT_IN || !variant.needs_librdkafka();
                    assert_eq!(plan.is_ok(), can_run, "{}: {plan:?}", row.name);
                }
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for row in ROWS {
            assert_eq!(ROWS.iter().filter(|other| other.name == row.name).count(), 1);
        }
    }
}
