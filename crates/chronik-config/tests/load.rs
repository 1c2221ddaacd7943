//! Loading: layers, aliases, origins and every message of the loader.

use std::path::PathBuf;

use chronik_config::{
    Config, ConfigFile, Effect, Flag, Loaded, Mode, Origin, Profile, Sources, load,
};

fn file(text: &str) -> Sources {
    let file = ConfigFile { path: PathBuf::from("chronik.toml"), text: text.to_owned() };
    Sources { file: Some(file), ..Sources::default() }
}

fn environment(variables: &[(&str, &str)]) -> Sources {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources { environment: variables.iter().map(owned).collect(), ..Sources::default() }
}

fn set(arguments: &[&str]) -> Sources {
    let set = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Sources { set, ..Sources::default() }
}

fn loads(sources: &Sources) -> Loaded {
    load(sources).unwrap_or_else(|error| panic!("{error}"))
}

fn messages(sources: &Sources) -> Vec<String> {
    match load(sources) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

fn value(loaded: &Loaded, key: &str) -> String {
    let entry = loaded.entries().into_iter().find(|entry| entry.key == key).expect("a key");
    entry.value.map(|value| value.to_string()).unwrap_or_default()
}

#[test]
fn the_plans_sample_file_loads_unchanged() {
    let loaded = loads(&file(include_str!("plan.toml")));
    assert_eq!(loaded.warnings, []);
    let config = &loaded.config;
    assert!(config.wants_cluster());
    let peers: Vec<_> =
        config.cluster.peers.nodes.iter().map(|p| p.inter_node.to_string()).collect();
    assert_eq!(peers, ["10.0.1.10:5001", "10.0.2.11:5002", "10.0.1.12:5001"]);
    let request = loaded.cluster_request().expect("the file asks for a cluster");
    assert_eq!(request.to_string(), "cluster.enabled = true (chronik.toml:4)");
}

#[test]
fn the_sample_names_every_key_that_is_reserved_for_clusters_in_the_plan() {
    let loaded = loads(&file(include_str!("plan.toml")));
    let beyond_the_plan = ["cluster.raft_addr", "replication.fetch_from_followers"];
    for key in Config::keys().filter(|key| key.effect == Effect::ReservedForClusters) {
        let from_file = matches!(loaded.origin(key.path), Origin::File { .. });
        assert_eq!(from_file, !beyond_the_plan.contains(&key.path), "{}", key.path);
    }
}

#[test]
fn each_layer_wins_over_the_ones_below_it() {
    let mut sources = Sources::default();
    let origin = |sources: &Sources| {
        let loaded = loads(sources);
        (loaded.config.wal.group_bytes_max >> 20, loaded.origin("wal.group_bytes_max").to_string())
    };
    assert_eq!(origin(&sources), (8, "built-in".to_owned()));
    sources.set.push("node.profile=latency".to_owned());
    assert_eq!(origin(&sources), (2, "profile latency".to_owned()));
    sources.file =
        file("[node]\nprofile = \"throughput\"\n[wal]\ngroup_bytes_max = \"3MiB\"\n").file;
    assert_eq!(origin(&sources), (3, "chronik.toml:4".to_owned()));
    sources.environment = environment(&[("CHRONIK_WAL_GROUP_BYTES_MAX", "4MiB")]).environment;
    assert_eq!(origin(&sources), (4, "CHRONIK_WAL_GROUP_BYTES_MAX".to_owned()));
    sources.set.push("wal.group_bytes_max=5 MiB".to_owned());
    assert_eq!(origin(&sources), (5, "--set".to_owned()));
    let value = "6291456".to_owned();
    sources.flags = vec![Flag { name: "--group", key: "wal.group_bytes_max", value }];
    assert_eq!(origin(&sources), (6, "--group".to_owned()));
    assert_eq!(loads(&sources).config.node.profile, Profile::Latency);
}

#[test]
fn every_profile_loads_on_its_own() {
    for (profile, journal_mib) in [("latency", 64), ("balanced", 64), ("throughput", 128)] {
        let loaded = loads(&environment(&[("CHRONIK_PROFILE", profile)]));
        assert_eq!(loaded.config.wal.journal_file_bytes >> 20, journal_mib, "{profile}");
    }
}

#[test]
fn every_alias_sets_its_key() {
    for (variable, given, key, expected) in [
        ("CHRONIK_NODE_ID", "7", "cluster.node_id", "7"),
        ("CHRONIK_CLUSTER_NODE_ID", "7", "cluster.node_id", "7"),
        ("CHRONIK_RAFT_SNAPSHOT_SIZE_MB", "128", "raft.snapshot_max_log_size_mb", "128"),
        ("CHRONIK_ADVERTISED_ADDR", "h:1", "node.advertised_addr", "\"h:1\""),
        ("CHRONIK_ADVERTISE", "h", "node.advertised_addr", "\"h\""),
        ("CHRONIK_FETCH_FROM_FOLLOWERS", "true", "replication.fetch_from_followers", "true"),
        ("CHRONIK_CLUSTER_ENABLED", "false", "cluster.enabled", "false"),
        ("CHRONIK_CLUSTER_DISCOVERY_MODE", "static", "cluster.discovery.mode", "\"static\""),
        ("CHRONIK_CLUSTER_DISCOVERY_DNS_SERVICE", "s", "cluster.discovery.dns_service", "\"s\""),
        ("CHRONIK_CLUSTER_DNS_SERVICE", "s", "cluster.discovery.dns_service", "\"s\""),
        ("CHRONIK_RAFT_ELECTION_TIMEOUT_MS", "2s", "raft.election_timeout_ms", "2000"),
        ("CHRONIK_RAFT_ADDR", "h:5002", "cluster.raft_addr", "\"h:5002\""),
        ("CHRONIK_BIND", "0.0.0.0", "listener.bind", "\"0.0.0.0\""),
        ("CHRONIK_KAFKA_PORT", "1", "listener.kafka_port", "1"),
        ("CHRONIK_HTTP_PORT", "2", "listener.http_port", "2"),
        ("CHRONIK_DATA_DIR", "/d", "node.data_dir", "\"/d\""),
        ("CHRONIK_LOG", "debug", "monitoring.log_level", "\"debug\""),
        ("RUST_LOG", "warn", "monitoring.log_level", "\"warn\""),
        (
            "CHRONIK_CLUSTER_PEERS",
            "2@b:5002",
            "cluster.peers.nodes",
            "[{ id = 2, raft_addr = \"b:5002\" }]",
        ),
    ] {
        let loaded = loads(&environment(&[(variable, given)]));
        assert_eq!(loaded.warnings, [], "{variable}");
        assert_eq!(value(&loaded, key), expected, "{variable}");
        assert_eq!(loaded.origin(key), Origin::Variable(variable.to_owned()));
    }
    let snapshots = "[raft.snapshots]\nmax_log_size_mb = 32\nmin_interval_entries = 5\n";
    let loaded = loads(&file(snapshots));
    assert_eq!(value(&loaded, "raft.snapshot_max_log_size_mb"), "32");
    assert_eq!(value(&loaded, "raft.snapshot_min_interval_entries"), "5");
}

#[test]
fn of_two_variables_of_one_key_the_more_specific_one_is_used() {
    let sources = environment(&[("RUST_LOG", "trace"), ("CHRONIK_LOG", "warn")]);
    assert_eq!(loads(&sources).config.monitoring.log_level, "warn");
}

#[test]
fn an_empty_variable_counts_as_absent_and_an_empty_set_unsets() {
    let mut sources = environment(&[("CHRONIK_BIND", ""), ("CHRONIK_ADVERTISED_ADDR", "h")]);
    assert_eq!(loads(&sources).origin("listener.bind"), Origin::BuiltIn);
    sources.set = vec!["node.advertised_addr=".to_owned()];
    let loaded = loads(&sources);
    assert_eq!(loaded.config.node.advertised_addr, None);
    assert_eq!(loaded.origin("node.advertised_addr"), Origin::Set);
}

#[test]
fn unknown_keys_are_refused_with_line_and_nearest_name() {
    let text =
        "[cluster]\nmin_insync_replica = 2\n\n[listner]\nkafka_port = 1\n\n[raft]\nzzz = 1\n";
    assert_eq!(
        messages(&file(text)),
        [
            "E060 chronik.toml:2 unknown key cluster.min_insync_replica. Did you mean \
         min_insync_replicas?",
            "E060 chronik.toml:4 unknown key listner. Did you mean listener?",
            "E060 chronik.toml:8 unknown key raft.zzz.",
        ]
    );
    assert_eq!(
        messages(&set(&["cluster.kafka_port=1"])),
        ["E060 --set unknown key cluster.kafka_port. Did you mean listener.kafka_port?",]
    );
}

#[test]
fn unknown_variables_and_variables_without_effect_are_warnings() {
    let loaded = loads(&environment(&[
        ("CHRONIK_RAFT_ELECTION_TIMOUT_MS", "1"),
        ("CHRONIK_USE_METADATA_WAL", "false"),
        ("CHRONIK_CONFIG", "x.toml"),
        ("PATH", "/bin"),
    ]));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "W061 CHRONIK_RAFT_ELECTION_TIMOUT_MS is not known. Did you mean \
         CHRONIK_RAFT_ELECTION_TIMEOUT_MS?",
            "W062 CHRONIK_USE_METADATA_WAL has no effect: metadata always uses the replicated WAL.",
        ]
    );
}

