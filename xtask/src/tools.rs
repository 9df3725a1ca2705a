//! The tools beside `cargo` that the checks need.

use std::process::{Command, Stdio};

use crate::command::Failure;

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

fn runs(subcommand: &str) -> bool {
    Command::new("cargo")
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
