//! Reads a schema file.
//!
//! ```text
//! # Comments run to the end of the line.
//! api <key> <Name>  versions A-B  [served A-B]  flexible N|none  [response-header 0]
//! request
//!   <field>  <type>  <versions>  [nullable N+] [tag N] [default VALUE] [ignorable]
//! response
//!   ...
//! ```
//!
//! Types are `bool`, `i8` to `i64`, `u16`, `u32`, `f64`, `uuid`, `string`, `bytes`, `records`,
//! `struct <Name>` and `array <type or Name>`. The fields of a struct follow on lines indented by
//! two more spaces. Versions are `N`, `A-B`, or `A+` (to the last version of the API).
//! A nullable field is null where it is absent, unless it says `default empty`.
//!
//! `served` and `response-header` do not change the codec; a test compares them, like all of the
//! `api` line, with the table in `api_key.rs`. Every fault is reported as
//! `file:line: what is wrong`.

use std::collections::HashSet;

use anyhow::{Result, anyhow, bail, ensure};

use super::model::{Api, Default, Field, Kind, Struct, Versions};

const INDENT_SPACES: usize = 2;

/// Names that the generated functions use themselves.
const RESERVED_NAMES: [&str; 7] =
    ["reader", "out", "version", "flexible", "sampler", "mark", "element"];

/// Parses `text`, the contents of `file` (a name for messages).
pub fn parse(file: &str, text: &str) -> Result<Api> {
    let lines = significant_lines(file, text)?;
    let mut parser = Parser {
        file,
        lines: &lines,
        struct_names: HashSet::new(),
        flexible: None,
        last_version: None,
    };
    parser.api()
}

/// A line that is neither empty nor a comment.
struct Line<'t> {
    number: usize,
    depth: usize,
    words: Vec<&'t str>,
}

fn significant_lines<'t>(file: &str, text: &'t str) -> Result<Vec<Line<'t>>> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let content = line.split('#').next().unwrap_or_default();
        let words: Vec<_> = content.split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let spaces = content.len() - content.trim_start_matches(' ').len();
        ensure!(
            spaces.is_multiple_of(INDENT_SPACES) && !content.starts_with('\t'),
            "{file}:{number}: indent by {INDENT_SPACES} spaces a level"
        );
        lines.push(Line { number, depth: spaces / INDENT_SPACES, words });
    }
    Ok(lines)
}

struct Parser<'p, 't> {
    file: &'p str,
    /// What is not read yet.
    lines: &'p [Line<'t>],
    struct_names: HashSet<String>,
    flexible: Option<i16>,
    /// Last version of the API, once known.
    last_version: Option<i16>,
}

impl<'p, 't> Parser<'p, 't> {
    fn api(&mut self) -> Result<Api> {
        let line = self.next("an `api` line")?;
        let ["api", key, name, options @ ..] = line.words.as_slice() else {
            return Err(self.fault(line, "expected `api <key> <Name> ...`"));
        };
        if !is_type_name(name) {
            return Err(self.fault(line, "an API's name is in upper camel case"));
        }
        let key = key.parse().map_err(|_| self.fault(line, "the key is not a number"))?;
        let (mut versions, mut served, mut plain_response_header) = (None, None, false);
        for option in options.chunks(2) {
            let [word, value] = option else {
                return Err(self.fault(line, &format!("`{}` needs a value", option[0])));
            };
            match *word {
                "versions" => versions = Some(self.range(line, value)?),
                "flexible" if *value == "none" => self.flexible = None,
                "flexible" => {
                    let first = value.parse();
                    self.flexible =
                        Some(first.map_err(|_| self.fault(line, "flexible is not a version"))?);
                }
                "served" => served = Some(self.range(line, value)?),
                "response-header" if *value == "0" => plain_response_header = true,
                _ => return Err(self.fault(line, &format!("`{word} {value}` is not known"))),
            }
        }
        let versions = versions.ok_or_else(|| self.fault(line, "`versions A-B` is missing"))?;
        self.last_version = Some(versions.max);
        let served = served.unwrap_or(versions);
        if served.intersect(versions) != Some(served) {
            return Err(self.fault(line, "served versions outside `versions`"));
        }
        self.struct_names.extend([format!("{name}Request"), format!("{name}Response")]);

        self.section("request")?;
        let request = self.fields(1, versions)?;
        self.section("response")?;
        let response = self.fields(1, versions)?;
        if let Some(line) = self.lines.first() {
            return Err(self.fault(line, "expected the end of the file"));
        }
        Ok(Api {
            key,
            name: (*name).to_owned(),
            versions,
            served,
            plain_response_header,
            flexible: self.flexible,
            request,
            response,
        })
    }