#[test]
fn values_of_the_wrong_type_or_out_of_bounds_name_what_is_expected() {
    let text = "[listener]\nkafka_port = \"9092\"\nhttp_port = 65_536\n[wal]\nsegment_bytes = 0x10\n\
                [node]\nprofile = 1.5\n[topic]\nauto_create = \"yes\"\n[monitoring]\nlog_level = \"inof\"";
    assert_eq!(
        messages(&file(text)),
        [
            "E063 chronik.toml:2 listener.kafka_port = \"9092\": expected a whole number from 0 to \
         65,535.",
            "E063 chronik.toml:3 listener.http_port = 65536: expected a whole number from 0 to 65,535.",
            "E063 chronik.toml:5 wal.segment_bytes = 16: expected a size from 1 MiB to 2,147,483,647 B \
         (bytes, or \"64MiB\").",
            "E063 chronik.toml:7 node.profile = 1.5: expected \"latency\", \"balanced\" or \
         \"throughput\".",
            "E063 chronik.toml:9 topic.auto_create = \"yes\": expected true or false.",
            "E063 chronik.toml:11 monitoring.log_level = \"inof\": expected levels (off, error, warn, \
         info, debug, trace), such as \"info\" or \"info,chronik_wal=debug\".",
        ]
    );
}

