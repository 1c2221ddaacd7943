//! Which topic names are legal. Checked before a path is ever built from one.

/// Longest legal name, in bytes (`org.apache.kafka.common.internals.Topic`).
const NAME_BYTES_MAX: usize = 249;

/// Why a topic name is illegal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidTopicName {
    /// No characters.
    #[error("the topic name is empty")]
    Empty,
    /// Above 249 characters.
    #[error("the topic name is longer than 249 characters")]
    TooLong,
    /// `.` or `..`.
    #[error("the topic name must not be \".\" or \"..\"")]
    Dots,
    /// A character outside `[a-zA-Z0-9._-]`.
    #[error("the topic name may only hold letters, digits, '.', '_' and '-'")]
    Character,
}

/// Checks a name.
///
/// # Errors
/// The first rule it breaks.
pub fn check_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err(InvalidTopicName::Empty)
    } else if name.len() > NAME_BYTES_MAX {
        Err(InvalidTopicName::TooLong)
    } else if name == "." || name == ".." {
        Err(InvalidTopicName::Dots)
    } else if !name.bytes().all(is_legal) {
        Err(InvalidTopicName::Character)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_the_limit_are_legal_and_beyond_it_are_not() {
        assert_eq!(check_topic_name(&"a".repeat(249)), Ok(()));
        assert_eq!(check_topic_name(&"a".repeat(250)), Err(InvalidTopicName::TooLong));
        assert_eq!(check_topic_name("a.B_9-z"), Ok(()));
        assert_eq!(check_topic_name(""), Err(InvalidTopicName::Empty));
        assert_eq!(check_topic_name(".."), Err(InvalidTopicName::Dots));
        for name in ["../x", "a/b", "a\0", "caf\u{e9}", "a b", "a\n"] {
            assert_eq!(check_topic_name(name), Err(InvalidTopicName::Character), "{name:?}");
        }
    }
}
