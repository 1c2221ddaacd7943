//! A blocking Kafka client without opinions: frames, requests of any API at any version, raw
//! bytes. It checks what every client relies on: answers come in request order, decode without
//! bytes left, and within [`WAIT_MAX`].

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use chronik_protocol::{
    ApiKey, DecodeError, EncodeError, FRAME_PREFIX_BYTES, OutputBuffer, Reader, RequestHeader,
    api_versions, create_topics, decode_response_header, delete_topics, describe_cluster,
    describe_configs, encode_request_frame, fetch, init_producer_id, list_offsets, metadata,
    produce,
};

use crate::server::WAIT_MAX;

/// A request and the answer that belongs to it.
pub trait Call {
    /// The answer, borrowed from its frame.
    type Answer<'a>;
    /// The API.
    const API: ApiKey;

    /// Puts the body.
    ///
    /// # Errors
    /// If the version cannot carry what is set.
    fn put(&self, out: &mut OutputBuffer, version: i16) -> Result<(), EncodeError>;

    /// Reads the body of an answer.
    ///
    /// # Errors
    /// If the bytes are not such an answer.
    fn read<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Self::Answer<'a>, DecodeError>;
}

macro_rules! calls {
    ($($api:ident: $request:ty => $($answer:ident)::+;)*) => {
        $(impl Call for $request {
            type Answer<'a> = $($answer)::+<'a>;
            const API: ApiKey = ApiKey::$api;

            fn put(&self, out: &mut OutputBuffer, version: i16) -> Result<(), EncodeError> {
                self.encode(out, version)
            }

            fn read<'a>(
                reader: &mut Reader<'a>,
                version: i16,
            ) -> Result<Self::Answer<'a>, DecodeError> {
                <$($answer)::+<'a>>::decode(reader, version)
            }
        })*
    };
}

calls! {
    Produce: produce::ProduceRequest<'_> => produce::ProduceResponse;
    Fetch: fetch::FetchRequest<'_> => fetch::FetchResponse;
    ListOffsets: list_offsets::ListOffsetsRequest<'_> => list_offsets::ListOffsetsResponse;
    Metadata: metadata::MetadataRequest<'_> => metadata::MetadataResponse;
    ApiVersions: api_versions::ApiVersionsRequest<'_> => api_versions::ApiVersionsResponse;
    CreateTopics: create_topics::CreateTopicsRequest<'_> => create_topics::CreateTopicsResponse;
    DeleteTopics: delete_topics::DeleteTopicsRequest<'_> => delete_topics::DeleteTopicsResponse;
    DescribeConfigs: describe_configs::DescribeConfigsRequest<'_>
        => describe_configs::DescribeConfigsResponse;
    DescribeCluster: describe_cluster::DescribeClusterRequest
        => describe_cluster::DescribeClusterResponse;
}

impl Call for init_producer_id::InitProducerIdRequest<'_> {
    type Answer<'a> = init_producer_id::InitProducerIdResponse;
    const API: ApiKey = ApiKey::InitProducerId;

    fn put(&self, out: &mut OutputBuffer, version: i16) -> Result<(), EncodeError> {
        self.encode(out, version)
    }

    fn read<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Self::Answer<'a>, DecodeError> {
        init_producer_id::InitProducerIdResponse::decode(reader, version)
    }
}

/// The frame of an answer.
#[derive(Debug)]
pub struct Reply<C> {
    payload: Vec<u8>,
    version: i16,
    call: PhantomData<fn() -> C>,
}

