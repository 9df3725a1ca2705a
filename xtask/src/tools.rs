//! The tools beside `cargo` that the checks need.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{Cmd, Failure, cargo, program};

/// The servers that tests start for themselves: a file that shows that one is there, and the Debian
/// packages that bring it.
const SERVERS: [(&str, &str); 1] =
    [("/usr/lib/nginx/modules/ngx_http_js_module.so", "nginx libnginx-mod-http-js")];

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

/// Installs a subcommand of cargo, unless some version of it is there.
pub(crate) fn install(subcommand: &str, version: &str) -> Result<(), Failure> {
    if runs(subcommand) {
        return Ok(());
    }
    // It runs for seconds: optimized, it would be compiled for minutes.
    cargo(&format!("install cargo-{subcommand}@{version} --locked --debug"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .run()
}

/// Installs the servers that are missing. Where that cannot be done, the command is shown.
pub(crate) fn servers() -> Result<(), Failure> {
    let missing = SERVERS.iter().filter(|(file, _)| !Path::new(file).exists());
    let packages: Vec<&str> = missing.flat_map(|(_, packages)| packages.split(' ')).collect();
    if packages.is_empty() {
        return Ok(());
    }
    program("apt-get").arg("update").arg("--quiet").run()?;
    let install = program("apt-get").env("DEBIAN_FRONTEND", "noninteractive").arg("install");
    let install = install.arg("--quiet").arg("--yes").arg("--no-install-recommends");
    packages.into_iter().fold(install, Cmd::arg).run()
}

fn runs(subcommand: &str) -> bool {
    Command::new("cargo")
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