    fn section(&mut self, word: &str) -> Result<()> {
        let line = self.next(&format!("`{word}`"))?;
        if line.depth != 0 || line.words != [word] {
            return Err(self.fault(line, &format!("expected `{word}`")));
        }
        Ok(())
    }

    /// The fields at `depth`, whose enclosing struct exists in `enclosing`.
    fn fields(&mut self, depth: usize, enclosing: Versions) -> Result<Vec<Field>> {
        let mut fields: Vec<Field> = Vec::new();
        while let Some(line) = self.lines.first().filter(|line| line.depth >= depth) {
            if line.depth > depth {
                return Err(self.fault(line, "only a struct has fields below it"));
            }
            self.lines = &self.lines[1..];
            let field = self.field(line, enclosing)?;
            if fields.iter().any(|earlier| earlier.name == field.name) {
                return Err(self.fault(line, "a second field of this name"));
            }
            let last_tag = fields.iter().filter_map(|earlier| earlier.tag).next_back();
            if field.tag.is_some() && field.tag <= last_tag {
                return Err(self.fault(line, "tags ascend"));
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn field(&mut self, line: &Line<'_>, enclosing: Versions) -> Result<Field> {
        let (name, type_words, rest) = match line.words.as_slice() {
            [name, first @ ("array" | "struct"), second, rest @ ..] => {
                (*name, (*first, Some(*second)), rest)
            }
            [name, first, rest @ ..] => (*name, (*first, None), rest),
            _ => return Err(self.fault(line, "expected `<field> <type> <versions>`")),
        };
        let [versions, modifiers @ ..] = rest else {
            return Err(self.fault(line, "the versions are missing"));
        };
        if !is_field_name(name) {
            return Err(self.fault(line, "a field's name is in snake case"));
        }
        if RESERVED_NAMES.contains(&name) {
            return Err(self.fault(line, "the generated code uses this name itself"));
        }
        let versions = self.range(line, versions)?;
        if versions.intersect(enclosing) != Some(versions) {
            return Err(self.fault(line, "versions outside those of the enclosing struct"));
        }
        let kind = self.kind(line, type_words, versions)?;
        let mut field = Field {
            name: name.to_owned(),
            kind,
            versions,
            nullable_from: None,
            tag: None,
            default: Default::Natural,
            ignorable: false,
        };
        self.modifiers(line, modifiers, &mut field)?;
        self.check(line, &field)?;
        Ok(field)
    }

    fn kind(
        &mut self,
        line: &Line<'_>,
        type_words: (&str, Option<&str>),
        versions: Versions,
    ) -> Result<Kind> {
        let (first, second) = type_words;
        match (first, second) {
            ("struct", Some(name)) => self.structure(line, name, versions),
            ("array", Some(element)) => {
                let element = match self.leaf(element) {
                    Some(leaf) => leaf,
                    None => self.structure(line, element, versions)?,
                };
                Ok(Kind::Array(Box::new(element)))
            }
            _ => self.leaf(first).ok_or_else(|| self.fault(line, "this type is not known")),
        }
    }

    fn leaf(&self, word: &str) -> Option<Kind> {
        const SCALARS: [&str; 8] = ["bool", "i8", "i16", "i32", "i64", "u16", "u32", "f64"];
        match word {
            "uuid" => Some(Kind::Uuid),
            "string" => Some(Kind::String),
            "bytes" => Some(Kind::Bytes),
            "records" => Some(Kind::Records),
            _ => SCALARS.into_iter().find(|scalar| *scalar == word).map(Kind::Scalar),
        }
    }

    fn structure(&mut self, line: &Line<'_>, name: &str, versions: Versions) -> Result<Kind> {
        if !is_type_name(name) {
            return Err(self.fault(line, "a struct's name is in upper camel case"));
        }
        if !self.struct_names.insert(name.to_owned()) {
            return Err(self.fault(line, "a second struct of this name"));
        }
        let fields = self.fields(line.depth + 1, versions)?;
        if fields.is_empty() {
            return Err(self.fault(line, "a struct without fields"));
        }
        Ok(Kind::Struct(Struct { name: name.to_owned(), fields, versions }))
    }

    fn modifiers(&self, line: &Line<'_>, words: &[&str], field: &mut Field) -> Result<()> {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().ok_or_else(|| self.fault(line, &format!("`{word}` needs a value")));
            match *word {
                "ignorable" => field.ignorable = true,
                "nullable" => {
                    let first = value()?.strip_suffix('+').and_then(|first| first.parse().ok());
                    let first = first.ok_or_else(|| self.fault(line, "expected `nullable N+`"))?;
                    field.nullable_from = Some(first);
                }
                "tag" => {
                    let number = value()?.parse();
                    field.tag =
                        Some(number.map_err(|_| self.fault(line, "the tag is not a number"))?);
                }
                "default" => field.default = self.default(line, value()?, &field.kind)?,
                _ => return Err(self.fault(line, &format!("`{word}` is not known"))),
            }
        }
        Ok(())
    }

    fn default(&self, line: &Line<'_>, word: &str, kind: &Kind) -> Result<Default> {
        match (kind, word) {
            (Kind::Scalar("bool"), "true") => Ok(Default::True),
            (Kind::Scalar(scalar), _) => {
                let number: i64 =
                    word.parse().map_err(|_| self.fault(line, "the default is not a number"))?;
                let (min, max) = match *scalar {
                    "i8" => (i64::from(i8::MIN), i64::from(i8::MAX)),
                    "i16" => (i64::from(i16::MIN), i64::from(i16::MAX)),
                    "i32" => (i64::from(i32::MIN), i64::from(i32::MAX)),
                    "i64" => (i64::MIN, i64::MAX),
                    "u16" => (0, i64::from(u16::MAX)),
                    "u32" => (0, i64::from(u32::MAX)),
                    _ => return Err(self.fault(line, "this type takes no default")),
                };
                if !(min..=max).contains(&number) {
                    return Err(self.fault(line, "the default does not fit the type"));
                }
                Ok(if number == 0 { Default::Natural } else { Default::Number(number) })
            }
            (Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_), "empty") => {
                Ok(Default::Empty)
            }
            _ => Err(self.fault(line, "this type takes no such default")),
        }
    }

    /// Rules that need the whole field.
    fn check(&self, line: &Line<'_>, field: &Field) -> Result<()> {
        let has_length =
            matches!(field.kind, Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_));
        let nullable = field.nullable_from.is_some();
        let fault = if nullable && !has_length {
            "null exists only for strings, bytes, records and arrays"
        } else if field
            .nullable_from
            .is_some_and(|from| !(field.versions.min..=field.versions.max).contains(&from))
        {
            "nullable where the field does not exist"
        } else if field.default == Default::Empty && !nullable {
            "`default empty` is for nullable fields"
        } else if matches!(&field.kind, Kind::Array(element) if matches!(**element, Kind::Array(_)))
        {
            "arrays of arrays do not occur in the protocol"
        } else if field.tag.is_some() && self.flexible.is_none_or(|f| field.versions.min < f) {
            "a tagged field needs a flexible version"
        } else if field.tag.is_some() && holds_records(&field.kind) {
            "records do not occur in tagged fields: their length is patched by moving bytes"
        } else if matches!(field.kind, Kind::Struct(_)) && field.tag.is_none() {
            "a struct that is neither tagged nor an array element does not occur yet"
        } else {
            return Ok(());
        };
        Err(self.fault(line, fault))
    }

