//! Message formats 0 and 1, which are refused cleanly.
//!
//! Input: a message set. Its format byte is forced to 0 or 1 by the first byte's lowest bit.
//! Checked: whoever sends it is told about the format, or that it is cut off; nothing else.

use chronik_common::WallMs;
use chronik_record::{
    BatchError, Corruption, DecompressionLimits, ValidationLevel, ValidationRules, Violation,
    layout, records, validate_batch,
};

use crate::allocation;
use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "legacy_message_set", run, seeds };

fn run(input: &[u8]) {
    let Some((first, _)) = input.split_first() else { return };
    let magic = (first & 1) as i8;
    let mut set = input.to_vec();
    if let Some(byte) = set.get_mut(layout::MAGIC) {
        *byte = magic as u8;
    }
    let rules = ValidationRules {
        level: ValidationLevel::Full,
        ..ValidationRules::new(WallMs(1_700_000_000_000))
    };
    let validated = allocation::assert_parsing(0, || validate_batch(&set, &rules).map(|_| ()));
    let opened = allocation::assert_parsing(0, || {
        records(&set, DecompressionLimits::output_bytes(0)).map(|_| ())
    });
    for refusal in [validated, opened] {
        match refusal {
            Err(BatchError::Invalid(Violation::UnsupportedMagic { magic: found })) => {
                assert_eq!(found, magic);
            }
            Err(BatchError::Corrupt(Corruption::Truncated { .. })) => {
                assert!(set.len() <= layout::MAGIC, "{} bytes show their format", set.len());
            }
            other => panic!("a legacy message set is {other:?}"),
        }
    }
}

fn seeds() -> Vec<Seed> {
    // offset i64, size i32, crc u32, magic i8, attributes i8, (v1: timestamp i64,) key, value
    let message = |magic: u8, timestamp: &[u8]| {
        let key_and_value = [0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v'];
        let size = (6 + timestamp.len() + key_and_value.len()) as i32;
        let mut bytes = u64::from(magic).to_be_bytes().to_vec();
        bytes.rotate_left(7);
        bytes.extend(size.to_be_bytes());
        bytes.extend([0x12, 0x34, 0x56, 0x78, magic, 0]);
        bytes.extend(timestamp);
        bytes.extend(key_and_value);
        bytes
    };
    let v0 = message(0, &[]);
    let v1 = message(1, &1_700_000_000_000_i64.to_be_bytes());
    vec![
        Seed::new("v0-two-messages", [v0.as_slice(), &v0].concat()),
        Seed::new("v1-message", v1.as_slice()),
        Seed::new("v1-cut", &v1[..20]),
    ]
}
