//! The output contract: formats, errors, questions and progress.
//!
//! Standard output carries results only: text for people, one JSON object, or tab-separated
//! rows. Standard error carries failures (unless they are in the JSON object) and, only while it
//! is a terminal, progress. `ok` in JSON is true exactly when the exit code is 0; a result that
//! exists although something failed is still there as `data`.

use std::io::{self, IsTerminal, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::arguments::{Globals, OutputFormat};
use crate::failure::{Exit, Failure};
use crate::table::Table;

/// Release of this program, as JSON results carry it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The result of a command.
pub(crate) trait Report: Serialize {
    /// The rows of the tab-separated form.
    fn table(&self) -> Table;

    /// The form for people.
    fn text(&self, _paint: Paint) -> String {
        self.table().to_text()
    }
}

/// Where and how one command talks.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    /// The verb as it is typed, for example `topic list`.
    command: &'static str,
    format: OutputFormat,
    has_tsv_header: bool,
    is_quiet: bool,
    has_consent: bool,
    allows_color: bool,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    command: &'a str,
    version: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

#[derive(Serialize)]
struct ErrorBody {
    code: &'static str,
    message: String,
}

impl ErrorBody {
    fn of(failure: &Failure) -> Self {
        Self { code: failure.code(), message: failure.to_string() }
    }
}

impl Console {
    /// The console of `command` under the global flags.
    pub(crate) fn new(command: &'static str, globals: &Globals) -> Self {
        Self {
            command,
            format: globals.output,
            has_tsv_header: globals.tsv_header,
            is_quiet: globals.quiet,
            has_consent: globals.yes,
            allows_color: !globals.no_color,
        }
    }

    /// The console of a command line that asks for JSON and cannot be parsed.
    pub(crate) fn of_usage_error() -> Self {
        Self {
            command: "chronik",
            format: OutputFormat::Json,
            has_tsv_header: false,
            is_quiet: false,
            has_consent: false,
            allows_color: false,
        }
    }

    /// The format asked for.
    pub(crate) fn format(&self) -> OutputFormat {
        self.format
    }

    /// True if streams of tab-separated rows begin with the names of the columns.
    pub(crate) fn has_tsv_header(&self) -> bool {
        self.has_tsv_header
    }

    /// Prints a result.
    pub(crate) fn report<R: Report>(&self, report: &R) -> Result<Exit, Failure> {
        self.print(report, None)?;
        Ok(Exit::Ok)
    }

    /// Prints a result of which something failed.
    pub(crate) fn report_failed<R: Report>(
        &self,
        report: &R,
        failure: &Failure,
    ) -> Result<Exit, Failure> {
        self.print(report, Some(failure))?;
        if self.format != OutputFormat::Json {
            self.print_failure(failure);
        }
        Ok(failure.exit())
    }

    fn print<R: Report>(&self, report: &R, failure: Option<&Failure>) -> Result<(), Failure> {
        let text = match self.format {
            OutputFormat::Text if self.is_quiet && failure.is_none() => return Ok(()),
            OutputFormat::Text => report.text(self.paint()),
            OutputFormat::Tsv => report.table().to_tsv(self.has_tsv_header),
            OutputFormat::Json => self.envelope(Some(report), failure.map(ErrorBody::of)),
        };
        write_out(&text)
    }

    /// Tells why the command failed and gives the exit code for it.
    pub(crate) fn fail(&self, failure: &Failure) -> Exit {
        let exit = failure.exit();
        if exit == Exit::Ok {
            return exit;
        }
        if self.format == OutputFormat::Json {
            // The exit code still tells if even this cannot be printed.
            let _ = write_out(&self.envelope::<()>(None, Some(ErrorBody::of(failure))));
        } else {
            self.print_failure(failure);
        }
        exit
    }

    fn print_failure(&self, failure: &Failure) {
        let is_colored = self.allows_color && is_color_wanted(&io::stderr());
        let code = Paint { is_colored }.bad(failure.code());
        let _ = writeln!(io::stderr(), "{code} {failure}");
    }

    fn envelope<T: Serialize>(&self, data: Option<T>, error: Option<ErrorBody>) -> String {
        let ok = error.is_none();
        let envelope = Envelope { command: self.command, version: VERSION, ok, data, error };
        let mut text = serde_json::to_string(&envelope).expect("reports have string keys only");
        text.push('\n');
        text
    }

    /// Standard output for a stream of records.
    pub(crate) fn stream(&self) -> io::BufWriter<StdoutLock<'static>> {
        io::BufWriter::new(io::stdout().lock())
    }

    /// Tells a person at the terminal what is going on. Never part of a result.
    pub(crate) fn progress(&self, text: &str) {
        if !self.is_quiet && io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Tells what is about to be destroyed and asks for consent: `--yes`, or a yes at the
    /// terminal.
    pub(crate) fn ask(&self, plan: &str) -> Result<(), Failure> {
        if self.has_consent {
            self.progress(plan);
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::NeedsConsent { plan: plan.to_owned() });
        }
        let mut stderr = io::stderr();
        let asked = write!(stderr, "{plan}\nGo ahead? [y/N] ").and_then(|()| stderr.flush());
        let mut answer = String::new();
        let read = asked.and_then(|()| io::stdin().read_line(&mut answer));
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" if read.is_ok() => Ok(()),
            _ => Err(Failure::Declined),
        }
    }

    /// Prints text as it is, whatever the format.
    pub(crate) fn print_raw(text: &str) -> Exit {
        write_out(text).map_or_else(|failure| failure.exit(), |()| Exit::Ok)
    }

    fn paint(&self) -> Paint {
        Paint { is_colored: self.allows_color && is_color_wanted(&io::stdout()) }
    }
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// A terminal that is not told to be plain (`NO_COLOR`, `TERM=dumb`, `CLICOLOR`).
fn is_color_wanted(stream: &impl anstream::stream::RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Colors for text that people read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    is_colored: bool,
}

impl Paint {
    /// No colors.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { is_colored: false }
    }

    /// What is as it should be.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What works and will hurt.
    pub(crate) fn odd(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What is wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, color: &str, text: &str) -> String {
        if self.is_colored { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::cell;

    #[derive(Serialize)]
    struct Example {
        records: u64,
    }

    impl Report for Example {
        fn table(&self) -> Table {
            let mut table = Table::new(&["records"]);
            table.push(vec![cell(self.records)]);
            table
        }
    }

    #[test]
    fn a_result_is_one_object_with_its_keys_in_order() {
        let console = Console { command: "topic list", ..Console::of_usage_error() };
        assert_eq!(
            console.envelope(Some(&Example { records: 3 }), None),
            format!(
                "{{\"command\":\"topic list\",\"version\":\"{VERSION}\",\"ok\":true,\
                 \"data\":{{\"records\":3}}}}\n"
            )
        );
    }

    #[test]
    fn an_error_has_its_code_apart_from_its_message() {
        let console = Console::of_usage_error();
        assert_eq!(
            console.envelope::<()>(None, Some(ErrorBody::of(&Failure::Declined))),
            format!(
                "{{\"command\":\"chronik\",\"version\":\"{VERSION}\",\"ok\":false,\
                 \"error\":{{\"code\":\"E112\",\"message\":\"Nothing was changed.\"}}}}\n"
            )
        );
    }
}
