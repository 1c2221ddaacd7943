//! One node: everything that is shared, started top to bottom, stopped bottom to top.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use chronik_cluster::{
    Applied, Change, CreateTopic, DeleteTopic, MetadataImage, PlacementError, RegisterNode, Topic,
    TopicSpec, place_topic,
};
use chronik_common::{Clock, NodeId, OsRng, TopicId, TopicPartition, Uuid};
use chronik_config::{BrokerConfigEntry, Config, DiskFailurePolicy, Endpoint};
use chronik_monitoring::{Liveness, Readiness, Reason, Registry as MetricRegistry};
use chronik_partition::{Registry, StorageFailureHook, TopicSettings};
use chronik_wal::io::{Disk, DiskError};
use chronik_wal::layout::Layout;
use chronik_wal::{
    CheckpointConfig, FlushSink, Flushed, LogAccess, LogConfig, LogId, Verdict, WalConfig,
    WalError, WalManager,
};
use tracing::{error, info, warn};

use crate::api::fetch_session::FetchSessions;
use crate::data_directory::{self, DirectoryLock, Identity};
use crate::metadata::{METADATA_ORIGIN, Metadata, ProposeError};
use crate::metrics::{self, RequestCounters, ServerMetrics};
use crate::net::listener::{self, AcceptPace, ConnectionLimits};
use crate::producer_ids::ProducerIds;
use crate::shard::{Shard, ShardHandle, post_to_owners};
use crate::startup_error::StartError;

/// Logs made durable at the same time at start: they wait for the device, not for a core.
const RECOVERY_SYNCS: usize = 32;
/// How often free space, retention and idle producers are looked at.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Maintenance rounds between two looks at retention.
const RETENTION_ROUNDS: u64 = 30;

/// Longest wait for the shards' last turn at a stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the process does when it can no longer keep its promises.
pub type OnFatal = Box<dyn Fn(&str) + Send + Sync>;

/// Why a topic was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// The nodes cannot hold it.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The metadata log refused it or is not available.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Everything the parts of a server share.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) registry: Registry,
    pub(crate) wal: Arc<WalManager>,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) connection_limits: Arc<ConnectionLimits>,
    pub(crate) accept_pace: AcceptPace,
    pub(crate) metrics: ServerMetrics,
    pub(crate) request_counters: RequestCounters,
    pub(crate) liveness: Liveness,
    pub(crate) readiness: Readiness,
    identity: Identity,
    cluster_id: String,
    shards: Vec<Arc<ShardHandle>>,
    next_shard: AtomicUsize,
    is_produce_paused: AtomicBool,
    is_draining: AtomicBool,
    free_bytes: AtomicU64,
}

impl Node {
    /// This node's id.
    pub(crate) fn id(&self) -> NodeId {
        self.identity.node_id
    }

    /// The cluster's id as Kafka prints it.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// All shards by number.
    pub(crate) fn shards(&self) -> &[Arc<ShardHandle>] {
        &self.shards
    }

    /// The shard whose turn it is to get a connection.
    pub(crate) fn next_shard(&self) -> &ShardHandle {
        let turn = self.next_shard.fetch_add(1, Ordering::Relaxed);
        &self.shards[turn % self.shards.len()]
    }

    /// True while produce requests are refused because the disk is almost full.
    pub(crate) fn is_produce_paused(&self) -> bool {
        self.is_produce_paused.load(Ordering::Relaxed)
    }

    /// True once the server stops: no request is read any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Free space where the data is, as last looked at.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Broker configs under Kafka's names.
    pub(crate) fn broker_configs(&self) -> Vec<BrokerConfigEntry> {
        self.config.kafka_broker_configs()
    }

    /// What a topic of that name gets by default.
    pub(crate) fn topic_spec(&self, name: &str) -> TopicSpec {
        TopicSpec {
            name: name.to_owned(),
            partitions: i32::try_from(self.config.topic.num_partitions).unwrap_or(i32::MAX),
            replication_factor: self.config.default_replication_factor() as i16,
            assignments: Default::default(),
            configs: Default::default(),
        }
    }

    /// Chooses replicas among the live nodes.
    pub(crate) fn place(
        &self,
        spec: &TopicSpec,
        id: TopicId,
    ) -> Result<CreateTopic, PlacementError> {
        place_topic(spec, id, &[self.id()])
    }

