//! Two results side by side, with ratios; says so if they are of different classes.

use std::path::Path;

use serde_json::{Value, json};

use super::{envelope, pretty, print, read_json};
use crate::arguments::OutputForm;
use crate::failure::Failure;

/// A figure of a result: its name and its place in the document.
const FIGURES: [(&str, &str); 16] = [
    ("messages per second", "/summary/messages_per_second"),
    ("megabytes per second", "/summary/megabytes_per_second"),
    ("requests per second", "/summary/requests_per_second"),
    ("messages per request", "/summary/messages_per_request"),
    ("latency p50, ms", "/summary/latency/p50_ms"),
    ("latency p90, ms", "/summary/latency/p90_ms"),
    ("latency p99, ms", "/summary/latency/p99_ms"),
    ("latency p99.9, ms", "/summary/latency/p999_ms"),
    ("latency max, ms", "/summary/latency/max_ms"),
    ("failed", "/summary/failed"),
    ("client CPU, us per message", "/summary/client_cpu_micros_per_message"),
    ("client CPU, us per request", "/summary/client_cpu_micros_per_request"),
    ("server CPU, us per request", "/summary/server/cpu_micros_per_request"),
    ("server CPU, us per message", "/summary/server/cpu_micros_per_message"),
    ("server CPU, s per GB", "/summary/server/cpu_seconds_per_gigabyte"),
    ("server memory, bytes", "/summary/server/resident_bytes"),
];

/// What must be the same for a ratio to mean something.
const CONDITIONS: [&str; 12] = [
    "mode",
    "class",
    "durability",
    "acks",
    "partitions",
    "replication_factor",
    "connections",
    "concurrency",
    "in_flight",
    "message_bytes",
    "batch_bytes",
    "loop_kind",
];

/// Prints the figures of two results and their ratios, B over A.
pub(crate) fn compare(first: &Path, second: &Path, form: OutputForm) -> Result<(), Failure> {
    let documents = [load(first)?, load(second)?];
    let rows = rows(&documents);
    let differences = differences(&documents);
    match form {
        OutputForm::Json => {
            let row = |row: &Row| json!({ "figure": row.name, "a": row.a, "b": row.b, "ratio": row.ratio });
            let rows: Vec<_> = rows.iter().map(row).collect();
            print(&pretty(&envelope(&json!({ "rows": rows, "differences": differences }))))
        }
        OutputForm::Csv => {
            let lines = rows.iter().map(|row| {
                format!(
                    "{},{},{},{}\n",
                    row.name.replace(',', ""),
                    row.a,
                    row.b,
                    row.ratio.unwrap_or(0.0)
                )
            });
            print(&(String::from("figure,a,b,ratio\n") + &lines.collect::<String>()))
        }
        OutputForm::Text => print(&text(&rows, &differences)),
    }
}

struct Row {
    name: &'static str,
    a: f64,
    b: f64,
    ratio: Option<f64>,
}

fn load(path: &Path) -> Result<Value, Failure> {
    let document = read_json(path)?;
    let refuse =
        |reason: &str| Failure::NotAResult { path: path.to_owned(), reason: reason.to_owned() };
    match document["schema"].as_u64() {
        Some(1) if document["summary"].is_object() => Ok(document),
        Some(1) => Err(refuse("it has no summary")),
        Some(_) => Err(refuse("it has a newer form than this tool knows")),
        None => Err(refuse("it has no schema number")),
    }
}

fn rows(documents: &[Value; 2]) -> Vec<Row> {
    let figure = |(name, place): &(&'static str, &str)| {
        let [a, b] = [0, 1].map(|at: usize| documents[at].pointer(place).and_then(Value::as_f64));
        let (a, b) = (a?, b?);
        Some(Row { name, a, b, ratio: (a > 0.0).then(|| b / a) })
    };
    FIGURES.iter().filter_map(figure).collect()
}

fn differences(documents: &[Value; 2]) -> Vec<String> {
    let of = |name: &&str| {
        let [a, b] = [0, 1].map(|at: usize| &documents[at]["configuration"][*name]);
        (a != b).then(|| format!("{name}: {a} and {b}"))
    };
    CONDITIONS.iter().filter_map(of).collect()
}

fn text(rows: &[Row], differences: &[String]) -> String {
    let mut text = format!("{:<28} {:>16} {:>16} {:>8}\n", "figure", "A", "B", "B / A");
    for row in rows {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        text.push_str(&format!("{:<28} {:>16.3} {:>16.3} {ratio:>8}\n", row.name, row.a, row.b));
    }
    for difference in differences {
        text.push_str(&format!("NOT THE SAME CONDITIONS: {difference}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(rate: f64, durability: &str) -> Value {
        json!({
            "schema": 1,
            "configuration": { "durability": durability, "acks": 1 },
            "summary": { "messages_per_second": rate, "failed": 0 },
        })
    }

    #[test]
    fn ratios_are_b_over_a_and_other_conditions_are_named() {
        let documents = [document(100.0, "fsync"), document(250.0, "os")];
        let rows = rows(&documents);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].ratio, Some(2.5));
        assert_eq!(rows[1].ratio, None, "nothing is a ratio to zero");
        let differences = differences(&documents);
        assert_eq!(differences, ["durability: \"fsync\" and \"os\""]);
        assert!(text(&rows, &differences).contains("2.500"));
    }
}
