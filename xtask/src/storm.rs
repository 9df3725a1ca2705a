//! `cargo xtask storm`: tokens are revoked while everything goes wrong, on each store, at full scale.

use crate::command::{Cmd, Failure, cargo};
use crate::servers::Servers;
use crate::test::Counts;

/// The options of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FullStorm {
    rounds: u32,
}

impl FullStorm {
    /// Reads `[--rounds N]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let rounds = match args {
            [] => 1,
            [option, rounds] if option == "--rounds" => {
                rounds.parse().ok().filter(|rounds| *rounds > 0)?
            }
            _ => return None,
        };
        Some(Self { rounds })
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        let servers = Servers::start()?;
        let command = servers.name_to(command());
        for _ in 0..self.rounds {
            let mut counts = Counts::default();
            command.stream(|line| counts.add(line))?;
            // Without a test of this name, the command would succeed, too.
            if counts.is_empty() {
                return Err(command.failure("ran no test"));
            }
        }
        servers.end()
    }
}

fn command() -> Cmd {
    let command = cargo("test --package cloakroom-tests --all-features --test it --");
    let command = command.arg("nothing_revoked_passes::").arg("--nocapture");
    command.env("CLOAKROOM_FULL_STORM", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows a second `--` would be more names of tests to run.
    #[test]
    fn only_the_storms_run() {
        let command = Servers::none().name_to(command()).to_string();
        let (_, tests) = command.split_once(" -- ").unwrap();
        assert_eq!(tests, "nothing_revoked_passes:: --nocapture");
    }

    #[test]
    fn the_number_of_rounds_is_read() {
        let parse = |args: &str| {
            let args: Vec<String> = args.split_whitespace().map(ToOwned::to_owned).collect();
            FullStorm::parse(&args)
        };
        assert_eq!(parse(""), Some(FullStorm { rounds: 1 }));
        assert_eq!(parse("--rounds 3"), Some(FullStorm { rounds: 3 }));
        for bad in ["--rounds", "--rounds 0", "--rounds x", "3", "--rounds 3 4"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
