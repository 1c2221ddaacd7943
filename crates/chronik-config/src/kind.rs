//! The kinds of value a key can have: how each is read, bounded, printed and described.
//!
//! A kind returns no error text. The loader says "expected" and appends [`Kind::expected`], so
//! the message and the reference page cannot disagree.

use std::path::PathBuf;

use chronik_common::NodeId;

use crate::{Address, Value};

/// Reads and writes values of type `T` for one key.
pub(crate) trait Kind<T> {
    /// The typed value, or `None` if `value` has the wrong type or is out of bounds.
    fn read(&self, value: &Value) -> Option<T>;
    /// The value to print; `None` if the key is not set.
    fn write(&self, value: &T) -> Option<Value>;
    /// What is accepted, as a noun phrase.
    fn expected(&self) -> String;
}

/// A whole number; both bounds are inclusive.
pub(crate) struct Number {
    min: i64,
    max: i64,
}

/// A whole number from `min` to `max`.
pub(crate) const fn number(min: i64, max: i64) -> Number {
    assert!(min <= max, "a range has a member");
    Number { min, max }
}

impl Number {
    fn read_integer(&self, value: &Value) -> Option<i64> {
        let number = match value {
            Value::Integer(number) => *number,
            Value::Word(word) => word.trim().parse().ok()?,
            _ => return None,
        };
        (self.min..=self.max).contains(&number).then_some(number)
    }
}

impl<T: Copy + TryFrom<i64> + TryInto<i64>> Kind<T> for Number {
    fn read(&self, value: &Value) -> Option<T> {
        self.read_integer(value)?.try_into().ok()
    }

    fn write(&self, value: &T) -> Option<Value> {
        (*value).try_into().ok().map(Value::Integer)
    }

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", grouped(self.min), grouped(self.max))
    }
}

/// A node id, 0 to 2147483647.
pub(crate) struct NodeNumber;

impl Kind<NodeId> for NodeNumber {
    fn read(&self, value: &Value) -> Option<NodeId> {
        Kind::<i32>::read(&number(0, i32::MAX as i64), value).map(NodeId)
    }

    fn write(&self, value: &NodeId) -> Option<Value> {
        Some(Value::Integer(i64::from(value.0)))
    }

    fn expected(&self) -> String {
        Kind::<i32>::expected(&number(0, i32::MAX as i64))
    }
}

/// A quantity in a base unit, accepted as a bare number of that unit or with a unit's name.
pub(crate) struct Quantity {
    min: u64,
    max: u64,
    noun: &'static str,
    /// Name and size in base units, smallest first; the first has size 1.
    units: &'static [(&'static str, u64)],
}

/// A mebibyte, for the tables.
pub(crate) const MIB: u64 = 1 << 20;
/// A gibibyte, for the tables.
pub(crate) const GIB: u64 = 1 << 30;

const BYTE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", MIB),
    ("GB", 1_000_000_000),
    ("GiB", GIB),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

const MILLISECOND_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const MICROSECOND_UNITS: &[(&str, u64)] = &[("us", 1), ("ms", 1_000), ("s", 1_000_000)];

/// A size from `min` to `max` bytes, inclusive.
pub(crate) const fn bytes(min: u64, max: u64) -> Quantity {
    assert!(min <= max, "a range has a member");
    Quantity { min, max, noun: "a size", units: BYTE_UNITS }
}

/// A time from `min` to `max` milliseconds, inclusive.
pub(crate) const fn millis(min: u64, max: u64) -> Quantity {
    assert!(min <= max, "a range has a member");
    Quantity { min, max, noun: "a time", units: MILLISECOND_UNITS }
}

/// A time from `min` to `max` microseconds, inclusive.
pub(crate) const fn micros(min: u64, max: u64) -> Quantity {
    assert!(min <= max, "a range has a member");
    Quantity { min, max, noun: "a time", units: MICROSECOND_UNITS }
}

impl Quantity {
    fn parse(&self, text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let size = match unit {
            "" => 1,
            name => self.units.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?.1,
        };
        number.parse::<u64>().ok()?.checked_mul(size)
    }

    /// `value` in the largest power-of-two or time unit that divides it.
    pub(crate) fn spelled(&self, value: u64) -> String {
        let is_binary = |name: &str| name.ends_with("iB");
        let binary_only = self.units[0].0 == "B";
        let unit = self.units.iter().rev().find(|(name, size)| {
            (*size == 1 || !binary_only || is_binary(name))
                && value != 0
                && value.is_multiple_of(*size)
        });
        let (name, size) = unit.unwrap_or(&self.units[0]);
        format!("{} {name}", grouped((value / size) as i64))
    }
}

