//! HTTP as far as metrics and health need it: one GET, the whole answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::server::WAIT_MAX;

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Header lines, as they came.
    pub headers: String,
    /// Body.
    pub body: String,
}

/// GETs `path`.
///
/// # Panics
/// Without an HTTP answer.
#[must_use]
pub fn http_get(address: SocketAddr, path: &str) -> HttpAnswer {
    let mut stream = TcpStream::connect(address).expect("the HTTP listener accepts");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("a socket takes a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the HTTP listener reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the HTTP listener answers");
    let answer = String::from_utf8(answer).expect("the answer is text");
    let (headers, body) = answer.split_once("\r\n\r\n").expect("headers end with an empty line");
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
    HttpAnswer {
        status: status.expect("a status line has a code"),
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}

/// Samples of one scrape, by name with labels as printed.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: HashMap<String, f64>,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self { samples: samples.collect() }
    }

    /// The value of a sample, for example `chronik_wal_syncs_total{lane="data"}`.
    ///
    /// # Panics
    /// If there is no such sample; the message has the names there are.
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        *self.samples.get(name).unwrap_or_else(|| {
            let mut names: Vec<&String> = self.samples.keys().collect();
            names.sort();
            panic!("no sample {name} among {names:#?}")
        })
    }

    /// The sum over all samples of a family.
    #[must_use]
    pub fn sum(&self, family: &str) -> f64 {
        let is_of = |name: &str| name == family || name.starts_with(&format!("{family}{{"));
        self.samples.iter().filter(|(name, _)| is_of(name)).map(|(_, value)| value).sum()
    }
}
