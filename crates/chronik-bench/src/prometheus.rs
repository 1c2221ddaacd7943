//! The running figures for Prometheus: one page on a port of the loopback interface.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::series::{Interval, per};

/// Longest wait for a scraper's request.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Figures so far.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    messages: u64,
    bytes: u64,
    requests: u64,
    failed: u64,
    rate: f64,
    p50_seconds: f64,
    p99_seconds: f64,
}

/// Running figures; with a page, and a thread that serves it until the process ends.
#[derive(Clone, Debug)]
pub struct LiveFigures {
    figures: Arc<Mutex<Figures>>,
}

impl LiveFigures {
    /// Serves on `port` of the loopback interface, 0 for a free one, and says where.
    ///
    /// # Errors
    /// If the port cannot be had.
    pub fn serve(port: u16) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let figures = Arc::new(Mutex::new(Figures::default()));
        let served = Arc::clone(&figures);
        std::thread::Builder::new().name("prometheus".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let page = page(&served.lock().expect("no holder of the figures panics"));
                // A scraper that goes away asks again.
                let _ = answer(stream, &page);
            }
        })?;
        Ok((Self { figures }, address))
    }

    /// Figures without a page.
    #[must_use]
    pub fn detached() -> Self {
        Self { figures: Arc::new(Mutex::new(Figures::default())) }
    }

    /// Messages so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.figures.lock().expect("no holder of the figures panics").messages
    }

    /// Adds an interval.
    pub fn update(&self, interval: &Interval) {
        let mut figures = self.figures.lock().expect("no holder of the figures panics");
        figures.messages += interval.counts.messages;
        figures.bytes += interval.counts.bytes;
        figures.requests += interval.counts.requests;
        figures.failed += interval.counts.failed;
        figures.rate = per(interval.counts.messages as f64, interval.seconds);
        figures.p50_seconds = interval.latency_at(0.5) as f64 / 1e6;
        figures.p99_seconds = interval.latency_at(0.99) as f64 / 1e6;
    }
}

fn page(figures: &Figures) -> String {
    let rows: [(&str, &str, &str, f64); 7] = [
        ("messages_total", "counter", "Messages acknowledged or read.", figures.messages as f64),
        ("message_bytes_total", "counter", "Bytes of their values.", figures.bytes as f64),
        ("requests_total", "counter", "Requests answered.", figures.requests as f64),
        ("failed_messages_total", "counter", "Messages that failed.", figures.failed as f64),
        ("messages_per_second", "gauge", "Rate of the last sample.", figures.rate),
        ("latency_p50_seconds", "gauge", "Median of the last sample.", figures.p50_seconds),
        (
            "latency_p99_seconds",
            "gauge",
            "99th percentile of the last sample.",
            figures.p99_seconds,
        ),
    ];
    let mut page = String::new();
    for (name, kind, help, value) in rows {
        let _ = writeln!(page, "# HELP chronik_bench_{name} {help}");
        let _ = writeln!(page, "# TYPE chronik_bench_{name} {kind}");
        let _ = writeln!(page, "chronik_bench_{name} {value}");
    }
    page
}

fn answer(mut stream: TcpStream, page: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut request = [0; 1_024];
    let _ = stream.read(&mut request)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Counts;

    #[test]
    fn a_scrape_sees_what_was_counted() {
        let (live, address) = LiveFigures::serve(0).unwrap();
        let counts = Counts { messages: 500, bytes: 9, ..Counts::default() };
        live.update(&Interval { seconds: 0.5, counts, ..Interval::default() });
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("\nchronik_bench_messages_total 500\n"), "{page}");
        assert!(page.contains("\nchronik_bench_messages_per_second 1000\n"), "{page}");
    }
}
