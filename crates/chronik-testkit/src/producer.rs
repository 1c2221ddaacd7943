//! A producer to one partition that behaves like a real client: several requests in flight,
//! everything unanswered sent again in order after a broken connection or a retriable error, the
//! same sequence numbers if it is idempotent.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chronik_common::{ErrorCode, TopicId};
use chronik_protocol::init_producer_id::InitProducerIdRequest;
use chronik_protocol::produce::ProduceRequest;
use chronik_record::Codec;

use crate::client::Client;
use crate::history::{Outcome, Sent};
use crate::record::{RecordId, batch_of, produce_request, value_of};
use crate::server::Address;

/// The newest version that names topics.
const PRODUCE_VERSION: i16 = 12;
const INIT_PRODUCER_ID_VERSION: i16 = 5;
/// Attempts to connect to a server that says it is up.
const CONNECTS_MAX: usize = 1_000;

/// How a producer sends.
#[derive(Clone, Copy, Debug)]
pub struct ProducerOptions {
    /// 0, 1 or -1.
    pub acks: i16,
    /// Requests that wait for their answers; a plain producer with more than one may reorder.
    pub in_flight_max: usize,
    /// Whether it has a producer id.
    pub is_idempotent: bool,
    /// Bytes per value.
    pub value_bytes: usize,
    /// Codec of its batches.
    pub codec: Codec,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: -1,
            in_flight_max: 1,
            is_idempotent: false,
            value_bytes: 100,
            codec: Codec::None,
        }
    }
}

#[derive(Debug)]
struct InFlight {
    batch: Bytes,
    /// Where its records are in `sent`.
    first: usize,
    records: usize,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Producer {
    number: u32,
    address: Address,
    topic: String,
    partition: i32,
    options: ProducerOptions,
    client: Option<Client>,
    identity: Option<(i64, i16)>,
    next_sequence: i32,
    in_flight: VecDeque<InFlight>,
    sent: Vec<Sent>,
    acked: Arc<AtomicU64>,
}

impl Producer {
    /// Producer `number` of its test. An idempotent one asks the server for its id.
    #[must_use]
    pub fn new(
        number: u32,
        address: Address,
        topic: &str,
        partition: i32,
        options: ProducerOptions,
    ) -> Self {
        let identity = options.is_idempotent.then(|| {
            let request = InitProducerIdRequest::default();
            let reply = Client::connect(address.wait()).call(&request, INIT_PRODUCER_ID_VERSION);
            let answer = reply.body();
            assert_eq!(answer.error_code, 0, "a producer gets its id");
            (answer.producer_id, answer.producer_epoch)
        });
        Self {
            number,
            address,
            topic: topic.to_owned(),
            partition,
            options,
            client: None,
            identity,
            next_sequence: 0,
            in_flight: VecDeque::new(),
            sent: Vec::new(),
            acked: Arc::default(),
        }
    }

    /// Records acknowledged so far, for others to watch.
    #[must_use]
    pub fn acked(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.acked)
    }

    /// Sends a batch of the next `records` records; waits while too many are in flight.
    pub fn send(&mut self, records: usize) {
        while self.in_flight.len() >= self.options.in_flight_max {
            self.take_answer();
        }
        let first = self.sent.len();
        for _ in 0..records {
            let id = RecordId { producer: self.number, sequence: self.sent.len() as u64 };
            self.sent.push(Sent { partition: self.partition, id, outcome: Outcome::Unknown });
        }
        let values: Vec<Vec<u8>> = self.sent[first..]
            .iter()
            .map(|sent| value_of(sent.id, self.partition, self.options.value_bytes))
            .collect();
        let producer = self.identity.map(|(id, epoch)| (id, epoch, self.next_sequence));
        self.next_sequence += i32::try_from(records).expect("batches are small");
        let batch = batch_of(self.options.codec, producer, -1, &values);
        self.in_flight.push_back(InFlight { batch, first, records });
        let newest = self.in_flight.len() - 1;
        if self.transmit(newest).is_err() {
            self.start_again();
        }
        if self.options.acks == 0 {
            self.in_flight.clear();
        }
    }

    /// Waits for every answer.
    pub fn flush(&mut self) {
        while !self.in_flight.is_empty() {
            self.take_answer();
        }
    }

    /// Waits for every answer and returns what was sent and what became of it.
    #[must_use]
    pub fn finish(mut self) -> Vec<Sent> {
        self.flush();
        self.sent
    }

    fn transmit(&mut self, index: usize) -> io::Result<()> {
        let Self { topic, partition, options, client, in_flight, .. } = self;
        let batch = &in_flight[index].batch;
        let request = produce_request(topic, TopicId::ZERO, *partition, options.acks, batch);
        let client = match client {
            Some(client) => client,
            empty => empty.insert(Client::try_connect(self.address.wait())?),
        };
        match options.acks {
            0 => client.send_unanswered(&request, PRODUCE_VERSION),
            _ => client.send(&request, PRODUCE_VERSION),
        }
    }

    /// Connects anew and sends everything unanswered again, oldest first.
    fn start_again(&mut self) {
        for _ in 0..CONNECTS_MAX {
            self.client = None;
            if (0..self.in_flight.len()).all(|index| self.transmit(index).is_ok()) {
                return;
            }
        }
        panic!("producer {} cannot reach the server", self.number);
    }

    fn take_answer(&mut self) {
        let client = self.client.as_mut().expect("what is in flight was sent");
        let Ok(reply) = client.receive::<ProduceRequest<'_>>(PRODUCE_VERSION) else {
            self.start_again();
            return;
        };
        let answer = reply.body();
        let answer = &answer.responses[0].partition_responses[0];
        let code = ErrorCode::try_from(answer.error_code).expect("a known error code");
        if code.is_retriable() {
            self.start_again();
            return;
        }
        assert_eq!(code, ErrorCode::None, "producer {}: {answer:?}", self.number);
        let done = self.in_flight.pop_front().expect("an answer belongs to a request");
        for (sent, offset) in
            self.sent[done.first..][..done.records].iter_mut().zip(answer.base_offset..)
        {
            sent.outcome = Outcome::Acked { offset };
        }
        self.acked.fetch_add(done.records as u64, Ordering::Relaxed);
    }
}
