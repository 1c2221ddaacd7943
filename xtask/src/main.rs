//! Build, test and release commands of the workspace: `cargo xtask <command>`.

fn main() {}
