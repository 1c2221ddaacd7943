//! Where results go: text, JSON, CSV, percentiles, pictures, comparisons.

mod base64;
mod compare;
mod csv;
mod environment;
mod hdr;
mod json;
mod svg;

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::arguments::OutputForm;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::result::RunResult;
use crate::text_report;

pub(crate) use compare::compare;
pub(crate) use environment::environment;
pub(crate) use json::document;

/// Writes a result to every place the plan names.
pub(crate) fn write(plan: &Plan, result: &RunResult) -> Result<(), Failure> {
    let flags = &plan.flags;
    let more = &flags.additions;
    let wants_json = flags.json_output.is_some() || more.output == OutputForm::Json;
    let document = wants_json.then(|| document(result, more.probe_dir.as_deref()));
    if let Some(path) = &flags.csv_output {
        write_file(path, &csv::csv(&result.intervals))?;
    }
    if let Some(path) = &more.hdr_output {
        write_file(path, &hdr::percentiles(&result.latency))?;
    }
    if let Some(path) = &more.plot {
        write_file(path, &svg::svg(result))?;
    }
    if let (Some(path), Some(document)) = (&flags.json_output, &document) {
        let text = pretty(document);
        if path == Path::new("-") {
            return print(&text);
        }
        write_file(path, &text)?;
    }
    match more.output {
        OutputForm::Text => print(&text_report::text(result)),
        OutputForm::Csv => print(&csv::csv(&result.intervals)),
        OutputForm::Json => print(&pretty(&envelope(&document.unwrap_or_default()))),
    }
}

/// An answer on standard output: one object with command, version, ok and data.
pub(crate) fn envelope(data: &Value) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({ "command": "bench", "version": version, "ok": true, "data": data })
}

/// The answer on standard output of a run that failed.
pub(crate) fn failed(failure: &Failure) -> String {
    let error = json!({ "code": failure.code(), "message": failure.to_string() });
    let version = env!("CARGO_PKG_VERSION");
    pretty(&json!({ "command": "bench", "version": version, "ok": false, "error": error }))
}

/// A document as text that ends with a newline.
pub(crate) fn pretty(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("documents have string keys only");
    text.push('\n');
    text
}

/// Prints `text` on standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(Failure::system("write to standard output"))
}

/// Writes a file of its own.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |source| Failure::File { action: "write", path: path.to_owned(), source };
    std::fs::write(path, text).map_err(failed)
}

/// Reads a result or a suite.
pub(crate) fn read_json(path: &Path) -> Result<Value, Failure> {
    let failed = |source| Failure::File { action: "read", path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let not_a_result = |reason: String| Failure::NotAResult { path: path.to_owned(), reason };
    serde_json::from_str(&text).map_err(|error| not_a_result(error.to_string()))
}
