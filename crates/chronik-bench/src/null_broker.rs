//! A broker that stores nothing: it decodes requests and answers them as a healthy broker would.
//! What a client reaches against it is the client's own limit on this machine.
//!
//! Speaks ApiVersions, Metadata, CreateTopics, InitProducerId, ListOffsets, DescribeConfigs and
//! Produce. Every topic exists. An acceptor hands connections to the serving threads in turn;
//! the threads end with the [`NullBroker`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use chronik_common::ErrorCode;
use chronik_protocol::api_versions::{ApiVersion, ApiVersionsResponse};
use chronik_protocol::create_topics::{CreatableTopicResult, CreateTopicsResponse};
use chronik_protocol::describe_configs::{DescribeConfigsResponse, DescribeConfigsResult};
use chronik_protocol::init_producer_id::InitProducerIdResponse;
use chronik_protocol::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use chronik_protocol::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use chronik_protocol::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use chronik_protocol::{
    ApiKey, EncodeError, OutputBuffer, Request, RequestHeader, RequestPrefix, decode_request,
    encode_response_frame,
};
use chronik_record::BatchHeader;

use crate::failure::Failure;
use crate::pinning::pin_worker;
use crate::poller::{Poller, Ready};
use crate::quantity::Cores;
use crate::wire::Wire;

/// Token of a thread's own wake-up.
const WAKE: usize = usize::MAX - 1;

/// The broker's node id.
const NODE: i32 = 0;

/// What the broker speaks.
const APIS: [ApiKey; 7] = [
    ApiKey::Produce,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::InitProducerId,
    ApiKey::DescribeConfigs,
];

/// A running broker; stops when it is dropped.
#[derive(Debug)]
pub struct NullBroker {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Ends of the threads' wake-ups.
    wakes: Vec<UnixStream>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl NullBroker {
    /// A broker whose topics have `partitions` partitions, served by `threads` threads, on a free
    /// port of the loopback interface; `cores` are theirs.
    ///
    /// # Errors
    /// If there is no port or no thread to be had.
    pub fn start(partitions: i32, threads: usize, cores: Option<&Cores>) -> Result<Self, Failure> {
        let started = Self::start_with(partitions, threads, cores);
        started.map_err(Failure::system("start the null broker"))
    }

    fn start_with(partitions: i32, threads: usize, cores: Option<&Cores>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut broker =
            Self { address, stop: Arc::clone(&stop), wakes: Vec::new(), threads: Vec::new() };
        let mut handles = Vec::new();
        for index in 0..threads.max(1) {
            let (wake, woken) = UnixStream::pair()?;
            woken.set_nonblocking(true)?;
            broker.wakes.push(wake.try_clone()?);
            let (streams, accepted) = channel();
            handles.push((streams, wake));
            let answers = Answers { address, partitions, next_offsets: BTreeMap::new() };
            let shard = Shard::new(accepted, woken, answers, Arc::clone(&stop))?;
            let thread = thread::Builder::new().name(format!("null-broker-{index}"));
            let cores = cores.cloned();
            let serve = move || {
                // Without its core the broker is slower, not wrong; the load's own pin reports.
                let _ = pin_worker(cores.as_ref(), index);
                shard.serve();
            };
            broker.threads.push(thread.spawn(serve)?);
        }
        let thread = thread::Builder::new().name("null-broker-accept".to_owned());
        broker.threads.push(thread.spawn(move || accept(&listener, &mut handles, &stop))?);
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NullBroker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for wake in &mut self.wakes {
            let _ = wake.write(&[1]);
        }
        // Gets the acceptor out of its call.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(
    listener: &TcpListener,
    shards: &mut [(Sender<TcpStream>, UnixStream)],
    stop: &AtomicBool,
) {
    for (index, stream) in listener.incoming().flatten().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let count = shards.len();
        let (streams, wake) = &mut shards[index % count];
        if streams.send(stream).is_err() || wake.write(&[1]).is_err() {
            return;
        }
    }
}

/// A serving thread.
struct Shard {
    accepted: Receiver<TcpStream>,
    woken: UnixStream,
    answers: Answers,
    stop: Arc<AtomicBool>,
    poller: Poller,
    wires: Vec<Option<Wire>>,
    out: OutputBuffer,
}

impl Shard {
    fn new(
        accepted: Receiver<TcpStream>,
        woken: UnixStream,
        answers: Answers,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        poller.add(woken.as_fd(), WAKE, false)?;
        let (wires, out) = (Vec::new(), OutputBuffer::new());
        Ok(Self { accepted, woken, answers, stop, poller, wires, out })
    }

