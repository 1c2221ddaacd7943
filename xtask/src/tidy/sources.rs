//! Rules over the text of each file: headers, leftovers, forbidden words, size.
//!
//! Words that a rule forbids are put together from two halves here, so that this file follows its
//! own rules.

use super::Breach;

/// Lines of a hand-written file at most.
const LINES_MAX: usize = 1_799;

/// Extensions of files that are read as text.
const TEXT_EXTENSIONS: &[&str] =
    &["rs", "md", "toml", "sh", "yml", "yaml", "json", "py", "proto", "wire", "txt"];

/// Words that must not appear in a line of the files that `applies` names.
struct WordRule {
    words: &'static [&'static str],
    applies: fn(&str) -> bool,
    rule: &'static str,
}

const WORD_RULES: &[WordRule] = &[
    WordRule {
        words: &[concat!("#[ig", "nore")],
        applies: is_rust,
        rule: "no ignored tests: pin today's behaviour with a note, or fix it",
    },
    WordRule {
        words: &[
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("XX", "X:"),
            concat!("to", "do!("),
            concat!("unimple", "mented!("),
        ],
        applies: |file| is_rust(file) || file.ends_with(".py") || file.ends_with(".sh"),
        rule: "finish it or leave it out; no notes to do it later",
    },
    WordRule {
        words: &[concat!("Rw", "Lock")],
        applies: |file| {
            ["crates/chronik-wal/src/", "crates/chronik-partition/src/"]
                .iter()
                .chain(&["crates/chronik-server/src/api/"])
                .any(|directory| file.starts_with(directory))
        },
        rule: "state on the data path has one owner; publish numbers with atomics or a watch",
    },
    WordRule {
        words: &[concat!("env::", "var"), concat!("env::", "set_var")],
        applies: |file| {
            is_crate_source(file) && is_rust(file) && !file.starts_with("crates/chronik-config/")
        },
        rule: "only the loader of chronik-config reads the environment",
    },
    WordRule {
        words: &[
            concat!("RAFT_", "LATENCY"),
            concat!("PERFORMANCE", " FIX"),
            concat!("CRITICAL", ":"),
            concat!("HOT", "FIX"),
        ],
        applies: is_rust,
        rule: "no timing prints, praise or alarm words; say what must hold and why",
    },
];

/// True for files that are read as text.
pub fn is_text(file: &str) -> bool {
    TEXT_EXTENSIONS.iter().any(|extension| file.ends_with(&format!(".{extension}")))
        || file == ".ci/run"
}

/// The breaches of one file.
pub fn check(file: &str, text: &str) -> Vec<Breach> {
    let mut breaches: Vec<_> =
        text.lines().zip(1..).flat_map(|(line, number)| check_line(file, line, number)).collect();
    if is_rust(file) && has_sources(file) && !text.starts_with("//!") {
        breaches.push(Breach::new(file, "begin with a //! header: what it owns and what not"));
    }
    let lines = text.lines().count();
    if is_rust(file) && !file.contains("/generated/") && lines > LINES_MAX {
        let rule = format!("has {lines} lines; split it before it grows past {LINES_MAX}");
        breaches.push(Breach::new(file, rule));
    }
    breaches
}

fn check_line(file: &str, line: &str, number: usize) -> Vec<Breach> {
    let place = format!("{file}:{number}");
    let mut breaches: Vec<_> = WORD_RULES
        .iter()
        .filter(|rule| (rule.applies)(file) && rule.words.iter().any(|word| line.contains(word)))
        .map(|rule| Breach::new(&place, rule.rule))
        .collect();
    if let Some(character) = line.chars().find(|character| !character.is_ascii()) {
        let rule = format!("plain ASCII only, found U+{:04X}", u32::from(character));
        breaches.push(Breach::new(&place, rule));
    }
    let comment = line.split_once("//").map(|(_, comment)| comment);
    if is_rust(file) && comment.is_some_and(has_version_stamp) {
        breaches.push(Breach::new(&place, "no version stamps in comments; history is in git"));
    }
    breaches
}

/// True if a word of `comment` is `v` with two numbers and a dot between them.
fn has_version_stamp(comment: &str) -> bool {
    comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').any(|word| {
        let Some((major, minor)) = word.strip_prefix('v').and_then(|rest| rest.split_once('.'))
        else {
            return false;
        };
        let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        is_number(major) && major.bytes().all(|b| b.is_ascii_digit()) && is_number(minor)
    })
}

