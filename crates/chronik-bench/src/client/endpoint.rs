//! Where a broker listens: a host name or address and a port.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// Kafka's port, where an address names none.
const KAFKA_PORT: u16 = 9_092;

/// Host and port of a listener.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is no address; expected HOST, HOST:PORT or [IPV6]:PORT");
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(expected)?;
            (host, rest.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(expected()),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(expected());
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| expected())?,
            None => KAFKA_PORT,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Endpoint {
    /// The addresses of a list separated by commas.
    ///
    /// # Errors
    /// A sentence for the command line, for the first that is none.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }

    /// Dials every address behind the name until one accepts; `timeout` is for each.
    ///
    /// # Errors
    /// That of the last address, or of the lookup.
    pub fn dial(&self, timeout: Duration) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out_and_ipv6_is_bracketed() {
        for (text, shown) in [
            ("localhost", "localhost:9092"),
            ("10.0.0.1:19092", "10.0.0.1:19092"),
            ("[::1]:9093", "[::1]:9093"),
            ("[::1]", "[::1]:9092"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for text in ["", ":9092", "a:b", "::1", "a:70000", "[::1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
        assert_eq!(Endpoint::list("a, b:1").unwrap().len(), 2);
    }
}
