//! How consumed records are printed: `-f`, JSON lines, tab-separated rows.

use std::str::FromStr;

use chronik_record::Record;
use serde::Serialize;

use crate::base64;
use crate::table::escape_bytes;

/// A record and where it was.
#[derive(Clone, Debug)]
pub(crate) struct Located<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) record: Record<'a>,
}

/// The compiled form of `-f`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordFormat {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
}

/// A format that cannot be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidFormat {
    /// A percent sign before a letter that means nothing.
    #[error(
        "%{0} means nothing; known are %t topic, %p partition, %o offset, %T timestamp in ms, %k \
         key, %K its length, %v value, %V its length, %h headers, %%"
    )]
    Placeholder(char),
    /// A backslash before a letter that means nothing.
    #[error("\\{0} means nothing; known are \\n, \\t, \\r, \\0, \\\\")]
    Escape(char),
    /// A percent sign or backslash at the end.
    #[error("the last character has nothing after it")]
    CutOff,
}

impl FromStr for RecordFormat {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => literal.push(escaped(characters.next())?),
                '%' => match characters.next() {
                    Some('%') => literal.push('%'),
                    next => {
                        let text = std::mem::take(&mut literal).into_bytes();
                        pieces.extend((!text.is_empty()).then_some(Piece::Text(text)));
                        pieces.push(placeholder(next)?);
                    }
                },
                other => literal.push(other),
            }
        }
        pieces.extend((!literal.is_empty()).then(|| Piece::Text(literal.into_bytes())));
        Ok(Self { pieces })
    }
}

fn escaped(character: Option<char>) -> Result<char, InvalidFormat> {
    match character {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        Some('0') => Ok('\0'),
        Some('\\') => Ok('\\'),
        Some(other) => Err(InvalidFormat::Escape(other)),
        None => Err(InvalidFormat::CutOff),
    }
}

fn placeholder(character: Option<char>) -> Result<Piece, InvalidFormat> {
    match character {
        Some('t') => Ok(Piece::Topic),
        Some('p') => Ok(Piece::Partition),
        Some('o') => Ok(Piece::Offset),
        Some('T') => Ok(Piece::Timestamp),
        Some('k') => Ok(Piece::Key),
        Some('K') => Ok(Piece::KeyLength),
        Some('v' | 's') => Ok(Piece::Value),
        Some('V' | 'S') => Ok(Piece::ValueLength),
        Some('h') => Ok(Piece::Headers),
        Some(other) => Err(InvalidFormat::Placeholder(other)),
        None => Err(InvalidFormat::CutOff),
    }
}

impl Default for RecordFormat {
    /// The value and a line end.
    fn default() -> Self {
        Self { pieces: vec![Piece::Value, Piece::Text(b"\n".to_vec())] }
    }
}

impl RecordFormat {
    /// Appends the record to `output`. A null key or value is nothing, its length -1.
    pub(crate) fn write(&self, located: &Located<'_>, output: &mut Vec<u8>) {
        let record = &located.record;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => output.extend_from_slice(text),
                Piece::Topic => output.extend_from_slice(located.topic.as_bytes()),
                Piece::Partition => put(output, &located.partition),
                Piece::Offset => put(output, &record.offset),
                Piece::Timestamp => put(output, &record.timestamp),
                Piece::Key => output.extend_from_slice(record.key.unwrap_or_default()),
                Piece::KeyLength => put(output, &length(record.key)),
                Piece::Value => output.extend_from_slice(record.value.unwrap_or_default()),
                Piece::ValueLength => put(output, &length(record.value)),
                Piece::Headers => put_headers(output, record),
            }
        }
    }
}

fn put(output: &mut Vec<u8>, value: &impl ToString) {
    output.extend_from_slice(value.to_string().as_bytes());
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

/// `key=value` pairs with commas between them.
fn put_headers(output: &mut Vec<u8>, record: &Record<'_>) {
    for (index, header) in record.headers().enumerate() {
        output.extend_from_slice(if index == 0 { b"" } else { b"," });
        output.extend_from_slice(header.key);
        output.push(b'=');
        output.extend_from_slice(header.value.unwrap_or_default());
    }
}

/// Columns of [`write_tsv`].
pub(crate) const TSV_COLUMNS: &[&str] =
    &["topic", "partition", "offset", "timestamp_ms", "key", "value", "headers"];

/// Appends the record as a tab-separated row; null is an empty cell.
pub(crate) fn write_tsv(located: &Located<'_>, output: &mut Vec<u8>) {
    let record = &located.record;
    let position = format!(
        "{}\t{}\t{}\t{}\t",
        located.topic, located.partition, record.offset, record.timestamp
    );
    output.extend_from_slice(position.as_bytes());
    escape_bytes(record.key.unwrap_or_default(), output);
    output.push(b'\t');
    escape_bytes(record.value.unwrap_or_default(), output);
    output.push(b'\t');
    let mut headers = Vec::new();
    put_headers(&mut headers, record);
    escape_bytes(&headers, output);
    output.push(b'\n');
}

/// One line of `consume -o json`; `produce --from jsonl` reads the same form. Bytes that are not
/// UTF-8 are in `*_base64` instead.
#[derive(Serialize)]
struct RecordLine<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Bytes::is_elsewhere")]
    key: Bytes<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Bytes::is_elsewhere")]
    value: Bytes<'a>,
    headers: Vec<HeaderLine<'a>>,
}

