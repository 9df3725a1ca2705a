//! The tools beside `cargo` that the checks need.

use std::process::{Command, Stdio};

use crate::command::{Failure, cargo};

/// Names the missing ones, and the command that installs them.
pub(crate) fn check() -> Result<(), Failure> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(subcommand, _)| !runs(subcommand))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(" ");
    Err(Failure::new(format!(
        "the toolchain lacks: {missing}\ninstall with: rustup component add {missing}"
    )))
}

/// Installs a subcommand of cargo, unless a version of it is installed.
pub(crate) fn install(subcommand: &str, version: &str) -> Result<(), Failure> {
    if runs(subcommand) {
        return Ok(());
    }
    // It runs for seconds; optimized, it would take minutes to compile.
    cargo(&format!("install cargo-{subcommand}@{version} --locked --debug"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .run()
}

fn runs(subcommand: &str) -> bool {
    Command::new("cargo")
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