    /// Creates a topic; it can be used when this returns. Cancellation does not take it back.
    pub(crate) async fn create_topic(&self, spec: TopicSpec) -> Result<Arc<Topic>, CreateError> {
        let command = self.place(&spec, Uuid::random(&mut OsRng))?;
        let outcome = self.metadata.propose(Change::CreateTopic(command).into()).await;
        match outcome.unwrap_or(Err(ProposeError::Unavailable))? {
            Applied::TopicCreated(topic) => {
                let (name, partitions) = (&*topic.name, topic.partitions.len());
                info!(topic = name, partitions, topic_id = %topic.id, "created a topic");
                Ok(topic)
            }
            other => unreachable!("a creation is answered with a topic, not {other:?}"),
        }
    }

    /// Creates a topic with defaults because a client asked for it.
    pub(crate) async fn auto_create(&self, name: &str) -> Result<(), CreateError> {
        if self.metadata.image().colliding_topic(name).is_some() {
            return Ok(());
        }
        self.create_topic(self.topic_spec(name)).await.map(|_| ())
    }

    /// Deletes a topic; its partitions are out of service when this returns.
    pub(crate) async fn delete_topic(&self, id: TopicId) -> Result<(), ProposeError> {
        let delete = DeleteTopic { topic_id: id.0.to_vec() };
        let outcome = self.metadata.propose(Change::DeleteTopic(delete).into()).await;
        match outcome.unwrap_or(Err(ProposeError::Unavailable))? {
            Applied::TopicDeleted(topic) => {
                info!(topic = &*topic.name, topic_id = %topic.id, "deleted a topic");
                Ok(())
            }
            other => unreachable!("a deletion is answered with the topic, not {other:?}"),
        }
    }

    /// Looks at free space, retention and idle producers once.
    fn maintain(&self, round: u64) {
        self.look_at_disk();
        if !round.is_multiple_of(RETENTION_ROUNDS) {
            return;
        }
        let now = self.clock.wall();
        let expiration = i64::try_from(self.config.topic.producer_id_expiration_ms);
        let (mut completed, mut woken) = (Vec::new(), Vec::new());
        for partition in self.registry.partitions() {
            partition.expire_producers(now.0.saturating_sub(expiration.unwrap_or(i64::MAX)));
            if let Some(start) = partition.apply_retention(now, 0, &mut completed, &mut woken) {
                info!(partition = %partition.name(), log_start_offset = start.0, "applied retention");
            }
        }
        post_to_owners(&self.shards, &completed, &woken);
    }

    fn look_at_disk(&self) {
        let space = match self.wal.disk().space(self.wal.layout().root()) {
            Ok(space) => space,
            Err(failure) => {
                warn!(error = %failure, "cannot tell the free disk space");
                return;
            }
        };
        self.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        let floor = self.config.wal.disk_floor(space.total_bytes);
        let must_pause = space.free_bytes < floor;
        if must_pause != self.is_produce_paused.swap(must_pause, Ordering::Relaxed) {
            let (free_mib, floor_mib) = (space.free_bytes >> 20, floor >> 20);
            if must_pause {
                error!(
                    code = "E070",
                    free_mib,
                    floor_mib,
                    "produce paused: the disk is almost full; fetch, delete and retention still \
                     work"
                );
            } else {
                info!(free_mib, floor_mib, "produce resumed: the disk has room again");
            }
        }
    }
}

/// Brings completions of the commit threads to their owners.
struct Completions {
    shards: Vec<Arc<ShardHandle>>,
    metadata: OnceLock<Weak<Metadata>>,
    on_fatal: OnFatal,
    policy: DiskFailurePolicy,
}

impl FlushSink for Completions {
    fn flushed(&self, origin: u16, flushed: &[Flushed]) {
        if origin == METADATA_ORIGIN {
            if let Some(metadata) = self.metadata.get().and_then(Weak::upgrade) {
                flushed.iter().for_each(|one| metadata.on_flushed(one));
            }
        } else {
            self.shards[usize::from(origin)].post_flushed(flushed);
            self.shards.iter().for_each(|shard| shard.lane_drained());
        }
    }

