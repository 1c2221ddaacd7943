//! Every configuration key does something.
//!
//! A key of the reference page that is not marked as reserved must be read as a field somewhere
//! besides the rules between keys and the view under Kafka's names.

use super::Breach;

/// The generated page that lists the keys.
pub const PAGE: &str = "docs/reference/config.md";

const RESERVED: &str = "- Reserved for clusters;";
const CONSUMER: &str = "crates/chronik-server/src/";
const NOT_A_USE: &[&str] =
    &["crates/chronik-config/src/broker.rs", "crates/chronik-config/src/validate.rs"];

/// Keys of `page` whose field no file of `code` (path and text) reads. Without a server there is
/// nobody to read them, and nothing is found.
pub fn check(page: &str, code: &[(String, String)]) -> Vec<Breach> {
    if !code.iter().any(|(file, _)| file.starts_with(CONSUMER)) {
        return Vec::new();
    }
    let uses: Vec<&str> = code
        .iter()
        .filter(|(file, _)| file.starts_with("crates/") && !NOT_A_USE.contains(&file.as_str()))
        .map(|(_, text)| text.as_str())
        .collect();
    let is_unused = |key: &&str| {
        let field = key.rsplit('.').next().unwrap_or(key);
        !uses.iter().any(|text| reads_field(text, field))
    };
    let rule = |key: &str| format!("{key} is read nowhere: use it, or mark it as reserved");
    working_keys(page).into_iter().filter(is_unused).map(|k| Breach::new(PAGE, rule(k))).collect()
}

/// The keys of the page that are not reserved: headings with a section, before the topic configs.
fn working_keys(page: &str) -> Vec<&str> {
    let sections = page.split("\n## Topic configs").next().unwrap_or_default();
    let mut entries = sections.split("\n### `");
    entries.next();
    entries
        .filter(|entry| !entry.contains(RESERVED))
        .filter_map(|entry| entry.split_once('`').map(|(key, _)| key))
        .collect()
}

fn reads_field(text: &str, field: &str) -> bool {
    let access = format!(".{field}");
    text.match_indices(&access).any(|(start, found)| {
        let next = text[start + found.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '(')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "\
# Configuration

## `[wal]`

### `wal.group_bytes_max`

Text.

- Default: `1`

### `wal.group_bytes`

- Default: `2`

### `raft.timeout_ms`

- Reserved for clusters; a standalone server checks and ignores it.

## Topic configs

### `retention.ms`
";

    fn found(file: &str, text: &str) -> usize {
        let server = ("crates/chronik-server/src/main.rs".to_owned(), String::new());
        check(PAGE_TEXT, &[server, (file.to_owned(), text.to_owned())]).len()
    }

    #[test]
    fn a_key_that_no_field_access_names_is_found() {
        let wal = "crates/chronik-wal/src/lib.rs";
        assert_eq!(found(wal, "let max = wal.group_bytes_max; let one = wal.group_bytes;"), 0);
        assert_eq!(found(wal, "let max = wal.group_bytes_max;"), 1, "a longer name is another key");
        assert_eq!(found(wal, "wal.group_bytes(); group_bytes_max"), 2, "methods are not fields");
        assert_eq!(found(NOT_A_USE[0], "wal.group_bytes_max wal.group_bytes"), 2);
    }

    #[test]
    fn nothing_is_found_before_there_is_a_server() {
        assert_eq!(check(PAGE_TEXT, &[]), []);
    }
}
