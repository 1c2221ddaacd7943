//! Standard base64 with padding, for keys and values that are not UTF-8.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PADDING: u8 = b'=';

/// The text of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for index in 0..4 {
            let sextet = (bits >> (18 - 6 * index)) & 0x3f;
            let is_padding = index > group.len();
            text.push(char::from(if is_padding { PADDING } else { ALPHABET[sextet as usize] }));
        }
    }
    text
}

/// The bytes of `text`; `None` if it is not padded base64, or has bits where none belong.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let (groups, []) = text.as_bytes().as_chunks::<4>() else { return None };
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (index, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == PADDING).count();
        let is_last = index + 1 == groups.len();
        if padding > 2 || (padding > 0 && !is_last) {
            return None;
        }
        let mut bits = 0;
        for character in &group[..4 - padding] {
            let value = ALPHABET.iter().position(|known| known == character)?;
            bits = (bits << 6) | value as u32;
        }
        bits <<= 6 * padding;
        let three = bits.to_be_bytes();
        let (kept, spare) = three[1..].split_at(3 - padding);
        if spare.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn the_vectors_of_the_rfc_round_trip() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn text_that_is_not_base64_is_refused() {
        for text in ["Zg", "Zg=", "Z===", "Zg==Zg==", "Zh==", "Z g=", "Zm9-"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
