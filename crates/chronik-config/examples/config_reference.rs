//! Prints `docs/reference/config.md`.

#[allow(clippy::print_stdout, reason = "the page is this program's output")]
fn main() {
    print!("{}", chronik_config::reference::markdown());
}
