//! Binding and accepting. Connections are handed to shards in turn and stay there for life.
//! Limits in all and per address are enforced before anything is read.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chronik_common::MonotonicMs;
use chronik_config::Bind;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::{debug, warn};

use crate::node::Node;
use crate::startup_error::StartError;

/// Connections the kernel queues before we accept them.
const BACKLOG: i32 = 1_024;
/// Wait after an accept that failed for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Counts connections in all and per address.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    max: usize,
    per_ip_max: usize,
    open: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One connection's share of the limits; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    ip: IpAddr,
}

impl ConnectionLimits {
    pub(crate) fn new(max: usize, per_ip_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_ip_max, open: Mutex::default() })
    }

    /// A permit for a connection from `ip`, unless a limit is reached.
    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<ConnectionPermit> {
        let mut open = self.open.lock().expect("no holder of the limits panics");
        let from_ip = open.1.get(&ip).copied().unwrap_or(0);
        if open.0 >= self.max || from_ip >= self.per_ip_max {
            return None;
        }
        open.0 += 1;
        open.1.insert(ip, from_ip + 1);
        Some(ConnectionPermit { limits: Arc::clone(self), ip })
    }

    /// Open connections.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().expect("no holder of the limits panics").0
    }
}

impl ConnectionPermit {
    /// Address of the client.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().expect("no holder of the limits panics");
        open.0 -= 1;
        if let Some(from_ip) = open.1.get_mut(&self.ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
                open.1.remove(&self.ip);
            }
        }
    }
}

/// Spreads accepting over time.
#[derive(Debug)]
pub(crate) struct AcceptPace {
    per_second_max: u32,
    /// Begin of the current second, and connections accepted in it.
    window: Mutex<(MonotonicMs, u32)>,
}

impl AcceptPace {
    /// At most `per_second_max` connections in a second, which begins with its first one.
    pub(crate) fn new(per_second_max: u32) -> Self {
        Self { per_second_max, window: Mutex::new((MonotonicMs(0), 0)) }
    }

    /// Takes a place in the current second, or tells how long it still lasts.
    fn take(&self, now: MonotonicMs) -> Result<(), Duration> {
        let mut window = self.window.lock().expect("no holder of the window panics");
        let age = now.since(window.0);
        if window.1 == 0 || age >= Duration::from_secs(1) {
            *window = (now, 0);
        } else if window.1 >= self.per_second_max {
            return Err(Duration::from_secs(1) - age);
        }
        window.1 += 1;
        Ok(())
    }
}

/// Binds `port` where `bind` says; port 0 takes a free one, the same for IPv4 and IPv6.
///
/// # Errors
/// [`StartError::CannotListen`] if an address is taken. A machine without IPv6 listens on IPv4
/// only.
pub(crate) fn bind(
    bind: &Bind,
    port: u16,
    flag: &'static str,
) -> Result<Vec<StdTcpListener>, StartError> {
    let cannot = |address, source| StartError::CannotListen { address, flag, source };
    let (required, optional): (Vec<SocketAddr>, Option<IpAddr>) = match bind {
        Bind::Loopback => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            (vec![address], Some(IpAddr::V6(Ipv6Addr::LOCALHOST)))
        }
        Bind::Everywhere => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            (vec![address], Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
        }
        Bind::Host(host) => {
            let resolved = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port));
            (resolved.map_err(StartError::System)?.take(1).collect(), None)
        }
    };
    let mut listeners = Vec::new();
    for address in required {
        listeners.push(listen(address).map_err(|source| cannot(address, source))?);
    }
    let bound_port = match listeners.first() {
        Some(first) => first.local_addr().map_err(StartError::System)?.port(),
        None => port,
    };
    if let Some(ip) = optional {
        let address = SocketAddr::from((ip, bound_port));
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(source) if port != 0 && source.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(cannot(address, source));
            }
            Err(source) => debug!(%address, error = %source, "not listening on IPv6"),
        }
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> std::io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted server takes its port back from connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts on one listener for ever. Must run on a runtime with I/O; dropping it stops it.
pub(crate) async fn accept(listener: TcpListener, node: Arc<Node>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        while let Err(wait) = node.accept_pace.take(node.clock.monotonic()) {
            tokio::time::sleep(wait).await;
        }
        let Some(permit) = node.connection_limits.admit(peer.ip()) else {
            node.metrics.connections_refused.increment(0, 1);
            continue;
        };
        let adopted = stream.set_nodelay(true).and_then(|()| stream.into_std());
        match adopted {
            Ok(stream) => node.next_shard().post_connection(stream, permit),
            Err(error) => debug!(%error, %peer, "a connection ended before it was served"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_takes_its_limit_of_connections_and_one_more_waits_for_the_next() {
        let pace = AcceptPace::new(3);
        for _ in 0..3 {
            assert_eq!(pace.take(MonotonicMs(5_000)), Ok(()));
        }
        assert_eq!(pace.take(MonotonicMs(5_400)), Err(Duration::from_millis(600)));
        assert_eq!(pace.take(MonotonicMs(5_999)), Err(Duration::from_millis(1)));
        assert_eq!(pace.take(MonotonicMs(6_000)), Ok(()));
    }
}
