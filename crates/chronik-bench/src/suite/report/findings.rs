//! What people found out beside the tables: figures of other clients, and why a target is missed.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::cell_text;

/// True for a document of findings; any other is the result of a suite.
pub(crate) fn is_findings(document: &Value) -> bool {
    document["findings"].is_array()
}

/// Writes a section per group of findings, which keep their order.
pub(super) fn write(page: &mut String, document: &Value) {
    for group in document["findings"].as_array().into_iter().flatten() {
        let of = |name: &str| group[name].as_str().unwrap_or_default();
        let _ = writeln!(page, "## {}\n\n{}\n", of("title"), of("text"));
        let columns: Vec<&str> =
            group["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        row(page, &columns);
        let _ = writeln!(page, "|{}", "---|".repeat(columns.len()));
        for line in group["rows"].as_array().into_iter().flatten() {
            let cells: Vec<&str> =
                line.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            row(page, &cells);
        }
        page.push('\n');
    }
}

fn row(page: &mut String, cells: &[&str]) {
    page.push('|');
    for cell in cells {
        let _ = write!(page, " {} |", cell_text(cell));
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_become_tables_in_sections() {
        let document = json!({ "findings": [{ "title": "Why", "text": "Because.",
            "columns": ["Target", "Reason"], "rows": [["rate", "a | b"]] }] });
        assert!(is_findings(&document) && !is_findings(&json!({ "rows": [] })));
        let mut page = String::new();
        write(&mut page, &document);
        let expected = "## Why\n\nBecause.\n\n\
                        | Target | Reason |\n|---|---|\n| rate | a \\| b |\n\n";
        assert_eq!(page, expected);
    }
}
