//! Prints what the Python oracle in `tests/compat/protocol_oracle` checks: the table of APIs, and
//! random messages of every version as hexadecimal bytes. The same output on each run.
//!
//! ```text
//! api <key> <name> <shown min> <shown max> <served min> <served max> <first flexible or ->
//! request <key> <version> <body>
//! response <key> <version> <body>
//! ```

use std::fmt::Write as _;
use std::io::{self, Write};

use chronik_protocol::sample::Sampler;
use chronik_protocol::{ApiKey, OutputBuffer, Request, Response};

const MESSAGES_PER_VERSION: u64 = 40;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = io::BufWriter::new(io::stdout().lock());
    for api in ApiKey::ALL {
        let (key, shown, served) = (api.number(), api.shown(), api.served());
        let flexible = api.first_flexible().map_or("-".to_owned(), |first| first.to_string());
        let ranges = format!("{} {} {} {}", shown.min, shown.max, served.min, served.max);
        writeln!(lines, "api {key} {api} {ranges} {flexible}")?;
        for version in shown.min..=shown.max {
            for seed in 0..MESSAGES_PER_VERSION {
                let mut sampler = Sampler::new(seed);
                let mut body = OutputBuffer::new();
                Request::sample(*api, version, &mut sampler).encode(&mut body, version)?;
                writeln!(lines, "request {key} {version} {}", hexadecimal(&body))?;

                let mut body = OutputBuffer::new();
                Response::sample(*api, version, &mut sampler).encode(&mut body, version)?;
                writeln!(lines, "response {key} {version} {}", hexadecimal(&body))?;
            }
        }
    }
    lines.flush()?;
    Ok(())
}

fn hexadecimal(body: &OutputBuffer) -> String {
    body.to_vec().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
