//! The system calls of a process, counted by strace.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Calls by name.
pub type Calls = BTreeMap<String, u64>;

/// The words in front of a command whose system calls are to be counted into `output`; each sync
/// takes `sync_delay` longer.
pub fn counting(output: &Path, sync_delay: Duration) -> Vec<String> {
    let mut words = vec!["strace".to_owned(), "-f".to_owned(), "-c".to_owned()];
    words.extend(["-o".to_owned(), output.display().to_string()]);
    words.extend(["-e".to_owned(), "trace=all".to_owned()]);
    words.extend(["-e".to_owned(), inject(sync_delay)]);
    words
}

/// The words in front of a command each of whose syncs takes `sync_delay` longer; nothing else is
/// slowed down.
pub fn delaying(sync_delay: Duration) -> Vec<String> {
    let words = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"];
    words.map(str::to_owned).into_iter().chain([inject(sync_delay)]).collect()
}

fn inject(sync_delay: Duration) -> String {
    format!("inject=fdatasync:delay_enter={}", sync_delay.as_micros())
}

/// Reads what strace counted.
///
/// # Panics
/// If that is not a table of calls.
pub fn read(output: &Path) -> Calls {
    let text = std::fs::read_to_string(output)
        .unwrap_or_else(|error| panic!("strace wrote no {}: {error}", output.display()));
    let calls = parse(&text);
    assert!(!calls.is_empty(), "{} has no calls:\n{text}", output.display());
    calls
}

/// Rows are `% time, seconds, usecs/call, calls, errors if any, syscall`.
fn parse(text: &str) -> Calls {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, calls) = (*words.last()?, words.get(3)?.parse().ok()?);
        words[0].parse::<f64>().ok()?;
        (name != "total").then(|| (name.to_owned(), calls))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_and_without_errors_count_and_the_total_does_not() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     64.00    0.000123           3        40         2 futex\n \
                     36.00    0.000100           3        30           read\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000223           3        70         2 total\n";
        let calls = parse(table);
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert_eq!((calls["futex"], calls["read"]), (40, 30));
    }
}