    /// `N`, `A-B` or, where the last version is known, `A+`.
    fn range(&self, line: &Line<'_>, word: &str) -> Result<Versions> {
        let fault = || self.fault(line, &format!("`{word}` is not a range of versions"));
        let number = |text: &str| text.parse::<i16>().map_err(|_| fault());
        let versions = match (word.strip_suffix('+'), word.split_once('-'), self.last_version) {
            (Some(min), _, Some(max)) => Versions { min: number(min)?, max },
            (None, Some((min, max)), _) => Versions { min: number(min)?, max: number(max)? },
            (None, None, _) => Versions { min: number(word)?, max: number(word)? },
            (Some(_), _, None) => return Err(fault()),
        };
        if versions.min < 0 || versions.min > versions.max {
            return Err(fault());
        }
        Ok(versions)
    }

    fn next(&mut self, expected: &str) -> Result<&'p Line<'t>> {
        let Some((line, rest)) = self.lines.split_first() else {
            bail!("{}: the file ends where {expected} was expected", self.file);
        };
        self.lines = rest;
        Ok(line)
    }

    fn fault(&self, line: &Line<'_>, what: &str) -> anyhow::Error {
        anyhow!("{}:{}: {what}", self.file, line.number)
    }
}

fn is_type_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_field_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn holds_records(kind: &Kind) -> bool {
    match kind {
        Kind::Records => true,
        Kind::Array(element) => holds_records(element),
        Kind::Struct(inner) => inner.fields.iter().any(|field| holds_records(&field.kind)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "api 7 Sample  versions 1-4  flexible 3\n";

    /// Parses a schema with these request fields and no response fields.
    fn parse_fields(fields: &str) -> Result<Api> {
        parse("7_sample.wire", &format!("{HEAD}request\n{fields}\nresponse\n"))
    }

    #[test]
    fn versions_of_a_field_lie_within_those_of_its_struct() {
        let api =
            parse_fields("  # A comment.\n  topics  array Topic  2-3\n    name  string  2+\n");
        let message = api.expect_err("2+ is 2-4").to_string();
        assert_eq!(message, "7_sample.wire:5: versions outside those of the enclosing struct");

        let api = parse_fields("  topics  array Topic  2+  nullable 3+\n    name  string  2-3\n")
            .unwrap();
        let topics = &api.request[0];
        assert_eq!(topics.versions, Versions { min: 2, max: 4 });
        assert_eq!(topics.nullable_from, Some(3));
        let Kind::Array(element) = &topics.kind else { panic!("{:?}", topics.kind) };
        let Kind::Struct(topic) = &**element else { panic!("{element:?}") };
        assert_eq!((topic.name.as_str(), topic.fields.len()), ("Topic", 1));
        assert_eq!(topic.fields[0].versions, Versions { min: 2, max: 3 });
    }

    #[test]
    fn each_fault_is_reported_with_file_and_line() {
        let faults = [
            ("", "7_sample.wire: the file ends where `response` was expected"),
            ("  a i32", "3: the versions are missing"),
            ("  a i32 0+", "3: versions outside those of the enclosing struct"),
            ("  a i32 x", "3: `x` is not a range of versions"),
            ("  a i32 3-2", "3: `3-2` is not a range of versions"),
            ("  a i33 1+", "3: this type is not known"),
            ("  a i32 1+ default 2147483648", "3: the default does not fit the type"),
            ("  a string 1+ default null", "3: this type takes no such default"),
            (
                "  a i32 1+ nullable 1+",
                "3: null exists only for strings, bytes, records and arrays",
            ),
            ("  a string 2+ nullable 1+", "3: nullable where the field does not exist"),
            ("  a string 1+ nullable 1-2", "3: expected `nullable N+`"),
            ("  a i32 1+ tag 0", "3: a tagged field needs a flexible version"),
            ("  a i32 3+ tag 1\n  b i32 3+ tag 1", "4: tags ascend"),
            ("  a i32 1+ tag", "3: `tag` needs a value"),
            ("  a i32 1+ optional", "3: `optional` is not known"),
            ("  a i32 1+\n  a i32 1+", "4: a second field of this name"),
            ("  a array B 1+", "3: a struct without fields"),
            ("  a array b 1+", "3: a struct's name is in upper camel case"),
            ("  a i32 1+\n    b i32 1+", "4: only a struct has fields below it"),
            ("   a i32 1+", "3: indent by 2 spaces a level"),
            ("  timeoutMs i32 1+", "3: a field's name is in snake case"),
            ("  version i32 1+", "3: the generated code uses this name itself"),
            (
                "  a array B 3+ tag 0\n    records records 3+",
                "3: records do not occur in tagged fields: their length is patched by moving bytes",
            ),
        ];
        for (fields, expected) in faults {
            let parsed = if fields.is_empty() {
                parse("7_sample.wire", &format!("{HEAD}request\n"))
            } else {
                parse_fields(fields)
            };
            let message = parsed.expect_err(fields).to_string();
            assert!(message.starts_with("7_sample.wire:"), "{message:?}");
            assert!(message.ends_with(expected), "{message:?} instead of {expected:?}");
        }
    }
}
