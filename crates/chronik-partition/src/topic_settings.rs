//! What a topic's configs mean to its partitions.

use std::collections::BTreeMap;

use chronik_common::WallMs;
use chronik_config::{self as topic, TopicConfig};
use chronik_record::{Codec, TimestampType, ValidationLevel, ValidationRules};
use chronik_wal::{Durability, LogConfig};

/// A topic's configs, resolved and translated. Shared by its partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    /// The resolved configs.
    pub config: TopicConfig,
    /// Codec in which batches are stored; `None` keeps the producer's.
    pub codec: Option<Codec>,
}

impl TopicSettings {
    /// Settings of a topic with resolved `config`.
    #[must_use]
    pub fn new(config: TopicConfig) -> Self {
        let codec = match config.compression_type {
            topic::CompressionType::Producer => None,
            topic::CompressionType::Uncompressed => Some(Codec::None),
            topic::CompressionType::Gzip => Some(Codec::Gzip),
            topic::CompressionType::Snappy => Some(Codec::Snappy),
            topic::CompressionType::Lz4 => Some(Codec::Lz4),
            topic::CompressionType::Zstd => Some(Codec::Zstd),
        };
        Self { config, codec }
    }

    /// Settings of a topic whose overrides were accepted when it was created. An override this
    /// release does not accept any more leaves the default in place.
    #[must_use]
    pub fn from_overrides(defaults: &TopicConfig, overrides: &BTreeMap<String, String>) -> Self {
        let accepted: BTreeMap<String, String> = overrides
            .iter()
            .filter(|(key, value)| {
                let one = BTreeMap::from([((*key).clone(), (*value).clone())]);
                TopicConfig::from_overrides(defaults, &one).is_ok()
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Self::new(
            TopicConfig::from_overrides(defaults, &accepted).unwrap_or_else(|_| defaults.clone()),
        )
    }

    /// The log's part of the settings.
    #[must_use]
    pub fn log_config(&self) -> LogConfig {
        LogConfig {
            durability: match self.config.durability {
                topic::Durability::Fsync => Durability::Fsync,
                topic::Durability::Os => Durability::Os,
            },
            segment_bytes: self.config.segment_bytes,
            segment_ms: i64::try_from(self.config.segment_ms).unwrap_or(i64::MAX),
        }
    }

    /// Whose timestamps records carry.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.config.message_timestamp_type {
            topic::TimestampType::CreateTime => TimestampType::CreateTime,
            topic::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        }
    }

    /// What a client's batch must satisfy at time `now`.
    #[must_use]
    pub fn validation_rules(&self, now: WallMs, is_zstd_allowed: bool) -> ValidationRules {
        let as_i64 = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        ValidationRules {
            level: match self.config.validation {
                topic::Validation::Batch => ValidationLevel::Batch,
                topic::Validation::Full => ValidationLevel::Full,
            },
            batch_bytes_max: self.config.max_message_bytes as usize,
            segment_bytes_max: usize::try_from(self.config.segment_bytes).unwrap_or(usize::MAX),
            timestamp_type: self.timestamp_type(),
            timestamp_before_ms_max: as_i64(self.config.message_timestamp_before_max_ms),
            timestamp_after_ms_max: as_i64(self.config.message_timestamp_after_max_ms),
            is_zstd_allowed,
            ..ValidationRules::new(now)
        }
    }
}
