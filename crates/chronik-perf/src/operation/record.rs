//! The bytes of a batch: checksum and validation.

use std::hint::black_box;

use bytes::Bytes;
use chronik_config::TopicConfig;
use chronik_partition::{BatchSource, PreparedBatch, TopicSettings};
use chronik_record::{Codec, crc};
use chronik_testkit::batch_of;

use super::Operation;
use super::node::NOW;

/// Bytes of a record's value.
const VALUE_BYTES: usize = 256;

/// A batch of `records` records.
pub(super) fn batch(records: usize) -> Bytes {
    batch_of(Codec::None, None, NOW.0, &vec![[b'v'; VALUE_BYTES]; records])
}

/// The checksum over a batch.
pub(super) struct Checksum {
    batch: Bytes,
}

impl Checksum {
    pub(super) fn new(records: usize) -> Self {
        Self { batch: batch(records) }
    }
}

impl Operation for Checksum {
    fn run(&mut self) {
        black_box(crc::crc32c(black_box(&self.batch)));
    }
}

/// What a batch must pass before its partition is asked, its checksum included.
pub(super) struct Validate {
    batch: Bytes,
    settings: TopicSettings,
}

impl Validate {
    pub(super) fn new() -> Self {
        Self { batch: batch(1), settings: TopicSettings::new(TopicConfig::default()) }
    }
}

impl Operation for Validate {
    fn run(&mut self) {
        let source = BatchSource::Borrowed(black_box(&self.batch));
        let prepared = PreparedBatch::new(source, &self.settings, NOW, true);
        black_box(prepared.expect("the batch obeys the rules"));
    }
}