#[test]
fn problems_of_all_sources_are_reported_together() {
    let mut sources = file("[cluster]\nnode_id = -1\nnodeid = 2\n");
    sources.environment = environment(&[("CHRONIK_KAFKA_PORT", "many")]).environment;
    sources.set = vec!["wal.journal_files".to_owned(), "wal.journal_files=1".to_owned()];
    let value = "h:x".to_owned();
    sources.flags = vec![Flag { name: "--advertised-addr", key: "node.advertised_addr", value }];
    let codes: Vec<_> = messages(&sources)
        .iter()
        .map(|m| m.split(' ').next().expect("a code").to_owned())
        .collect();
    assert_eq!(codes, ["E060", "E068", "E063", "E063", "E063", "E063"]);
    let error = load(&sources).expect_err("six problems");
    assert_eq!(error.to_string().lines().count(), 6);
}

#[test]
fn text_that_is_not_toml_is_reported_with_its_line() {
    let found = messages(&file("[node]\nshards = \n"));
    assert!(found[0].starts_with("E066 chronik.toml:2 is not TOML: "), "{found:?}");
    assert_eq!(
        messages(&file("node = 3\n")),
        ["E063 chronik.toml:1 node = 3: expected a table, written [node].",]
    );
}

#[test]
fn one_setting_under_two_names_of_the_file_is_refused() {
    let text = "[raft]\nsnapshot_max_log_size_mb = 1\n[raft.snapshots]\nmax_log_size_mb = 2\n";
    assert_eq!(
        messages(&file(text)),
        ["E067 chronik.toml:4 raft.snapshots.max_log_size_mb sets raft.snapshot_max_log_size_mb \
         again, after chronik.toml:2. Keep one of the two.",]
    );
}

#[test]
fn settings_that_do_not_fit_together_are_named_with_both_origins() {
    let text = "[raft]\nheartbeat_interval_ms = 400\n[cluster]\nreplication_factor = 2\n\
                min_insync_replicas = 3\n[cluster.discovery]\nmode = \"dns\"\n";
    assert_eq!(
        messages(&file(text)),
        [
            "E064 cluster.min_insync_replicas = 3 (chronik.toml:5) must be at most \
         cluster.replication_factor = 2 (chronik.toml:4).",
            "E064 raft.heartbeat_interval_ms = 400 (chronik.toml:2) must be at most a third of \
         raft.election_timeout_ms = 1000 (built-in).",
            "E064 cluster.discovery.mode = \"dns\" (chronik.toml:7) needs \
         cluster.discovery.dns_service (not set).",
        ]
    );
    for arguments in [
        &["listener.kafka_port=6092"][..],
        &["listener.queued_request_bytes_max=99MiB"],
        &["listener.connections_max=10", "listener.connections_per_ip_max=11"],
        &["topic.message_max_bytes=2MiB", "listener.request_bytes_max=1MiB"],
        &["wal.bypass_bytes=9MiB"],
        &["wal.group_bytes_max=17MiB"],
        &["wal.tail_bytes_max=15MiB"],
    ] {
        let found = messages(&set(arguments));
        assert_eq!(found.len(), 1, "{arguments:?}: {found:?}");
        assert!(found[0].starts_with("E064 "), "{found:?}");
    }
}