impl Kind<u64> for Quantity {
    fn read(&self, value: &Value) -> Option<u64> {
        let amount = match value {
            Value::Integer(number) => u64::try_from(*number).ok()?,
            Value::Word(text) | Value::Text(text) => self.parse(text)?,
            _ => return None,
        };
        (self.min..=self.max).contains(&amount).then_some(amount)
    }

    fn write(&self, value: &u64) -> Option<Value> {
        i64::try_from(*value).ok().map(Value::Integer)
    }

    fn expected(&self) -> String {
        let examples = match self.units[0].0 {
            "B" => r#"bytes, or "64MiB""#,
            "ms" => r#"milliseconds, or "10s""#,
            _ => r#"microseconds, or "2ms""#,
        };
        let (min, max) = (self.spelled(self.min), self.spelled(self.max));
        format!("{} from {min} to {max} ({examples})", self.noun)
    }
}

/// `true` or `false`.
pub(crate) struct Switch;

impl Kind<bool> for Switch {
    fn read(&self, value: &Value) -> Option<bool> {
        match value {
            Value::Boolean(flag) => Some(*flag),
            Value::Word(word) => word.trim().parse().ok(),
            _ => None,
        }
    }

    fn write(&self, value: &bool) -> Option<Value> {
        Some(Value::Boolean(*value))
    }

    fn expected(&self) -> String {
        "true or false".to_owned()
    }
}

/// A type whose values have fixed names.
pub trait Named: Copy + PartialEq + 'static {
    /// Every value with its name, in the order of the reference page.
    const NAMES: &'static [(&'static str, Self)];

    /// The value called `name`; names are compared exactly.
    #[must_use]
    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The name of this value.
    #[must_use]
    fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, value)| *value == self);
        found.expect("every value of a named type is in its table").0
    }
}

/// The names of `T`, as `"a", "b" or "c"`.
pub(crate) fn choices<T: Named>() -> String {
    let names: Vec<_> = T::NAMES.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    match names.as_slice() {
        [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
        _ => names.concat(),
    }
}

/// One of the names of a [`Named`] type.
pub(crate) struct Choice;

impl<T: Named> Kind<T> for Choice {
    fn read(&self, value: &Value) -> Option<T> {
        T::from_name(value.characters()?.trim())
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(Value::Text(value.name().to_owned()))
    }

    fn expected(&self) -> String {
        choices::<T>()
    }
}

/// Free text that is not empty.
pub(crate) struct Text;

impl Kind<String> for Text {
    fn read(&self, value: &Value) -> Option<String> {
        let text = value.characters()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::Text(value.clone()))
    }

    fn expected(&self) -> String {
        "a string".to_owned()
    }
}

/// A list of strings; as a word, separated by commas.
pub(crate) struct Texts;

impl Kind<Vec<String>> for Texts {
    fn read(&self, value: &Value) -> Option<Vec<String>> {
        match value {
            Value::Word(word) if word.trim().is_empty() => Some(Vec::new()),
            Value::Word(word) => {
                word.split(',').map(|item| Text.read(&Value::Word(item.to_owned()))).collect()
            }
            Value::List(items) => items
                .iter()
                .map(|item| if matches!(item, Value::Text(_)) { Text.read(item) } else { None })
                .collect(),
            _ => None,
        }
    }

    fn write(&self, value: &Vec<String>) -> Option<Value> {
        Some(Value::List(value.iter().cloned().map(Value::Text).collect()))
    }

    fn expected(&self) -> String {
        r#"a list of strings, such as ["dc2", "dc3"]"#.to_owned()
    }
}

/// A path of the file system.
pub(crate) struct FilePath;

impl Kind<PathBuf> for FilePath {
    fn read(&self, value: &Value) -> Option<PathBuf> {
        Text.read(value).map(PathBuf::from)
    }

    fn write(&self, value: &PathBuf) -> Option<Value> {
        Some(Value::Text(value.to_string_lossy().into_owned()))
    }

    fn expected(&self) -> String {
        "a path".to_owned()
    }
}

/// `HOST` or `HOST:PORT`.
pub(crate) struct HostAndPort;

impl Kind<Address> for HostAndPort {
    fn read(&self, value: &Value) -> Option<Address> {
        value.characters()?.trim().parse().ok()
    }

    fn write(&self, value: &Address) -> Option<Value> {
        Some(Value::Text(value.to_string()))
    }

    fn expected(&self) -> String {
        r#"HOST or HOST:PORT, such as "kafka.example:9092" or "[::1]:9092""#.to_owned()
    }
}

/// A host name or an IP address, without a port.
pub(crate) struct Host;