    fn serve(mut self) {
        let mut ready = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            if self.poller.wait(None, &mut ready).is_err() {
                return;
            }
            for event in &ready {
                if event.token == WAKE {
                    self.adopt();
                } else if self.serve_wire(*event).is_err() {
                    self.close(event.token);
                }
            }
        }
    }

    fn adopt(&mut self) {
        let mut wakes = [0; 64];
        let _ = self.woken.read(&mut wakes);
        while let Ok(stream) = self.accepted.try_recv() {
            let token = self.wires.len();
            let _ = stream.set_nodelay(true);
            let Ok(wire) = Wire::new(stream) else { continue };
            if self.poller.add(wire.fd(), token, false).is_ok() {
                self.wires.push(Some(wire));
            }
        }
    }

    fn serve_wire(&mut self, event: Ready) -> io::Result<()> {
        let Some(wire) = self.wires.get_mut(event.token).and_then(Option::as_mut) else {
            return Ok(());
        };
        let end = if event.is_readable { wire.receive() } else { Ok(false) };
        while let Some(payload) = wire.next_frame()? {
            self.answers.answer(payload, &mut self.out)?;
        }
        wire.queue_output(&mut self.out);
        wire.flush()?;
        let wants_write = wire.has_unsent();
        if wants_write != wire.watches_write {
            wire.watches_write = wants_write;
            self.poller.modify(wire.fd(), event.token, wants_write)?;
        }
        end.map(|_| ())
    }

    fn close(&mut self, token: usize) {
        if let Some(wire) = self.wires.get_mut(token).and_then(Option::take) {
            self.poller.remove(wire.fd(), token);
        }
    }
}

/// What the broker says.
#[derive(Debug)]
struct Answers {
    address: SocketAddr,
    partitions: i32,
    /// Where each partition's log would end.
    next_offsets: BTreeMap<i32, i64>,
}

