//! Fuzzing with cargo-fuzz.

use std::process::{Command, Stdio};

use crate::command::{Failure, cargo};

/// One run of a fuzz target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fuzz {
    target: String,
    minutes: u64,
}

impl Fuzz {
    /// Reads `TARGET [--minutes N]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let (target, minutes) = match args {
            [target] => (target, 1),
            [target, option, minutes] if option == "--minutes" => (target, minutes.parse().ok()?),
            _ => return None,
        };
        let is_name = target.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (is_name && minutes > 0).then(|| Self { target: target.clone(), minutes })
    }

    /// Installs cargo-fuzz if it is missing, then runs the target.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if !answers(&["fuzz", "--version"]) {
            cargo("install cargo-fuzz --locked").run()?;
        }
        let Self { target, minutes } = self;
        let seconds = minutes * 60;
        let run = format!("fuzz run {target} -- -max_total_time={seconds} -print_final_stats=1");
        if answers(&["+nightly", "--version"]) {
            cargo(&format!("+nightly {run}")).run()
        } else {
            // Coverage and sanitizers are unstable flags; a stable compiler takes them when told.
            cargo(&run).env("RUSTC_BOOTSTRAP", "1").run()
        }
    }
}

fn answers(args: &[&str]) -> bool {
    let mut command = Command::new("cargo");
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Option<Fuzz> {
        let args: Vec<String> = args.split_whitespace().map(ToOwned::to_owned).collect();
        Fuzz::parse(&args)
    }

    #[test]
    fn a_target_and_its_minutes_are_read() {
        assert_eq!(parse("jwk_set"), Some(Fuzz { target: "jwk_set".into(), minutes: 1 }));
        assert_eq!(parse("row --minutes 20"), Some(Fuzz { target: "row".into(), minutes: 20 }));
        for bad in ["", "--minutes 2", "row 20", "row --minutes", "row --minutes 0", "row -x 1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