#[test]
fn two_listeners_may_both_take_a_free_port() {
    loads(&set(&["listener.kafka_port=0", "listener.http_port=0"]));
}

#[test]
fn a_wildcard_is_never_advertised() {
    let mut sources = set(&["node.advertised_addr=0.0.0.0"]);
    assert_eq!(
        messages(&sources),
        ["E002 clients would be told to connect to 0.0.0.0:9092, which never works. Pass \
         --advertised-addr <name clients can reach>.",]
    );
    sources.host_addresses = vec!["10.0.1.10 (eth0)".to_owned(), "devbox.local".to_owned()];
    let found = messages(&sources);
    assert!(found[0].ends_with("; this host has: 10.0.1.10 (eth0), devbox.local."), "{found:?}");
}

#[test]
fn debug_keys_are_refused_outside_dev_mode() {
    let mut sources = set(&["wal.debug_sync_delay_us=2ms"]);
    assert_eq!(
        messages(&sources),
        ["E064 wal.debug_sync_delay_us = 2000 (--set) is refused outside dev mode.",]
    );
    sources.mode = Mode::Dev;
    assert_eq!(loads(&sources).config.wal.debug_sync_delay_us, 2_000);
}

#[test]
fn peers_with_equal_ids_or_addresses_are_refused() {
    let found = messages(&environment(&[("CHRONIK_CLUSTER_PEERS", "2@a:1,2@b:1")]));
    assert!(found[0].ends_with("names one id twice."), "{found:?}");
    let found = messages(&environment(&[("CHRONIK_CLUSTER_PEERS", "2@a:1,3@a:1")]));
    assert!(found[0].ends_with("names one inter-node address twice."), "{found:?}");
    let found = messages(&environment(&[("CHRONIK_CLUSTER_PEERS", "2@a:1,b:9092")]));
    assert!(found[0].contains("never both in one list"), "{found:?}");
    let found = messages(&file("[cluster.peers]\nnodes = [{ id = 2 }]\n"));
    assert!(found[0].starts_with("E063 chronik.toml:2 cluster.peers.nodes = [{ id = 2 }]"));
}

#[test]
fn a_cluster_is_wanted_only_with_other_peers_or_discovery() {
    for (arguments, wanted) in [
        (&[][..], None),
        (&["cluster.peers.nodes=1@a:5001"][..], None),
        (&["cluster.peers.nodes=1@a:5001,2@b:5001"][..], Some("cluster.peers.nodes")),
        (&["cluster.peers.nodes=2@b:5001", "cluster.enabled=false"][..], None),
        (&["cluster.enabled=true"][..], Some("cluster.enabled")),
        (
            &["cluster.discovery.mode=dns", "cluster.discovery.dns_service=s"][..],
            Some("cluster.discovery.mode"),
        ),
    ] {
        let loaded = loads(&set(arguments));
        assert_eq!(loaded.cluster_request().map(|setting| setting.key), wanted, "{arguments:?}");
        assert_eq!(loaded.config.wants_cluster(), wanted.is_some(), "{arguments:?}");
    }
}

#[test]
fn the_word_standalone_declines_the_cluster_of_the_file_and_no_other() {
    let mut sources = file(include_str!("plan.toml"));
    sources.is_standalone = true;
    let loaded = loads(&sources);
    assert!(!loaded.config.wants_cluster());
    assert_eq!(loaded.config.default_replication_factor(), 1);
    assert_eq!(loaded.config.topic_defaults().min_insync_replicas, 1);
    assert_eq!(loaded.origin("cluster.enabled").to_string(), "standalone");
    let value = "2@b:5002".to_owned();
    sources.flags = vec![Flag { name: "--peers", key: "cluster.peers.nodes", value }];
    assert!(loads(&sources).config.wants_cluster());
}

#[test]
fn the_printed_configuration_loads_back_to_the_same_tree() {
    let mut sources = file(include_str!("plan.toml"));
    sources.set = vec!["listener.bind=::1".to_owned(), "node.data_dir=a\"b\\c".to_owned()];
    let loaded = loads(&sources);
    for origins in [false, true] {
        let printed = loaded.to_toml(origins);
        assert_eq!(loads(&file(&printed)).config, loaded.config, "{printed}");
    }
    let printed = loaded.to_toml(true);
    assert!(printed.contains("\nbind = \"::1\"  # --set\n"), "{printed}");
    assert!(printed.contains("\nenabled = true  # chronik.toml:4\n"), "{printed}");
    assert!(printed.contains("\n# raft_addr is not set  # built-in\n"), "{printed}");
}
