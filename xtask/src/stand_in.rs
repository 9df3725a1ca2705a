//! xtask in place of `rustc` or `rustdoc`.
//!
//! Cargo calls it instead of the tool, and it adds options for these calls only. If they were in
//! cargo's environment, every dependency would be compiled again.

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::command::{Cmd, Failure};

const ROLE: &str = "XTASK_STANDS_IN_FOR";
const RUSTC: &str = "rustc";
const RUSTDOC: &str = "rustdoc";

/// Instruments the crates of the workspace, and no others, for coverage.
pub(crate) fn instruments(command: Cmd) -> Result<Cmd, Failure> {
    Ok(command.env("RUSTC_WORKSPACE_WRAPPER", xtask()?).env(ROLE, RUSTC))
}

/// Lets a stable rustdoc accept unstable options.
///
/// In cargo's environment, `RUSTC_BOOTSTRAP` would also reach build scripts, some of which then
/// select other code.
pub(crate) fn unlocks_rustdoc(command: Cmd) -> Result<Cmd, Failure> {
    Ok(command.env("RUSTDOC", xtask()?).env(ROLE, RUSTDOC))
}

fn xtask() -> Result<String, Failure> {
    let path =
        env::current_exe().map_err(|error| Failure::new(format!("cannot find xtask: {error}")))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| Failure::new(format!("{} is not UTF-8", path.display())))
}

/// Runs the tool, if cargo has called xtask in its place.
pub(crate) fn run() -> Option<ExitCode> {
    let role = env::var(ROLE).ok()?;
    let mut command = real(&role, env::args_os().skip(1))?;
    match command.status() {
        Ok(status) if status.success() => Some(ExitCode::SUCCESS),
        Ok(_) => Some(ExitCode::FAILURE),
        Err(error) => {
            eprintln!("error: {role} could not be run: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Cargo's command line, with the added options.
fn real(role: &str, mut args: impl Iterator<Item = OsString>) -> Option<Command> {
    match role {
        RUSTC => {
            // A wrapper gets the compiler's path first.
            let mut command = Command::new(args.next()?);
            command.args(args).args(["-C", "instrument-coverage"]);
            Some(command)
        }
        RUSTDOC => {
            let mut command = Command::new(RUSTDOC);
            command.args(args).env("RUSTC_BOOTSTRAP", "1");
            Some(command)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(role: &str, args: &[&str]) -> Option<Vec<String>> {
        let command = real(role, args.iter().map(OsString::from))?;
        let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        Some(
            [command.get_program().to_string_lossy().into_owned()]
                .into_iter()
                .chain(args)
                .collect(),
        )
    }

    #[test]
    fn each_role_adds_its_own() {
        let rustc = line(RUSTC, &["/bin/rustc", "-vV"]).expect("a role");
        assert_eq!(rustc, ["/bin/rustc", "-vV", "-C", "instrument-coverage"]);
        assert_eq!(line(RUSTDOC, &["-vV"]).expect("a role"), ["rustdoc", "-vV"]);
        assert_eq!(line("", &["-vV"]), None);
        assert_eq!(line(RUSTC, &[]), None);
    }
}