    fn lane_failed(&self, failure: &DiskError) {
        self.storage_failed(&format!(
            "{} of {} failed ({})",
            failure.call,
            failure.path.display(),
            failure.source
        ));
    }
}

impl Completions {
    fn storage_failed(&self, what: &str) {
        match self.policy {
            DiskFailurePolicy::Exit => (self.on_fatal)(&format!(
                "E071 {what}. This node stops serving and will not retry: the page cache can no \
                 longer be trusted. Check the disk, then restart; recovery reads what is really \
                 on it."
            )),
        }
    }
}

/// A failed write or sync of a segment stops the node like one of the journal.
fn on_partition_failure(completions: &Arc<Completions>) -> StorageFailureHook {
    let completions = Arc::clone(completions);
    Arc::new(move |partition, failure| {
        completions.storage_failed(&format!("{partition}: {failure}"));
    })
}

/// A running server.
pub(crate) struct RunningNode {
    pub(crate) node: Arc<Node>,
    pub(crate) kafka_addr: SocketAddr,
    pub(crate) http_addr: SocketAddr,
    pub(crate) advertised: Endpoint,
    shard_threads: Vec<JoinHandle<()>>,
    applier: JoinHandle<()>,
    accept_runtime: tokio::runtime::Runtime,
    _lock: DirectoryLock,
}

impl RunningNode {
    /// Starts a server, in the order of what depends on what: data directory, logs, metadata,
    /// partitions, shards, listeners. Blocks until it serves.
    pub(crate) fn start(
        config: Config,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        on_fatal: OnFatal,
    ) -> Result<Self, StartError> {
        let layout = Layout::new(&config.node.data_dir);
        let lock = data_directory::lock(&layout)?;
        let bind = config.bind();
        // Ports first: a taken one must not cost a recovery.
        let kafka = listener::bind(&bind, config.listener.kafka_port, "--kafka-port")?;
        let http = listener::bind(&bind, config.listener.http_port, "--http-port")?;
        let kafka_addr = kafka[0].local_addr().map_err(StartError::System)?;
        let http_addr = http[0].local_addr().map_err(StartError::System)?;
        // What was a free port is from here on the port we got.
        let mut config = config;
        config.listener.kafka_port = kafka_addr.port();
        config.listener.http_port = http_addr.port();
        let advertised = config.advertised(kafka_addr.port());
        check_advertised(&advertised)?;
        let identity = data_directory::identify(&*disk, &layout, config.node_id(), &mut OsRng)?;

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shard_count = config.shard_count(cores);
        let shards: Vec<Arc<ShardHandle>> =
            (0..shard_count).map(|_| Arc::new(ShardHandle::default())).collect();
        let completions = Arc::new(Completions {
            shards: shards.clone(),
            metadata: OnceLock::new(),
            on_fatal,
            policy: config.wal.disk_failure_policy,
        });
        let sink: Arc<dyn FlushSink> = completions.clone();
        let was_clean = disk.exists(&layout.clean_shutdown());
        if !was_clean && disk.exists(&layout.meta()) {
            info!("the last stop was not clean: recovering from the journal");
        }
        disk.remove_file(&layout.clean_shutdown())
            .map_err(|error| StartError::Storage(error.into()))?;
        let (wal, mut opened) = WalManager::open(
            disk,
            layout,
            &wal_config(&config),
            &sink,
            &clock,
            Box::new(OsRng),
            &|partition| log_config(&config, partition),
        )?;
        let meta = opened.iter().position(|log| log.partition.is_none());
        let meta = opened.swap_remove(meta.expect("the metadata log is always there"));
        if meta.log.verdict() != Verdict::Ok {
            return Err(StartError::MetadataDamaged { path: meta.log.directory().to_owned() });
        }
        let on_metadata_failure = {
            let completions = Arc::clone(&completions);
            Box::new(move |failure: &WalError| {
                completions.storage_failed(&format!("the metadata log: {failure}"));
            })
        };
        let metadata = Metadata::open(meta, Arc::clone(&clock), on_metadata_failure)?;
        let as_owner: Weak<dyn LogAccess> =
            Arc::downgrade(&(Arc::clone(&metadata) as Arc<dyn LogAccess>));
        wal.attach(LogId::META, as_owner);
        let _ = completions.metadata.set(Arc::downgrade(&metadata));

        let registry = Registry::new(
            Arc::clone(&wal),
            opened,
            config.topic_defaults(),
            on_partition_failure(&completions),
        );
        registry.reconcile(&metadata.image(), &mut Vec::new(), &mut Vec::new());
        registry.set_aside_unclaimed();
        wal.start();

        let metric_registry = Arc::new(MetricRegistry::new(shard_count));
        let limits = &config.listener;
        let metrics = ServerMetrics::register(&metric_registry);
        let node = Arc::new(Node {
            fetch_sessions: FetchSessions::new(limits.fetch_sessions_max as usize, Box::new(OsRng)),
            accept_pace: AcceptPace::new(limits.connection_creation_rate_max),
            connection_limits: ConnectionLimits::new(
                limits.connections_max as usize,
                limits.connections_from_one_ip() as usize,
            ),
            producer_ids: ProducerIds::default(),
            request_counters: RequestCounters::new(&metrics),
            metrics,
            liveness: Liveness::default(),
            readiness: Readiness::default(),
            cluster_id: identity.cluster_id.to_string(),
            identity,
            shards,
            next_shard: AtomicUsize::new(0),
            is_produce_paused: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            free_bytes: AtomicU64::new(0),
            config,
            clock,
            metadata,
            registry,
            wal,
        });
        metrics::observe(&metric_registry, &node);
        node.look_at_disk();
        let gate = node
            .readiness
            .gate(Reason { code: "E072", text: "the node is registering".to_owned() });
        let applier = start_applier(&node)?;
        register(&node, &advertised)?;
        let shard_threads = start_shards(&node)?;
        let accept_runtime = start_listeners(&node, kafka)?;
        start_maintenance(&node, &accept_runtime);
        crate::admin::http::start(&accept_runtime, http, &node, &metric_registry)
            .map_err(StartError::System)?;
        gate.open();
        Ok(Self {
            node,
            kafka_addr,
            http_addr,
            advertised,
            shard_threads,
            applier,
            accept_runtime,
            _lock: lock,
        })
    }

