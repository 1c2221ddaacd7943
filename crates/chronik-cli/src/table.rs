//! Rows of text: aligned for people, tab-separated for programs.

/// Named columns and rows of cells; `None` is a cell without a value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Option<String>>>,
}

/// A cell with a value.
pub(crate) fn cell(value: impl ToString + Copy) -> Option<String> {
    Some(value.to_string())
}

/// A cell with numbers or names separated by commas; empty lists have no value.
pub(crate) fn list_cell(values: &[impl ToString]) -> Option<String> {
    let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

impl Table {
    /// An empty table. The order of columns never changes between releases; new ones come last.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has another number of cells than there are columns.
    pub(crate) fn push(&mut self, row: Vec<Option<String>>) {
        assert_eq!(row.len(), self.columns.len(), "a row has a cell for every column");
        self.rows.push(row);
    }

    /// For people: a heading, aligned columns, `-` for a cell without a value.
    pub(crate) fn to_text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let shown = |cell: &Option<String>| match cell.as_deref() {
            None | Some("") => "-".to_owned(),
            Some(text) => text.to_owned(),
        };
        let heading = self.columns.iter().map(|name| name.to_uppercase().replace('_', " "));
        let mut lines: Vec<Vec<String>> = vec![heading.collect()];
        lines.extend(self.rows.iter().map(|row| row.iter().map(shown).collect()));
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> =
            (0..self.columns.len()).map(|index| self.is_numeric(index)).collect();
        lines.iter().map(|line| align(line, &widths, &numeric)).collect()
    }

    fn is_numeric(&self, column: usize) -> bool {
        let is_number = |text: &String| text.parse::<i64>().is_ok();
        self.rows.iter().all(|row| row[column].as_ref().is_none_or(is_number))
    }

    /// For programs: one line per row, tabs between cells, nothing for a cell without a value;
    /// tabs, line ends and backslashes inside a cell are escaped.
    pub(crate) fn to_tsv(&self, has_header: bool) -> String {
        let mut text = String::new();
        if has_header {
            text.push_str(&self.columns.join("\t"));
            text.push('\n');
        }
        for row in &self.rows {
            let cells: Vec<_> =
                row.iter().map(|cell| escape(cell.as_deref().unwrap_or_default())).collect();
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        text
    }
}

fn align(line: &[String], widths: &[usize], numeric: &[bool]) -> String {
    let mut text = String::new();
    for ((cell, width), is_numeric) in line.iter().zip(widths).zip(numeric) {
        let padding = " ".repeat(width - cell.chars().count());
        let separator = if text.is_empty() { "" } else { "  " };
        let (before, after) = if *is_numeric { (padding.as_str(), "") } else { ("", &*padding) };
        text.push_str(separator);
        text.push_str(before);
        text.push_str(cell);
        text.push_str(after);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn escape(text: &str) -> String {
    let mut escaped = Vec::with_capacity(text.len());
    escape_bytes(text.as_bytes(), &mut escaped);
    String::from_utf8(escaped).expect("escaping replaces ASCII with ASCII")
}

/// Appends `bytes` to `output` as the content of a tab-separated cell.
pub(crate) fn escape_bytes(bytes: &[u8], output: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'\t' => output.extend_from_slice(b"\\t"),
            b'\n' => output.extend_from_slice(b"\\n"),
            b'\r' => output.extend_from_slice(b"\\r"),
            b'\\' => output.extend_from_slice(b"\\\\"),
            other => output.push(*other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["name", "records", "note"]);
        table.push(vec![cell("demo"), cell(7), None]);
        table.push(vec![cell("orders"), cell(1_200), cell("a\tb\\c\nd")]);
        table
    }

    #[test]
    fn people_see_aligned_columns_and_a_dash_for_nothing() {
        let mut table = table();
        table.rows.pop();
        table.push(vec![cell("orders"), cell(1_200), cell("")]);
        assert_eq!(
            table.to_text(),
            "NAME    RECORDS  NOTE\n\
             demo          7     -\n\
             orders     1200     -\n"
                .replace("     -", "  -")
        );
        assert_eq!(Table::new(&["name"]).to_text(), "");
    }

    #[test]
    fn programs_see_tabs_and_escapes_and_a_header_on_demand() {
        let rows = "demo\t7\t\norders\t1200\ta\\tb\\\\c\\nd\n";
        assert_eq!(table().to_tsv(false), rows);
        assert_eq!(table().to_tsv(true), format!("name\trecords\tnote\n{rows}"));
    }

    #[test]
    fn lists_are_joined_and_empty_ones_are_no_value() {
        assert_eq!(list_cell(&[1, 2]), cell("1,2"));
        assert_eq!(list_cell(&[0; 0]), None);
    }
}
