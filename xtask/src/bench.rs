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

/// The benchmarks. Those that need a server run only by their names.
const SUITES: [Suite; 14] = [
    Suite::bench("handles"),
    Suite::bench("jwt"),
    Suite::bench("grants"),
    Suite::bench("hits"),
    Suite::bench("memory"),
    Suite::bench("sqlite").in_parts(),
    Suite::http(
        "http",
        "introspect introspect-sqlite refresh refresh-sqlite issue-opaque issue-es256",
    ),
    Suite::http("api", "api"),
    Suite::http("gateway", "gateway"),
    Suite::http("delay", "delay"),
    Suite::bench("redis").in_parts().on("redis"),
    Suite::bench("postgres").in_parts().on("postgres"),
    Suite::bench("mysql").in_parts().on("mysql"),
    Suite::http("introspect-postgres", "introspect-postgres").on("postgres"),
];

/// One benchmark: a target of a package.
#[derive(Clone, Copy)]
struct Suite {
    name: &'static str,
    target: Target,
    /// Whether parts of it can be run alone.
    has_parts: bool,
    /// The server that it needs.
    server: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Target {
    /// The benchmark of this name of the package `cloakroom-benches`.
    Bench,
    /// These cases of the package `cloakroom-benches-http`.
    Http(&'static str),
}

impl Suite {
    const fn bench(name: &'static str) -> Self {
        Self { name, target: Target::Bench, has_parts: false, server: None }
    }

    const fn http(name: &'static str, cases: &'static str) -> Self {
        Self { name, target: Target::Http(cases), has_parts: false, server: None }
    }

    const fn in_parts(self) -> Self {
        Self { has_parts: true, ..self }
    }

    const fn on(self, server: &'static str) -> Self {
        Self { server: Some(server), ..self }
    }
}

/// One run of the benchmarks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bench {
    quick: bool,
    /// Which to run, each with the part to run, or `""` for all of it; all if empty.
    names: Vec<(String, String)>,
}

impl Bench {
    /// Reads `[--quick] [NAME[/PART]…]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let (options, names): (Vec<_>, Vec<_>) =
            args.iter().cloned().partition(|arg| arg.starts_with('-'));
        let names = names.iter().map(|name| match name.split_once('/') {
            Some((name, part)) => {
                let has_it = |suite: &Suite| suite.name == name && suite.has_parts;
                let is_part = !part.is_empty() && SUITES.iter().any(has_it);
                is_part.then(|| (name.to_owned(), part.to_owned()))
            }
            None => {
                let is_known = SUITES.iter().any(|suite| suite.name == name);
                is_known.then(|| (name.to_owned(), String::new()))
            }
        });
        let quick = match &options[..] {
            [] => false,
            [option] if option == "--quick" => true,
            _ => return None,
        };
        Some(Self { quick, names: names.collect::<Option<_>>()? })
    }

    /// Runs them one after the other, prints the table, and writes it if it is complete.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut results = Results::default();
        for suite in SUITES {
            if let Some(parts) = self.parts(&suite) {
                let before = results.points.len();
                suite.run(self.quick, &parts, |line| results.extend(Line::parse(line)))?;
                let own = &results.points[before..];
                if suite.server.is_some() && !own.is_empty() && !self.quick {
                    let path = format!("docs/benchmarks-growth-{}.svg", suite.name);
                    write(&path, &plot::growth(own))?;
                    println!("written to {path}");
                }
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

    /// The parts of a benchmark to run, none for all of it; `None` if it is not to run.
    fn parts(&self, suite: &Suite) -> Option<Vec<&str>> {
        let named: Vec<&str> = self
            .names
            .iter()
            .filter(|(name, _)| name == suite.name)
            .map(|(_, part)| part.as_str())
            .collect();
        let is_wanted = !named.is_empty() || self.names.is_empty() && suite.server.is_none();
        let is_whole = named.contains(&"");
        is_wanted.then(|| if is_whole { Vec::new() } else { named })
    }
}

impl Suite {
    fn run(self, quick: bool, parts: &[&str], on_line: impl FnMut(&str)) -> Result<(), Failure> {
        let command = self.command(quick, parts);
        let Some(server) = self.server else { return command.stream(on_line) };
        let servers = Servers::durable(server)?;
        let result = servers.name_to(command).stream(on_line);
        servers.end()?;
        result
    }

    /// A quick run does not measure speed, so it uses the profile of the tests.
    fn command(self, quick: bool, parts: &[&str]) -> Cmd {
        let name = self.name;
        let command = match (self.target, quick) {
            (Target::Bench, false) => format!("bench --package cloakroom-benches --bench {name}"),
            (Target::Bench, true) => {
                format!("bench --profile dev --package cloakroom-benches --bench {name}")
            }
            (Target::Http(_), false) => "run --release --package cloakroom-benches-http".into(),
            (Target::Http(_), true) => "run --package cloakroom-benches-http".into(),
        };
        let quick = if quick { " --quick" } else { "" };
        let cases = match self.target {
            Target::Http(cases) => cases.to_owned(),
            Target::Bench => parts.join(" "),
        };
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
        let bench = |quick, names: &[(&str, &str)]| {
            let owned = |(name, part): &(&str, &str)| ((*name).to_owned(), (*part).to_owned());
            Some(Bench { quick, names: names.iter().map(owned).collect() })
        };
        assert_eq!(parse(""), bench(false, &[]));
        assert_eq!(parse("--quick"), bench(true, &[]));
        assert_eq!(parse("jwt --quick http"), bench(true, &[("jwt", ""), ("http", "")]));
        assert_eq!(parse("redis mysql/load"), bench(false, &[("redis", ""), ("mysql", "load")]));
        for bad in [
            "--slow",
            "--quick --quick",
            "nothing",
            "-q",
            "jwt nothing",
            "jwt/all",
            "nothing/part",
            "redis/",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_needs_a_server_runs_only_by_its_name_and_in_the_named_parts() {
        let runs = |args: &str| -> Vec<String> {
            let bench = parse(args).expect("it is understood");
            let run = |suite: Suite| Some(suite.command(true, &bench.parts(&suite)?).to_string());
            SUITES.into_iter().filter_map(run).collect()
        };
        assert_eq!(runs("").len(), SUITES.iter().filter(|suite| suite.server.is_none()).count());
        let command = |end: &str| {
            let begin = "cargo bench --profile dev --package cloakroom-benches --bench";
            vec![format!("{begin} {end}")]
        };
        assert_eq!(runs("postgres"), command("postgres -- --json --quick"));
        let parts = "postgres/delay postgres/load";
        assert_eq!(runs(parts), command("postgres -- --json --quick delay load"));
        assert_eq!(runs("mysql/load mysql"), command("mysql -- --json --quick"));
    }
}
