//! `cargo xtask codegen`: message types and codecs of `chronik-protocol` from its schema files.
//!
//! Reads `crates/chronik-protocol/schema/<key>_<name>.wire`, writes
//! `crates/chronik-protocol/src/generated/<name>.rs` and the `mod.rs` that joins them. `parse`
//! turns a file into the `model`, `emit` turns the model into Rust, rustfmt gives it its shape.

mod emit;
mod model;
mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const SCHEMA_DIR: &str = "crates/chronik-protocol/schema";
const GENERATED_DIR: &str = "crates/chronik-protocol/src/generated";

/// Generates all files. With `check_only`, writes nothing and fails if anything on disk differs
/// from what would be written.
pub fn run(workspace_root: &Path, check_only: bool) -> Result<()> {
    let schemas = read_dir(&workspace_root.join(SCHEMA_DIR), "wire")?;
    let mut apis = Vec::new();
    for (file, text) in &schemas {
        let api = parse::parse(&format!("{SCHEMA_DIR}/{file}"), text)?;
        let expected = format!("{}_{}.wire", api.key, emit::module_name(&api));
        ensure!(*file == expected, "{SCHEMA_DIR}/{file}: this API belongs into {expected}");
        apis.push(api);
    }
    apis.sort_by_key(|api| api.key);
    if let Some(pair) = apis.windows(2).find(|pair| pair[0].key == pair[1].key) {
        bail!("{SCHEMA_DIR}: two files for key {}", pair[0].key);
    }

    let mut wanted = BTreeMap::from([("mod.rs".to_owned(), emit::joining_module(&apis))]);
    wanted
        .extend(apis.iter().map(|api| (format!("{}.rs", emit::module_name(api)), emit::api(api))));
    for code in wanted.values_mut() {
        *code = rustfmt(workspace_root, code)?;
    }
    let generated = workspace_root.join(GENERATED_DIR);
    if check_only { compare(&generated, &wanted) } else { replace(&generated, &wanted) }
}

/// Names and contents of the files in `directory` with this extension.
fn read_dir(directory: &Path, extension: &str) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name.to_owned(), text);
        }
    }
    Ok(files)
}

fn compare(directory: &Path, wanted: &BTreeMap<String, String>) -> Result<()> {
    let found = read_dir(directory, "rs")?;
    let names: BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let stale: Vec<_> =
        names.into_iter().filter(|name| wanted.get(*name) != found.get(*name)).collect();
    ensure!(stale.is_empty(), "{GENERATED_DIR}: not what the schemas give: {stale:?}");
    Ok(())
}

fn replace(directory: &Path, wanted: &BTreeMap<String, String>) -> Result<()> {
    fs::create_dir_all(directory)?;
    let found = read_dir(directory, "rs")?;
    for (name, code) in wanted {
        if found.get(name) != Some(code) {
            fs::write(directory.join(name), code)?;
        }
    }
    for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(directory.join(name))?;
    }
    Ok(())
}

/// Formats `code` by the workspace's rules.
fn rustfmt(workspace_root: &Path, code: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--config-path"])
        .arg(workspace_root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt")?;
    let mut input = child.stdin.take().context("rustfmt has no standard input")?;
    let code = code.to_owned();
    let writer = std::thread::spawn(move || input.write_all(code.as_bytes()));
    let output = child.wait_with_output()?;
    let written = writer.join().map_err(|_| anyhow::anyhow!("the thread feeding rustfmt died"))?;
    written.context("cannot feed rustfmt")?;
    ensure!(output.status.success(), "rustfmt refuses the generated code");
    Ok(String::from_utf8(output.stdout)?)
}
