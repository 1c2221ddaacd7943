//! Topic configs at their limits, as Kafka's admin clients meet them.

use std::collections::BTreeMap;

use chronik_config::{
    CompressionType, Config, ConfigSource, Durability, TimestampType, TopicConfig,
    TopicConfigError, Validation,
};

fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn resolve(pairs: &[(&str, &str)]) -> Result<TopicConfig, Vec<TopicConfigError>> {
    TopicConfig::from_overrides(&Config::default().topic_defaults(), &overrides(pairs))
}

#[test]
fn overrides_win_over_the_servers_defaults() {
    let mut config = Config::default();
    config.wal.segment_bytes = 2 << 20;
    config.topic.message_max_bytes = 77;
    let defaults = config.topic_defaults();
    assert_eq!((defaults.segment_bytes, defaults.max_message_bytes), (2 << 20, 77));
    let pairs = overrides(&[
        ("retention.ms", "-1"),
        ("retention.bytes", "0"),
        ("compression.type", "zstd"),
        ("message.timestamp.type", "LogAppendTime"),
        ("chronik.durability", "os"),
        ("chronik.validation", "full"),
        ("cleanup.policy", "delete"),
        ("chronik.replication.mode", "isr"),
    ]);
    let topic = TopicConfig::from_overrides(&defaults, &pairs).expect("legal overrides");
    assert_eq!((topic.retention_ms, topic.retention_bytes), (None, Some(0)));
    assert_eq!(topic.compression_type, CompressionType::Zstd);
    assert_eq!(topic.message_timestamp_type, TimestampType::LogAppendTime);
    assert_eq!((topic.durability, topic.validation), (Durability::Os, Validation::Full));
    assert_eq!(topic.segment_bytes, 2 << 20);
}

#[test]
fn each_limit_is_accepted_and_one_beyond_it_is_refused() {
    for (name, legal, illegal) in [
        ("max.message.bytes", &["0", "104857600"][..], &["-1", "104857601", "1MiB", ""][..]),
        ("min.insync.replicas", &["1", "32"], &["0", "33"]),
        ("retention.ms", &["-1", "0", "9223372036854775807"], &["-2", "9223372036854775808"]),
        ("retention.bytes", &["-1", "0"], &["-2", "1.5"]),
        ("segment.bytes", &["1048576", "2147483647"], &["1048575", "2147483648"]),
        ("segment.ms", &["1"], &["0", "7d"]),
        ("message.timestamp.before.max.ms", &["0", "9223372036854775807"], &["-1"]),
        ("message.timestamp.after.max.ms", &["0"], &["-1"]),
        ("message.timestamp.type", &["CreateTime"], &["createtime"]),
        ("compression.type", &["producer", "lz4", " gzip "], &["none", "ZSTD"]),
        ("chronik.durability", &["fsync"], &["none"]),
    ] {
        for value in legal {
            assert!(resolve(&[(name, value)]).is_ok(), "{name}={value}");
        }
        for value in illegal {
            let errors = resolve(&[(name, value)]).expect_err("an illegal value");
            assert!(
                matches!(&errors[..], [TopicConfigError::Invalid { name: n, .. }] if *n == name),
                "{name}={value}: {errors:?}"
            );
        }
    }
}

#[test]
fn what_is_not_offered_says_why_and_unknown_names_get_a_suggestion() {
    let errors = resolve(&[
        ("chronik.replication.mode", "raft"),
        ("cleanup.policy", "compact,delete"),
        ("retention.mss", "1"),
        ("segment.bytes", "many"),
    ]);
    let errors: Vec<_> = errors.expect_err("four errors").iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "Invalid value raft for configuration chronik.replication.mode: topics replicated by Raft \
         need a cluster",
            "Invalid value compact,delete for configuration cleanup.policy: this server does not \
         compact logs",
            "Unknown topic config name: retention.mss. Did you mean retention.ms?",
            "Invalid value many for configuration segment.bytes: expected a whole number from \
         1,048,576 to 2,147,483,647",
        ]
    );
}

#[test]
fn describe_lists_every_config_with_its_layers() {
    let mut config = Config::default();
    config.topic.message_max_bytes = 2_000_000;
    let pairs = overrides(&[("max.message.bytes", "3000000"), ("retention.ms", "60000")]);
    let entries = TopicConfig::describe(&config.topic_defaults(), &pairs);
    assert_eq!(entries.len(), TopicConfig::keys().len());
    let find = |name| entries.iter().find(|entry| entry.key.name == name).expect("a known name");
    let layers = |name| {
        let synonyms = find(name).synonyms.iter();
        synonyms.map(|s| (s.name, s.value.as_str(), s.source)).collect::<Vec<_>>()
    };
    assert_eq!(
        layers("max.message.bytes"),
        [
            ("max.message.bytes", "3000000", ConfigSource::Topic),
            ("message.max.bytes", "2000000", ConfigSource::StaticBroker),
            ("message.max.bytes", "1048588", ConfigSource::Default),
        ]
    );
    assert_eq!(find("retention.ms").source, ConfigSource::Topic);
    assert_eq!(layers("retention.bytes"), [("log.retention.bytes", "-1", ConfigSource::Default)]);
}

#[test]
fn every_described_value_can_be_set_again() {
    let defaults = Config::default().topic_defaults();
    let described = TopicConfig::describe(&defaults, &BTreeMap::new());
    let pairs = described.iter().map(|entry| (entry.key.name.to_owned(), entry.value.clone()));
    let again = TopicConfig::from_overrides(&defaults, &pairs.collect());
    assert_eq!(again, Ok(defaults.clone()));
    assert_eq!(defaults.check_alteration(&defaults), Ok(()));
}