impl Kind<String> for Host {
    fn read(&self, value: &Value) -> Option<String> {
        let address: Address = value.characters()?.trim().parse().ok()?;
        address.port.is_none().then_some(address.host)
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::Text(value.clone()))
    }

    fn expected(&self) -> String {
        r#"a host name or an IP address without a port, such as "0.0.0.0""#.to_owned()
    }
}

/// A log filter: levels, or `target=level` pairs, separated by commas.
pub(crate) struct LogFilter;

impl Kind<String> for LogFilter {
    fn read(&self, value: &Value) -> Option<String> {
        let filter = Text.read(value)?;
        let level_names = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = |name: &str| level_names.iter().any(|l| l.eq_ignore_ascii_case(name.trim()));
        let valid = filter.split(',').all(|directive| match directive.rsplit_once('=') {
            Some((target, level)) => !target.trim().is_empty() && is_level(level),
            None => is_level(directive),
        });
        valid.then_some(filter)
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::Text(value.clone()))
    }

    fn expected(&self) -> String {
        r#"levels (off, error, warn, info, debug, trace), such as "info" or "info,chronik_wal=debug""#
            .to_owned()
    }
}

/// A key that may stay unset; empty text unsets what a lower layer set.
pub(crate) struct Maybe<K>(pub(crate) K);

impl<T, K: Kind<T>> Kind<Option<T>> for Maybe<K> {
    fn read(&self, value: &Value) -> Option<Option<T>> {
        if value.characters().is_some_and(|text| text.trim().is_empty()) {
            return Some(None);
        }
        self.0.read(value).map(Some)
    }

    fn write(&self, value: &Option<T>) -> Option<Value> {
        self.0.write(value.as_ref()?)
    }

    fn expected(&self) -> String {
        self.0.expected()
    }
}

/// `number` with a comma between groups of three digits.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::Word(text.to_owned())
    }

    #[test]
    fn sizes_and_times_take_bare_numbers_and_units() {
        let size = bytes(0, 1 << 41);
        for (text, expected) in [
            ("4096", Some(4_096)),
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("2TiB", Some(1 << 41)),
            ("64 megabytes", None),
            ("-1", None),
            ("1.5GiB", None),
            ("", None),
            ("MiB", None),
            ("99999999999999999999", None),
            ("18446744073709551615TiB", None),
        ] {
            assert_eq!(size.read(&word(text)), expected, "{text:?}");
            assert_eq!(size.read(&Value::Text(text.to_owned())), expected, "{text:?}");
        }
        assert_eq!(millis(0, 1_000_000_000).read(&word("2h")), Some(7_200_000));
        assert_eq!(micros(0, 1_000_000_000).read(&word("2ms")), Some(2_000));
    }

    #[test]
    fn a_bound_is_accepted_and_one_beyond_it_is_not() {
        let size = bytes(10, 20);
        let read = |n| size.read(&Value::Integer(n)).is_some();
        assert_eq!([9, 10, 20, 21].map(read), [false, true, true, false]);
        let port = number(0, 65_535);
        let read = |n| Kind::<u16>::read(&port, &Value::Integer(n)).is_some();
        assert_eq!([-1, 0, 65_535, 65_536].map(read), [false, true, true, false]);
    }

    #[test]
    fn toml_types_are_checked_while_words_are_parsed() {
        let port = number(0, 65_535);
        assert_eq!(Kind::<u16>::read(&port, &Value::Text("9092".to_owned())), None);
        assert_eq!(Kind::<u16>::read(&port, &word("9092")), Some(9_092));
        assert_eq!(Switch.read(&Value::Text("true".to_owned())), None);
        assert_eq!(Switch.read(&word("true")), Some(true));
        assert_eq!(Switch.read(&word("yes")), None);
    }

    #[test]
    fn log_filters_need_a_level_in_every_directive() {
        for (filter, valid) in [
            ("info", true),
            ("INFO", true),
            ("warn,chronik_wal=debug", true),
            ("inof", false),
            ("chronik_wal=", false),
            ("=debug", false),
            ("info,", false),
        ] {
            assert_eq!(LogFilter.read(&word(filter)).is_some(), valid, "{filter:?}");
        }
    }

    #[test]
    fn bounds_are_described_in_the_unit_people_use() {
        assert_eq!(bytes(MIB, GIB).expected(), "a size from 1 MiB to 1 GiB (bytes, or \"64MiB\")");
        assert_eq!(
            millis(0, 86_400_000).expected(),
            "a time from 0 ms to 1 d (milliseconds, or \"10s\")"
        );
        assert_eq!(grouped(-1_234_567), "-1,234,567");
        assert_eq!(grouped(i64::MIN), "-9,223,372,036,854,775,808");
    }
}
