//! Prints `docs/reference/metrics.md`; `cargo xtask docs` writes it.

#![allow(clippy::print_stdout, reason = "the page goes to stdout")]

fn main() {
    print!("{}", chronik_server::metrics_page());
}