    /// Creates a topic unless it is there. Blocks.
    pub(crate) fn ensure_topic(
        &self,
        name: &str,
        partitions: Option<i32>,
    ) -> Result<(), StartError> {
        if self.node.metadata.image().topic(name).is_some() {
            return Ok(());
        }
        let defaults = self.node.topic_spec(name);
        let spec = TopicSpec { partitions: partitions.unwrap_or(defaults.partitions), ..defaults };
        self.accept_runtime
            .block_on(self.node.create_topic(spec))
            .map(|_| ())
            .map_err(|error| StartError::System(std::io::Error::other(error)))
    }

    /// Stops in reverse order: no new connections, no new requests, lanes drained and their last
    /// completions applied, segments synced, snapshots stored, clean marker written.
    pub(crate) fn stop(self) {
        let _draining = self
            .node
            .readiness
            .gate(Reason { code: "I073", text: "the server is stopping".to_owned() });
        self.accept_runtime.shutdown_timeout(Duration::from_millis(500));
        self.node.is_draining.store(true, Ordering::SeqCst);
        // Behind the barrier every shard has seen the flag: nothing is appended any more.
        let barriers: Vec<_> = self.node.shards().iter().map(|shard| shard.barrier()).collect();
        for barrier in barriers {
            if barrier.recv_timeout(DRAIN_MAX).is_err() {
                warn!("a shard does not drain; its last requests are cut off");
            }
        }
        self.node.wal.stop_lanes();
        for shard in self.node.shards() {
            shard.stop();
        }
        join_all(self.shard_threads, "shard");
        self.node.metadata.stop();
        join_all(vec![self.applier], "metadata");
        self.node.wal.finish_stop();
        let (disk, layout) = (self.node.wal.disk(), self.node.wal.layout());
        let incarnation = self.node.metadata.image().version.to_string();
        if let Err(failure) =
            chronik_wal::io::replace_file(&**disk, &layout.clean_shutdown(), incarnation.as_bytes())
        {
            warn!(error = %failure, "cannot write the marker of a clean stop");
        }
    }
}

fn join_all(threads: Vec<JoinHandle<()>>, name: &str) {
    for thread in threads {
        if thread.join().is_err() {
            error!(thread = name, "a thread panicked");
        }
    }
}

