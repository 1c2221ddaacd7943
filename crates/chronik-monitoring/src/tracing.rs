//! Log set-up: which events are written, how, and that they go to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

/// Level of modules that a filter does not name.
const DEFAULT_LEVEL: &str = "info";

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitLogsError {
    /// The filter is not a list of levels and `target=level` pairs.
    #[error("log filter {filter} is not a list of levels and target=level pairs")]
    InvalidFilter {
        /// The filter as given.
        filter: String,
    },
    /// Events of this process already go somewhere.
    #[error("logs are already set up")]
    AlreadySet,
}

/// Sends the events of the whole process that pass `filter` to standard error, coloured if it is
/// a terminal.
///
/// `filter` is a list of levels and `target=level` pairs, separated by commas: `info`, or
/// `chronik_wal=debug`. Modules it does not name are written from `info` on.
///
/// # Errors
/// A filter that cannot be read, or a second call in the same process.
pub fn init_logs(filter: &str, format: LogFormat) -> Result<(), InitLogsError> {
    let coloured = io::stderr().is_terminal();
    let subscriber = subscriber(filter, format, coloured, io::stderr)?;
    subscriber.try_init().map_err(|_| InitLogsError::AlreadySet)
}

type Subscriber = tracing_subscriber::layer::Layered<
    Box<dyn tracing_subscriber::Layer<Filtered> + Send + Sync>,
    Filtered,
>;
type Filtered = tracing_subscriber::layer::Layered<EnvFilter, Registry>;

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    coloured: bool,
    writer: W,
) -> Result<Subscriber, InitLogsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let names_a_default = filter.split(',').any(|directive| !directive.contains('='));
    let directives =
        if names_a_default { filter.to_owned() } else { format!("{DEFAULT_LEVEL},{filter}") };
    let filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|_| InitLogsError::InvalidFilter { filter: filter.to_owned() })?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(coloured);
    let layer: Box<dyn tracing_subscriber::Layer<Filtered> + Send + Sync> = match format {
        LogFormat::Text => Box::new(layer),
        LogFormat::Json => Box::new(layer.json().flatten_event(true)),
    };
    Ok(tracing_subscriber::registry().with(filter).with(layer))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(filter: &str, format: LogFormat) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber =
            subscriber(filter, format, false, move || writer.clone()).expect("a legal filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "chronik_wal", "debug event");
            tracing::info!(target: "chronik_server", leader_epoch = 7, "became leader");
        });
        String::from_utf8(memory.0.lock().unwrap().clone()).expect("logs are UTF-8")
    }

    #[test]
    fn a_level_holds_for_all_modules() {
        let text = written("info", LogFormat::Text);
        assert!(text.contains("became leader leader_epoch=7"), "{text}");
        assert!(!text.contains("debug event"), "{text}");
        assert_eq!(written("error", LogFormat::Text), "");
    }

    #[test]
    fn a_module_with_a_level_leaves_the_others_at_info() {
        let text = written("chronik_wal=debug", LogFormat::Text);
        assert_eq!(text.lines().count(), 2, "{text}");
        let text = written("warn,chronik_wal=debug", LogFormat::Text);
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn json_lines_carry_fields_by_name() {
        let text = written("info", LogFormat::Json);
        assert!(text.contains(r#""message":"became leader""#), "{text}");
        assert!(text.contains(r#""leader_epoch":7"#), "{text}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        let error = subscriber("chronik_wal=loud", LogFormat::Text, false, io::stderr);
        assert!(matches!(error, Err(InitLogsError::InvalidFilter { .. })));
    }
}
