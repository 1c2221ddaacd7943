//! Running a program under valgrind's callgrind, and reading what it counted: instructions in user
//! mode, and calls of the allocator.

use std::path::Path;
use std::process::{Command, Stdio};

/// Functions of the C library that allocate; freeing is not counted.
const ALLOCATORS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
];

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Instructions in user mode.
    pub instructions: u64,
    /// Calls of the allocator.
    pub allocations: u64,
}

impl Counts {
    /// What one of `times` equal operations costs that lie between `earlier` and this.
    pub fn per_operation_since(self, earlier: Self, times: u32) -> (f64, f64) {
        let each = |now: u64, before: u64| (now as f64 - before as f64) / f64::from(times);
        (each(self.instructions, earlier.instructions), each(self.allocations, earlier.allocations))
    }
}

/// The words in front of a command all of which is to be counted into `output`.
pub fn wrapper(output: &Path) -> Vec<String> {
    let words = ["valgrind", "--tool=callgrind", "--quiet", "--compress-strings=no"];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push("--compress-pos=no".to_owned());
    words.push(format!("--callgrind-out-file={}", output.display()));
    words
}

/// Runs `program` with `arguments` to its end and counts what it does from each call of the
/// function `from` to the next call of the function `to`; also says how often that was.
///
/// # Panics
/// If valgrind is missing or the program fails.
pub fn run_between(
    program: &Path,
    arguments: &[&str],
    (from, to): (&str, &str),
    output: &Path,
) -> (Counts, usize) {
    let words = wrapper(output);
    let status = Command::new(&words[0])
        .args(&words[1..])
        .args(["--combine-dumps=yes".to_owned(), format!("--zero-before=*{from}*")])
        .arg(format!("--dump-before=*{to}*"))
        .arg(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("cannot run valgrind: {error}"));
    assert!(status.success(), "{} {arguments:?} under callgrind: {status}", program.display());
    let parts: Vec<Counts> =
        read(output).iter().filter(|part| !part.is_at_end).map(|part| part.counts).collect();
    (sum(&parts), parts.len())
}

/// What callgrind counted in a whole life of a process.
///
/// # Panics
/// If `output` is not a profile.
pub fn counts_in(output: &Path) -> Counts {
    let parts: Vec<Counts> = read(output).iter().map(|part| part.counts).collect();
    sum(&parts)
}

fn sum(parts: &[Counts]) -> Counts {
    Counts {
        instructions: parts.iter().map(|part| part.instructions).sum(),
        allocations: parts.iter().map(|part| part.allocations).sum(),
    }
}

/// What was counted since the part before was written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    counts: Counts,
    /// Written down because the program ended.
    is_at_end: bool,
}

fn read(output: &Path) -> Vec<Part> {
    let text = std::fs::read(output)
        .unwrap_or_else(|error| panic!("callgrind wrote no {}: {error}", output.display()));
    // Names of functions are whatever a compiler makes of them.
    parse(&String::from_utf8_lossy(&text))
        .unwrap_or_else(|| panic!("{} is no profile of callgrind", output.display()))
}

/// A part begins with `part:`, says in `desc: Trigger:` why it was written, and ends with
/// `totals:`. A line `calls=` tells how often the function in the line `cfn=` before was called.
fn parse(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let (mut callee, mut allocations, mut is_at_end) = ("", 0, false);
    for line in text.lines() {
        if line.starts_with("part:") {
            (callee, allocations, is_at_end) = ("", 0, false);
        } else if let Some(trigger) = line.strip_prefix("desc: Trigger: ") {
            is_at_end = trigger == "Program termination";
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATORS.contains(&callee)
        {
            allocations += calls.split_whitespace().next()?.parse::<u64>().ok()?;
        } else if let Some(totals) = line.strip_prefix("totals: ") {
            let instructions = totals.split_whitespace().next()?.parse().ok()?;
            parts.push(Part { counts: Counts { instructions, allocations }, is_at_end });
        }
    }
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_totals_and_allocations_the_calls_of_the_allocator_in_each_part() {
        let profile = "version: 1\npart: 1\ndesc: Trigger: --dump-before=over\n\nfn=main\n10 40\n\
                       cfn=malloc\ncalls=3 0\n10 90\ncfn=free\ncalls=2 0\n10 20\n\
                       cfn=realloc\ncalls=1 0\n10 9\ntotals: 1234\n\
                       part: 2\ndesc: Trigger: Program termination\nfn=main\ntotals: 5\n";
        let first = Counts { instructions: 1_234, allocations: 4 };
        let last = Counts { instructions: 5, allocations: 0 };
        let first = Part { counts: first, is_at_end: false };
        assert_eq!(parse(profile), Some(vec![first, Part { counts: last, is_at_end: true }]));
        assert_eq!(parse("part: 1\nfn=main\n"), None, "a part ends with its totals");
        assert_eq!(sum(&[first.counts, last]), Counts { instructions: 1_239, allocations: 4 });
    }

    #[test]
    fn a_difference_is_shared_among_the_operations_between() {
        let before = Counts { instructions: 100, allocations: 10 };
        let after = Counts { instructions: 600, allocations: 15 };
        assert_eq!(after.per_operation_since(before, 5), (100.0, 1.0));
    }
}