fn check_advertised(advertised: &Endpoint) -> Result<(), StartError> {
    match advertised.host.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {
            Err(StartError::WildcardAdvertised { host: advertised.host.clone() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn wal_config(config: &Config) -> WalConfig {
    let wal = &config.wal;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    WalConfig {
        journal_files: usize::from(wal.journal_files),
        journal_file_bytes: wal.journal_file_bytes,
        group_bytes_max: size(wal.group_bytes_max.min(wal.journal_file_bytes / 2)),
        group_records_max: wal.group_frames_max as usize,
        bypass_bytes: size(wal.bypass_bytes),
        tail_bytes_max: size(wal.tail_bytes_max),
        checkpoint: CheckpointConfig {
            write_behind_interval: Duration::from_millis(wal.write_behind_ms),
            checkpoint_interval: Duration::from_millis(wal.checkpoint_interval_ms),
        },
        sync_delay: Duration::from_micros(wal.debug_sync_delay_us),
        recovery_threads: std::thread::available_parallelism().map_or(1, usize::from),
        recovery_syncs: RECOVERY_SYNCS,
    }
}

fn log_config(config: &Config, partition: Option<&TopicPartition>) -> LogConfig {
    let settings = TopicSettings::new(config.topic_defaults());
    match partition {
        Some(_) => settings.log_config(),
        None => LogConfig::metadata(),
    }
}

fn start_applier(node: &Arc<Node>) -> Result<JoinHandle<()>, StartError> {
    let node = Arc::clone(node);
    std::thread::Builder::new()
        .name("metadata".to_owned())
        .spawn(move || {
            node.metadata.run_applier(|image: &MetadataImage| {
                let (mut completed, mut woken) = (Vec::new(), Vec::new());
                node.registry.reconcile(image, &mut completed, &mut woken);
                post_to_owners(&node.shards, &completed, &woken);
            });
        })
        .map_err(StartError::System)
}

/// Tells the metadata log that this node runs, under which name.
fn register(node: &Arc<Node>, advertised: &Endpoint) -> Result<(), StartError> {
    let register = RegisterNode {
        node_id: node.id().0,
        disk_id: node.identity.disk_id.0.to_vec(),
        host: advertised.host.clone(),
        port: u32::from(advertised.port),
        rack: String::new(),
    };
    let answer = node.metadata.propose(Change::RegisterNode(register).into());
    match answer.blocking_recv() {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(StartError::System(std::io::Error::other(failure.to_string()))),
        Err(_) => Err(StartError::System(std::io::ErrorKind::Other.into())),
    }
}

fn start_shards(node: &Arc<Node>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut threads = Vec::new();
    for id in 0..node.shards.len() {
        let id = u16::try_from(id).expect("the configuration bounds the shards");
        let shared = Arc::clone(node);
        let beat = node.liveness.register(format!("shard {id}"), node.clock.monotonic());
        let thread = std::thread::Builder::new()
            .name(format!("shard-{id}"))
            .spawn(move || {
                if let Err(failure) = Shard::run(id, shared, beat) {
                    error!(shard = id, error = %failure, "a shard cannot run");
                }
            })
            .map_err(StartError::System)?;
        threads.push(thread);
    }
    Ok(threads)
}

/// One small runtime accepts, serves HTTP and does maintenance; shards have their own.
fn start_listeners(
    node: &Arc<Node>,
    kafka: Vec<std::net::TcpListener>,
) -> Result<tokio::runtime::Runtime, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("admin")
        .enable_io()
        .enable_time()
        .build()
        .map_err(StartError::System)?;
    let _context = runtime.enter();
    for listener in kafka {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::System)?;
        runtime.spawn(listener::accept(listener, Arc::clone(node)));
    }
    drop(_context);
    Ok(runtime)
}

fn start_maintenance(node: &Arc<Node>, runtime: &tokio::runtime::Runtime) {
    let node = Arc::clone(node);
    runtime.spawn(async move {
        for round in 1_u64.. {
            tokio::time::sleep(MAINTENANCE_INTERVAL).await;
            let node = Arc::clone(&node);
            let _ = tokio::task::spawn_blocking(move || node.maintain(round)).await;
        }
    });
}
