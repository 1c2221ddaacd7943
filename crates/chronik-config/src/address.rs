//! Network addresses as people write them: a host, and a port that may be left out.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host with a port. Printed so that it can be dialled: IPv6 literals are bracketed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        write!(f, ":{}", self.port)
    }
}

/// A host, with or without a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port, 1 or more; `None` if the writer left it out.
    pub port: Option<u16>,
}

impl Address {
    /// The endpoint at this host, on `port` unless the address names its own.
    #[must_use]
    pub fn with_default_port(&self, port: u16) -> Endpoint {
        Endpoint { host: self.host.clone(), port: self.port.unwrap_or(port) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Text that is not `HOST` or `HOST:PORT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not HOST or HOST:PORT")]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(InvalidAddress)?;
            host.parse::<Ipv6Addr>().map_err(|_| InvalidAddress)?;
            let port = match after {
                "" => None,
                after => Some(port(after.strip_prefix(':').ok_or(InvalidAddress)?)?),
            };
            return Ok(Self { host: host.to_owned(), port });
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self { host: text.to_owned(), port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (text, None),
        };
        if is_host(host) { Ok(Self { host: host.to_owned(), port }) } else { Err(InvalidAddress) }
    }
}

fn port(digits: &str) -> Result<u16, InvalidAddress> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidAddress);
    }
    digits.parse().ok().filter(|port| *port != 0).ok_or(InvalidAddress)
}

/// Letters, digits, dots, dashes and underscores (container names use them), 253 at most.
fn is_host(host: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=253).contains(&host.len()) && host.bytes().all(legal)
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

/// True for `localhost` and the loopback addresses.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// True for the address that means "every interface", which nobody can dial.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["localhost", "kafka.example:9092", "10.0.1.10:1", "[::1]:9092", "a_b-c:65535"]
        {
            let address: Address = text.parse().expect("a legal address");
            assert_eq!(address.to_string(), text);
        }
        let bare: Address = "::1".parse().expect("a bare IPv6 address is a host");
        assert_eq!(bare.with_default_port(9_092).to_string(), "[::1]:9092");
    }

    #[test]
    fn text_that_cannot_be_dialled_is_refused() {
        for text in [
            "",
            ":9092",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "a b",
            "a:1:2",
            "[::1",
            "[::1]9092",
            "[host]:1",
            "http://host",
        ] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text:?}");
        }
    }
}
