//! Prints `docs/reference/kafka-api.md`; `cargo xtask docs` writes it.

#![allow(clippy::print_stdout, reason = "the page goes to stdout")]

fn main() {
    print!("{}", chronik_server::kafka_api_page());
}
