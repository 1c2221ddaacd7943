//! Drives one target with libFuzzer. The variable `CHRONIK_FUZZ_TARGET` names it; one binary
//! holds all targets so that adding one does not add a link.

#![no_main]
#![allow(clippy::disallowed_methods, reason = "libFuzzer and its macro own arguments and files")]

use std::sync::OnceLock;

use chronik_fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("CHRONIK_FUZZ_TARGET").expect("CHRONIK_FUZZ_TARGET names a target");
    target(&name).unwrap_or_else(|| panic!("no target is called {name}"))
}

fuzz_target!(|input: &[u8]| (CHOSEN.get_or_init(choose).run)(input));