#[derive(Serialize)]
struct HeaderLine<'a> {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Bytes::is_elsewhere")]
    value: Bytes<'a>,
}

/// A nullable byte string in JSON: null, text, or (elsewhere) base64.
#[derive(Serialize)]
#[serde(untagged)]
enum Bytes<'a> {
    Null,
    Text(&'a str),
    #[serde(skip)]
    Elsewhere,
}

impl<'a> Bytes<'a> {
    fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere)
    }

    fn split(bytes: Option<&'a [u8]>) -> (Self, Option<String>) {
        let Some(bytes) = bytes else { return (Self::Null, None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => (Self::Text(text), None),
            Err(_) => (Self::Elsewhere, Some(base64::encode(bytes))),
        }
    }
}

/// Appends the record as a line of JSON.
pub(crate) fn write_json(located: &Located<'_>, output: &mut Vec<u8>) {
    let record = &located.record;
    let (key, key_base64) = Bytes::split(record.key);
    let (value, value_base64) = Bytes::split(record.value);
    let headers = record.headers().map(|header| {
        let (value, value_base64) = Bytes::split(header.value);
        HeaderLine { key: String::from_utf8_lossy(header.key).into_owned(), value_base64, value }
    });
    let line = RecordLine {
        topic: located.topic,
        partition: located.partition,
        offset: record.offset.0,
        timestamp_ms: record.timestamp,
        key_base64,
        key,
        value_base64,
        value,
        headers: headers.collect(),
    };
    serde_json::to_writer(&mut *output, &line).expect("a record line has string keys only");
    output.push(b'\n');
}

#[cfg(test)]
mod tests {
    use chronik_record::{BatchBuilder, Codec, DecompressionLimits, RecordHeader, records};

    use super::*;

    fn printed(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        write: impl Fn(&Located<'_>, &mut Vec<u8>),
    ) -> String {
        let mut builder = BatchBuilder::new(Codec::None);
        let headers = [RecordHeader { key: b"trace", value: Some(b"a\tb") }];
        builder.append(1_700_000_000_000, key, value, &headers);
        let batch = builder.build();
        let opened = records(&batch, DecompressionLimits::output_bytes(1 << 20)).unwrap();
        let record = opened.iter().next().unwrap().unwrap();
        let mut output = Vec::new();
        write(&Located { topic: "demo", partition: 2, record }, &mut output);
        String::from_utf8(output).unwrap()
    }

    fn formatted(format: &str) -> String {
        let format: RecordFormat = format.parse().unwrap();
        printed(Some(b"k"), Some(b"value"), |located, output| format.write(located, output))
    }

    #[test]
    fn every_placeholder_prints_its_part() {
        assert_eq!(formatted(r"%t-%p@%o %T\n"), "demo-2@0 1700000000000\n");
        assert_eq!(formatted(r"%k:%K\t%v:%V\\ 100%% %h"), "k:1\tvalue:5\\ 100% trace=a\tb");
        assert_eq!(formatted("%s %S"), "value 5", "the letters of kcat");
    }

    #[test]
    fn without_a_format_it_is_the_value_and_a_line_end() {
        let format = RecordFormat::default();
        let line = printed(None, Some(b"value"), |located, output| format.write(located, output));
        assert_eq!(line, "value\n");
    }

    #[test]
    fn a_format_that_means_nothing_is_refused() {
        let parse = |text: &str| text.parse::<RecordFormat>();
        assert_eq!(parse("%x"), Err(InvalidFormat::Placeholder('x')));
        assert_eq!(parse(r"\q"), Err(InvalidFormat::Escape('q')));
        assert_eq!(parse("%"), Err(InvalidFormat::CutOff));
        assert_eq!(parse("\\"), Err(InvalidFormat::CutOff));
    }

    #[test]
    fn json_keeps_null_text_and_bytes_apart() {
        let line = printed(None, Some(b"\xff\x00"), write_json);
        assert_eq!(
            line,
            "{\"topic\":\"demo\",\"partition\":2,\"offset\":0,\"timestamp_ms\":1700000000000,\
             \"key\":null,\"value_base64\":\"/wA=\",\
             \"headers\":[{\"key\":\"trace\",\"value\":\"a\\tb\"}]}\n"
        );
        assert!(printed(Some(b"k"), None, write_json).contains("\"key\":\"k\",\"value\":null"));
    }

    #[test]
    fn a_row_is_one_line_whatever_the_value_holds() {
        let row = printed(Some(b"k"), Some(b"two\nlines"), write_tsv);
        assert_eq!(row, "demo\t2\t0\t1700000000000\tk\ttwo\\nlines\ttrace=a\\tb\n");
    }
}
