//! `[listener]`: addresses, ports, and the limits that keep one client from hurting the others.

use crate::key::section;
use crate::kind::{GIB, Host, MIB, Maybe, bytes, millis, number};

section! {
    /// The Kafka and HTTP listeners and the limits of their connections. Every limit holds before
    /// a client has proved who it is.
    ListenerConfig at "listener", config => config.listener, {
        /// Host name or address to listen on. Unset means loopback (127.0.0.1 and ::1) as long
        /// as clients are told a loopback name, and every interface once `node.advertised_addr`
        /// names another host. Without authentication anyone who reaches a listener can read and
        /// write every topic.
        bind: Option<String> = None, Maybe(Host), variables(&["CHRONIK_BIND"]);

        /// TCP port of the Kafka protocol; 0 takes a free port and prints it. Ports below 1024
        /// need a privilege on most systems.
        kafka_port: u16 = 9_092, number(0, 65_535), variables(&["CHRONIK_KAFKA_PORT"]);

        /// TCP port of console, API, metrics and health; 0 takes a free port and prints it.
        http_port: u16 = 6_092, number(0, 65_535), variables(&["CHRONIK_HTTP_PORT"]);

        /// Largest request in bytes, Kafka's `socket.request.max.bytes`. A connection that
        /// announces more is closed. Memory grows with the bytes that arrived, not with the
        /// announced size, so a large value costs nothing until it is used; a value below
        /// `topic.message_max_bytes` would make legal batches impossible and is refused.
        request_bytes_max: u64 = 100 * MIB, bytes(64 << 10, GIB);

        /// Bytes of requests that are received or being served, in the whole server, Kafka's
        /// `queued.max.request.bytes`: half of it for large requests on their way in, by their
        /// announced size, half for those that wait for an answer. At the limit sockets are not
        /// read until answers leave, which clients see as a slow server. Lower it on machines with little memory; it cannot
        /// be lower than `request_bytes_max`, or the largest request could never be received.
        queued_request_bytes_max: u64 = 256 * MIB, bytes(MIB, 1 << 40);

        /// Open connections of both listeners. Connections beyond it are closed at once. Each
        /// one needs a file descriptor and a few kilobytes; the server raises its own limit of
        /// open files as far as the system lets it.
        connections_max: u32 = 10_000, number(1, 1_000_000);

        /// Open connections from one IP address. Unset means half of `connections_max`, so that
        /// one host cannot lock out the others. Raise it where a proxy or address translation
        /// makes many clients look like one.
        connections_per_ip_max: Option<u32> = None, Maybe(number(1, 1_000_000));

        /// New connections per second, Kafka's `max.connection.creation.rate`. More wait in the
        /// kernel's queue until the next second. A client that reconnects in a loop, or all
        /// clients at once after an outage, then cannot keep the server from serving those that
        /// are connected. Too low a value makes such a return slow.
        connection_creation_rate_max: u32 = 2_000, number(1, 1_000_000);

        /// A connection without traffic for this long is closed, Kafka's
        /// `connections.max.idle.ms`. Clients reconnect by themselves; a value below their
        /// polling interval only makes them reconnect all the time.
        connections_idle_max_ms: u64 = 600_000, millis(1_000, 86_400_000);

        /// A request whose first byte has arrived must arrive in full within this time, or the
        /// connection is closed. It stops senders that trickle bytes to hold memory. The default
        /// is the time after which Kafka clients give up on a request themselves
        /// (`request.timeout.ms`); on links where a legal request takes longer, raise both.
        request_deadline_ms: u64 = 30_000, millis(100, 600_000);

        /// Answers of one connection that wait for its socket, in bytes, besides the one being
        /// sent. Beyond it the server reads no further request of that connection, so a client
        /// that never reads its answers holds this much memory and one answer. Too low a value
        /// stops pipelining; the default holds thousands of produce answers.
        write_buffer_bytes_max: u64 = MIB, bytes(4 << 10, GIB);

        /// Upper bound of one fetch answer in bytes, whatever the client asks for. At least one
        /// whole batch is always returned, so progress never depends on it (KIP-74). The default
        /// is Kafka's 55 MiB. A large value lets one slow consumer hold that much memory.
        fetch_bytes_max: u64 = 55 * MIB, bytes(1 << 10, GIB);

        /// Incremental fetch sessions (KIP-227) in the whole server, Kafka's
        /// `max.incremental.fetch.session.cache.slots`. A consumer without a session still
        /// works, it names all its partitions in each request. 0 turns sessions off.
        fetch_sessions_max: u32 = 1_000, number(0, 1_000_000);
    }
}

impl ListenerConfig {
    /// Open connections allowed from one IP address: `connections_per_ip_max`, or else half of
    /// `connections_max`; at least 1.
    #[must_use]
    pub fn connections_from_one_ip(&self) -> u32 {
        self.connections_per_ip_max.unwrap_or_else(|| (self.connections_max / 2).max(1))
    }
}