impl<C: Call> Reply<C> {
    /// The decoded answer.
    ///
    /// # Panics
    /// If it does not decode, or if bytes are left behind its last field.
    #[must_use]
    pub fn body(&self) -> C::Answer<'_> {
        let (api, version) = (C::API, self.version);
        let decoded = decode_response_header(&self.payload, api, version).and_then(|(_, body)| {
            let mut reader = Reader::new(body);
            C::read(&mut reader, version).map(|answer| (answer, reader.remaining()))
        });
        let (answer, left) = decoded.unwrap_or_else(|error| {
            panic!("{api} v{version}: {error}; the frame is {:02x?}", self.payload)
        });
        assert_eq!(
            left, 0,
            "{api} v{version}: bytes behind the last field of {:02x?}",
            self.payload
        );
        answer
    }

    /// Bytes of the frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Never true: an answer has at least its header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: BufReader<TcpStream>,
    next_correlation_id: i32,
    /// Correlation ids whose answers have not come yet, oldest first.
    outstanding: VecDeque<i32>,
    /// What the client calls itself.
    pub client_id: Option<String>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// If the server does not accept.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the server accepts connections")
    }

    /// Connects to a server that may be gone.
    ///
    /// # Errors
    /// Those of the system.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        let input = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Self {
            stream,
            input,
            next_correlation_id: 1,
            outstanding: VecDeque::new(),
            client_id: Some("testkit".to_owned()),
        })
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Local port, which names the connection in a trace of the server.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().expect("a connected socket has an address").port()
    }

    /// Gives up on answers that take longer.
    pub fn set_timeout(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a socket takes a timeout");
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// If the connection breaks.
    pub fn call<C: Call>(&mut self, request: &C, version: i16) -> Reply<C> {
        self.try_call(request, version)
            .unwrap_or_else(|error| panic!("{} v{version} is answered: {error}", C::API))
    }

    /// Sends a request and waits for its answer, to a server that may be gone.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn try_call<C: Call>(&mut self, request: &C, version: i16) -> io::Result<Reply<C>> {
        self.send(request, version)?;
        self.receive(version)
    }

    /// The frame of a request under the next correlation id.
    pub fn frame<C: Call>(&mut self, request: &C, version: i16) -> Vec<u8> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let client_id = self.client_id.as_deref();
        let header = RequestHeader { api: C::API, version, correlation_id, client_id };
        let mut out = OutputBuffer::new();
        encode_request_frame(&mut out, header, |out| request.put(out, version))
            .expect("a test sends what its version can carry");
        self.outstanding.push_back(correlation_id);
        out.to_vec()
    }

    /// Sends a request without waiting.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send<C: Call>(&mut self, request: &C, version: i16) -> io::Result<()> {
        let frame = self.frame(request, version);
        self.stream.write_all(&frame)
    }

    /// Sends a request that is never answered: produce with acks=0.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_unanswered<C: Call>(&mut self, request: &C, version: i16) -> io::Result<()> {
        let frame = self.frame(request, version);
        self.outstanding.pop_back();
        self.stream.write_all(&frame)
    }

    /// Sends bytes as they are; answers to what is in them are taken with [`Client::receive`]
    /// after [`Client::frame`], or as raw payloads.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Takes the next answer, which must be the one to the oldest unanswered request.
    ///
    /// # Errors
    /// Those of the connection.
    ///
    /// # Panics
    /// If it answers another request.
    pub fn receive<C: Call>(&mut self, version: i16) -> io::Result<Reply<C>> {
        let payload = self.receive_payload()?;
        let expected = self.outstanding.pop_front().expect("an answer follows a request");
        let (correlation_id, _) = decode_response_header(&payload, C::API, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", C::API));
        assert_eq!(correlation_id, expected, "answers come in the order of the requests");
        Ok(Reply { payload, version, call: PhantomData })
    }

    /// Takes the next frame, whatever it is.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn receive_payload(&mut self) -> io::Result<Vec<u8>> {
        let mut prefix = [0; FRAME_PREFIX_BYTES];
        self.input.read_exact(&mut prefix)?;
        let length = usize::try_from(i32::from_be_bytes(prefix)).expect("lengths are positive");
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload)?;
        Ok(payload)
    }

    /// Waits until the server closes the connection; returns what it sent before.
    ///
    /// # Panics
    /// If it stays open.
    #[must_use]
    pub fn read_until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.input.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the server should have closed the connection: {error}"),
        }
    }
}
