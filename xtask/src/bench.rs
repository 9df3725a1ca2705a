//! `cargo xtask bench`: every benchmark, and one table of what they report.

use std::fs;

use cloakroom_benches::Line;

use crate::bench_plot as plot;
use crate::bench_report::{self as report, Results};
use crate::command::{Cmd, Failure, cargo, root};
use crate::servers::Servers;

/// The page that holds the tables. The text around them is written by hand.
const PAGE: &str = "docs/benchmarks.md";

/// The pictures on that page.
const GROWTH: &str = "docs/benchmarks-growth.svg";
const PERCENTILES: &str = "docs/benchmarks-percentiles.svg";

/// The benchmarks: a name, and its package and target.
const SUITES: [(&str, Target); 11] = [
    ("handles", Target::Bench("handles")),
    ("jwt", Target::Bench("jwt")),
    ("grants", Target::Bench("grants")),
    ("hits", Target::Bench("hits")),
    ("memory", Target::Bench("memory")),
    ("sqlite", Target::Bench("sqlite")),
    (
        "http",
        Target::Server(
            "introspect introspect-sqlite refresh refresh-sqlite issue-opaque issue-es256",
        ),
    ),
    ("api", Target::Server("api")),
    ("gateway", Target::Server("gateway")),
    ("delay", Target::Server("delay")),
    ("redis", Target::Redis("redis")),
];

#[derive(Clone, Copy)]
enum Target {
    /// A benchmark of the package `cloakroom-benches`.
    Bench(&'static str),
    /// These cases of the package `cloakroom-benches-http`.
    Server(&'static str),
    /// A benchmark that needs Redis. It runs only by its name.
    Redis(&'static str),
}

/// One run of the benchmarks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bench {
    quick: bool,
    /// Which to run; all if empty.
    names: Vec<String>,
}

impl Bench {
    /// Reads `[--quick] [NAME…]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let (options, names): (Vec<_>, Vec<_>) =
            args.iter().cloned().partition(|arg| arg.starts_with('-'));
        let known = names.iter().all(|name| SUITES.iter().any(|(suite, _)| suite == name));
        let quick = match &options[..] {
            [] => false,
            [option] if option == "--quick" => true,
            _ => return None,
        };
        known.then_some(Self { quick, names })
    }

    /// Runs them one after the other, prints the table, and writes it if it is complete.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut results = Results::default();
        for (name, target) in SUITES {
            let is_wanted = match (&self.names[..], target) {
                ([], target) => !matches!(target, Target::Redis(_)),
                (names, _) => names.iter().any(|wanted| wanted == name),
            };
            if is_wanted {
                target.run(self.quick, |line| results.extend(Line::parse(line)))?;
            }
        }
        println!("\n{}", results.tables());
        if !self.quick && self.names.is_empty() {
            let page = report::renew(&read(PAGE)?, &report::section(&results))?;
            write(PAGE, &page)?;
            write(GROWTH, &plot::growth(&results.points))?;
            write(PERCENTILES, &plot::percentiles(&results.delays))?;
            println!("written to {PAGE}");
        }
        Ok(())
    }
}

impl Target {
    fn run(self, quick: bool, on_line: impl FnMut(&str)) -> Result<(), Failure> {
        let command = self.command(quick);
        let Self::Redis(_) = self else { return command.stream(on_line) };
        let servers = Servers::redis()?;
        let result = servers.name_to(command).stream(on_line);
        servers.end()?;
        result
    }

    /// A quick run does not measure speed, so it uses the profile of the tests.
    fn command(self, quick: bool) -> Cmd {
        let command = match (self, quick) {
            (Self::Bench(name) | Self::Redis(name), false) => {
                format!("bench --package cloakroom-benches --bench {name}")
            }
            (Self::Bench(name) | Self::Redis(name), true) => {
                format!("bench --profile dev --package cloakroom-benches --bench {name}")
            }
            (Self::Server(_), false) => "run --release --package cloakroom-benches-http".into(),
            (Self::Server(_), true) => "run --package cloakroom-benches-http".into(),
        };
        let quick = if quick { " --quick" } else { "" };
        let cases = if let Self::Server(cases) = self { cases } else { "" };
        cargo(&format!("{command} -- --json{quick} {cases}"))
    }
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(root().join(path))
        .map_err(|error| Failure::new(format!("cannot read `{path}`: {error}")))
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(root().join(path), text)
        .map_err(|error| Failure::new(format!("cannot write `{path}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Option<Bench> {
        let args: Vec<String> = args.split_whitespace().map(ToOwned::to_owned).collect();
        Bench::parse(&args)
    }

    #[test]
    fn options_and_names_are_read() {
        let bench = |quick, names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            Some(Bench { quick, names })
        };
        assert_eq!(parse(""), bench(false, &[]));
        assert_eq!(parse("--quick"), bench(true, &[]));
        assert_eq!(parse("jwt --quick http"), bench(true, &["jwt", "http"]));
        assert_eq!(parse("redis"), bench(false, &["redis"]));
        for bad in ["--slow", "--quick --quick", "nothing", "-q", "jwt nothing"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
