//! Records from standard input: one a line, as plain text or as JSON.

use std::io::{self, BufRead, Read};

use clap::ValueEnum;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::base64;

/// Longest line of the input, in bytes: the largest request a server takes by default.
pub(crate) const LINE_BYTES_MAX: u64 = 100 << 20;

/// How the input is cut into records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum InputForm {
    /// Each line is the value of a record.
    #[default]
    Lines,
    /// Each line is an object as `consume -o json` prints it: value, and if wanted key, headers,
    /// timestamp_ms. A value that is no string is sent as JSON.
    Jsonl,
}

/// A record to send.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct InputRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// In ms since the Unix epoch; `None` is now.
    pub(crate) timestamp_ms: Option<i64>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum InputDefect {
    /// Standard input cannot be read.
    #[error("cannot read it: {0}")]
    Unreadable(#[source] io::Error),
    /// Too long to be a record.
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not a JSON object of the expected form.
    #[error("not a record: {0}")]
    NotARecord(#[source] serde_json::Error),
    /// A field that is not base64.
    #[error("{0} is not base64")]
    NotBase64(&'static str),
}

/// Reads the next record; `None` at the end of the input.
pub(crate) fn read_record(
    input: &mut impl BufRead,
    form: InputForm,
) -> Result<Option<InputRecord>, InputDefect> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX + 1;
    input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(InputDefect::Unreadable)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == limit {
        return Err(InputDefect::TooLong);
    }
    match form {
        InputForm::Lines => Ok(Some(InputRecord { value: Some(line), ..InputRecord::default() })),
        InputForm::Jsonl => {
            let line: JsonLine = serde_json::from_slice(&line).map_err(InputDefect::NotARecord)?;
            line.into_record().map(Some)
        }
    }
}

/// A line of JSON. The position a record had where it was consumed is accepted and ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    #[serde(default)]
    key: Value,
    key_base64: Option<String>,
    #[serde(default)]
    value: Value,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<JsonHeader>,
    timestamp_ms: Option<i64>,
    #[serde(rename = "topic")]
    _topic: Option<IgnoredAny>,
    #[serde(rename = "partition")]
    _partition: Option<IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader {
    key: String,
    #[serde(default)]
    value: Value,
    value_base64: Option<String>,
}

impl JsonLine {
    fn into_record(self) -> Result<InputRecord, InputDefect> {
        let header = |header: JsonHeader| {
            let value = bytes("headers.value_base64", header.value, header.value_base64)?;
            Ok((header.key.into_bytes(), value))
        };
        Ok(InputRecord {
            key: bytes("key_base64", self.key, self.key_base64)?,
            value: bytes("value_base64", self.value, self.value_base64)?,
            headers: self.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            timestamp_ms: self.timestamp_ms,
        })
    }
}

/// Base64 if there is any, else the characters of a string, else the JSON of any other value.
fn bytes(
    field: &'static str,
    value: Value,
    in_base64: Option<String>,
) -> Result<Option<Vec<u8>>, InputDefect> {
    match (in_base64, value) {
        (Some(text), _) => base64::decode(&text).map(Some).ok_or(InputDefect::NotBase64(field)),
        (None, Value::Null) => Ok(None),
        (None, Value::String(text)) => Ok(Some(text.into_bytes())),
        (None, other) => Ok(Some(other.to_string().into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &str, form: InputForm) -> Vec<InputRecord> {
        let mut input = input.as_bytes();
        std::iter::from_fn(|| read_record(&mut input, form).unwrap()).collect()
    }

    #[test]
    fn every_line_is_a_value_and_the_last_needs_no_line_end() {
        let values: Vec<_> =
            all("one\n\ntwo\r\nlast", InputForm::Lines).into_iter().map(|it| it.value).collect();
        let expected = [&b"one"[..], b"", b"two\r", b"last"].map(|value| Some(value.to_vec()));
        assert_eq!(values, expected);
        assert_eq!(all("", InputForm::Lines), []);
    }

    #[test]
    fn a_json_line_is_what_consume_prints() {
        let line = r#"{"topic":"a","partition":1,"offset":5,"timestamp_ms":7,"key":null,
            "value_base64":"/wA=","headers":[{"key":"h","value":"x"},{"key":"n","value":null}]}"#;
        let record = InputRecord {
            key: None,
            value: Some(vec![0xff, 0]),
            headers: vec![(b"h".to_vec(), Some(b"x".to_vec())), (b"n".to_vec(), None)],
            timestamp_ms: Some(7),
        };
        assert_eq!(all(&line.replace('\n', " "), InputForm::Jsonl), [record]);
    }

    #[test]
    fn a_value_that_is_no_string_is_sent_as_json() {
        let records = all("{\"key\":1,\"value\":{\"a\":[true]}}\n", InputForm::Jsonl);
        assert_eq!(records[0].key.as_deref(), Some(&b"1"[..]));
        assert_eq!(records[0].value.as_deref(), Some(&b"{\"a\":[true]}"[..]));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused() {
        for line in ["no json", "[]", "{\"valeu\":1}", "{\"value_base64\":\"?\"}", "\n"] {
            let result = read_record(&mut line.as_bytes(), InputForm::Jsonl);
            assert!(result.is_err(), "{line:?}: {result:?}");
        }
    }
}