impl Answers {
    fn answer(&mut self, payload: &[u8], out: &mut OutputBuffer) -> io::Result<()> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
        let prefix = RequestPrefix::decode(payload)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let api = ApiKey::from_number(prefix.api_key)
            .filter(|api| APIS.contains(api) && api.shown().contains(prefix.api_version))
            .ok_or(io::ErrorKind::InvalidData)?;
        let version = prefix.api_version;
        let (_, body) = RequestHeader::decode(payload, api, prefix).map_err(invalid)?;
        let request = decode_request(api, version, body).map_err(invalid)?;
        let (id, refused) = (prefix.correlation_id, io::ErrorKind::InvalidInput);
        let mut put = |body: &mut dyn FnMut(&mut OutputBuffer) -> Result<(), EncodeError>| {
            encode_response_frame(out, api, version, id, body).map_err(|_| io::Error::from(refused))
        };
        match request {
            Request::Produce(request) => {
                let acks = request.acks;
                let response = self.produce(&request);
                if acks != 0 { put(&mut |out| response.encode(out, version)) } else { Ok(()) }
            }
            Request::Metadata(request) => {
                let response = self.metadata(&request);
                put(&mut |out| response.encode(out, version))
            }
            Request::ApiVersions(_) => put(&mut |out| api_versions().encode(out, version)),
            Request::CreateTopics(request) => {
                let result = |name: &Cow<'_, str>| CreatableTopicResult {
                    name: Cow::Owned(name.clone().into_owned()),
                    error_code: ErrorCode::TopicAlreadyExists.code(),
                    ..CreatableTopicResult::default()
                };
                let topics = request.topics.iter().map(|topic| result(&topic.name)).collect();
                let response = CreateTopicsResponse { topics, ..Default::default() };
                put(&mut |out| response.encode(out, version))
            }
            Request::InitProducerId(_) => {
                let response = InitProducerIdResponse {
                    producer_id: 1,
                    producer_epoch: 0,
                    ..InitProducerIdResponse::default()
                };
                put(&mut |out| response.encode(out, version))
            }
            Request::DescribeConfigs(request) => {
                let resources = request.resources.into_iter();
                let results = resources.map(|resource| DescribeConfigsResult {
                    resource_type: resource.resource_type,
                    resource_name: resource.resource_name,
                    ..DescribeConfigsResult::default()
                });
                let response =
                    DescribeConfigsResponse { results: results.collect(), ..Default::default() };
                put(&mut |out| response.encode(out, version))
            }
            Request::ListOffsets(request) => {
                let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
                    name: topic.name.clone(),
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|it| self.end_of(it.partition_index))
                        .collect(),
                });
                let response =
                    ListOffsetsResponse { topics: topics.collect(), ..Default::default() };
                put(&mut |out| response.encode(out, version))
            }
            Request::Fetch(_) | Request::DeleteTopics(_) | Request::DescribeCluster(_) => {
                Err(refused.into())
            }
        }
    }

    fn end_of(&self, partition: i32) -> ListOffsetsPartitionResponse {
        ListOffsetsPartitionResponse {
            partition_index: partition,
            offset: self.next_offsets.get(&partition).copied().unwrap_or(0),
            ..ListOffsetsPartitionResponse::default()
        }
    }

    fn produce<'a>(&mut self, request: &ProduceRequest<'a>) -> ProduceResponse<'a> {
        let mut responses = Vec::with_capacity(request.topic_data.len());
        for topic in &request.topic_data {
            let mut partitions = Vec::with_capacity(topic.partition_data.len());
            for partition in &topic.partition_data {
                let batch = partition.records.as_ref().and_then(|records| records.borrowed());
                let header = batch.and_then(|batch| BatchHeader::parse(batch).ok());
                let count = header.map_or(0, |header| i64::from(header.record_count));
                let next = self.next_offsets.entry(partition.index).or_insert(0);
                let base_offset = *next;
                *next += count;
                partitions.push(PartitionProduceResponse {
                    index: partition.index,
                    base_offset,
                    ..PartitionProduceResponse::default()
                });
            }
            responses.push(TopicProduceResponse {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partition_responses: partitions,
            });
        }
        ProduceResponse { responses, ..ProduceResponse::default() }
    }

    fn metadata<'a>(&self, request: &MetadataRequest<'a>) -> MetadataResponse<'a> {
        let partition = |index| MetadataResponsePartition {
            partition_index: index,
            leader_id: NODE,
            leader_epoch: 0,
            replica_nodes: vec![NODE],
            isr_nodes: vec![NODE],
            ..MetadataResponsePartition::default()
        };
        let topics = request.topics.iter().flatten().map(|topic| MetadataResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: (0..self.partitions).map(partition).collect(),
            ..MetadataResponseTopic::default()
        });
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: NODE,
                host: Cow::Owned(self.address.ip().to_string()),
                port: i32::from(self.address.port()),
                rack: None,
            }],
            controller_id: NODE,
            topics: topics.collect(),
            ..MetadataResponse::default()
        }
    }
}

fn api_versions() -> ApiVersionsResponse<'static> {
    let version = |api: &ApiKey| ApiVersion {
        api_key: api.number(),
        min_version: api.served().min,
        max_version: api.served().max,
    };
    ApiVersionsResponse { api_keys: APIS.iter().map(version).collect(), ..Default::default() }
}
