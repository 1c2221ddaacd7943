//! The text of a configuration file.
//!
//! Input: the text; bytes that are not UTF-8 are replaced. Checked: a configuration that loads,
//! printed and loaded again, is the same one. The operator writes this file, so memory is
//! bounded loosely: reports of many problems are longer than the text.

use std::path::PathBuf;

use chronik_config::{Config, ConfigFile, Loaded, Sources, load};

use crate::allocation;
use crate::{Seed, Target};

pub(crate) const TARGET: Target = Target { name: "config_file", run, seeds };

/// What a report of problems may take, in bytes.
const REPORT_BYTES_MAX: usize = 16 << 20;

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Some(loaded) =
        allocation::assert_expanding(input.len(), REPORT_BYTES_MAX, || load_text(&text))
    else {
        return;
    };
    let printed = loaded.to_toml(true);
    let again = load_text(&printed).expect("a configuration that was printed loads");
    assert_eq!(again.config, loaded.config, "{printed}");
}

fn load_text(text: &str) -> Option<Loaded> {
    let file = ConfigFile { path: PathBuf::from("chronik.toml"), text: text.to_owned() };
    load(&Sources { file: Some(file), ..Sources::default() }).ok()
}

fn seeds() -> Vec<Seed> {
    let defaults = load(&Sources::default()).expect("the defaults are legal");
    let mut seeds = vec![
        Seed::new("empty", ""),
        Seed::new("unknown-key", "[cluster]\nnode_idd = 1\n"),
        Seed::new("not-toml", "[cluster\nnode_id = = 'x'"),
    ];
    // One file a section keeps mutations close to something legal.
    let text = defaults.to_toml(false);
    for (section, body) in Config::sections().iter().zip(text.split("\n\n")) {
        seeds.push(Seed::new(section.path, body));
    }
    seeds
}