fn is_rust(file: &str) -> bool {
    file.ends_with(".rs")
}

/// True for what is compiled into a product: `crates/*/src` and `crates/*/examples`.
fn is_crate_source(file: &str) -> bool {
    let mut parts = file.split('/');
    parts.next() == Some("crates") && matches!(parts.nth(1), Some("src" | "examples"))
}

fn has_sources(file: &str) -> bool {
    is_crate_source(file) || file.starts_with("xtask/src/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADED: &str = "//! A module.\n";

    fn count(file: &str, body: &str) -> usize {
        check(file, &format!("{HEADED}{body}\n")).len()
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(count("crates/chronik-wal/src/lib.rs", "/// KIP-516, Kafka 4.2, layout v2."), 0);
    }

    #[test]
    fn leftovers_are_found_with_their_line() {
        for word in WORD_RULES[0].words.iter().chain(WORD_RULES[1].words) {
            let breaches = check("xtask/src/x.rs", &format!("{HEADED}let x = 1; // {word}\n"));
            assert_eq!(breaches.len(), 1, "{word}");
            assert_eq!(breaches[0].place, "xtask/src/x.rs:2");
        }
    }

    #[test]
    fn shared_locks_are_kept_off_the_data_path_only() {
        let body = format!("use std::sync::{};", WORD_RULES[2].words[0]);
        for (file, breaches) in [
            ("crates/chronik-wal/src/tail.rs", 1),
            ("crates/chronik-partition/src/append.rs", 1),
            ("crates/chronik-server/src/api/fetch.rs", 1),
            ("crates/chronik-server/src/node.rs", 0),
            ("crates/chronik-wal/tests/log.rs", 0),
        ] {
            assert_eq!(count(file, &body), breaches, "{file}");
        }
    }

    #[test]
    fn the_environment_is_read_in_one_crate() {
        let body = format!("let x = std::{}(\"X\");", WORD_RULES[3].words[0]);
        assert_eq!(count("crates/chronik-server/src/main.rs", &body), 1);
        assert_eq!(count("crates/chronik-config/src/load.rs", &body), 0);
        assert_eq!(count("crates/chronik-server/tests/start.rs", &body), 0);
    }

    #[test]
    fn headers_are_asked_of_sources_and_not_of_tests() {
        assert_eq!(check("crates/chronik-wal/src/tail.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(check("crates/chronik-wal/src/tail.rs", "").len(), 1);
        assert_eq!(check("crates/chronik-wal/tests/tail.rs", "use std::fmt;\n").len(), 0);
    }

    #[test]
    fn decoration_outside_ascii_is_found_in_every_text_file() {
        assert_eq!(count("crates/chronik-wal/src/lib.rs", "// done \u{2705}"), 1);
        assert_eq!(check("README.md", "fast \u{1F680}\n").len(), 1);
        assert!(is_text("docs/decisions/0001-journal.md") && !is_text("docs/picture.png"));
    }

    #[test]
    fn version_stamps_and_alarm_words_are_found_in_comments() {
        let (stamp, alarm) = (format!("// since v{}.3: faster", 1), WORD_RULES[4].words[1]);
        assert_eq!(count("crates/chronik-wal/src/lib.rs", &stamp), 1);
        assert_eq!(count("crates/chronik-wal/src/lib.rs", &format!("// {alarm}")), 1);
        for comment in ["// record batch v2", "// vX.Y", "// v1 to v3. The rest", "// eval.2"] {
            assert_eq!(count("crates/chronik-wal/src/lib.rs", comment), 0, "{comment}");
        }
    }

    #[test]
    fn a_file_has_fewer_than_1800_lines_unless_it_is_generated() {
        let body = "\n".repeat(LINES_MAX - 2);
        assert_eq!(count("crates/chronik-wal/src/lib.rs", &body), 0);
        let body = "\n".repeat(LINES_MAX - 1);
        assert_eq!(count("crates/chronik-wal/src/lib.rs", &body), 1);
        assert_eq!(count("crates/chronik-protocol/src/generated/fetch.rs", &body), 0);
    }
}
