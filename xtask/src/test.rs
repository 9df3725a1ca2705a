//! `cargo xtask test`: every test, and the examples that run from end to end.

use std::env::consts::EXE_SUFFIX;
use std::fmt::{self, Display};

use crate::command::{Failure, cargo, program, target};
use crate::coverage::Coverage;
use crate::mcp;
use crate::packages::start_anew;
use crate::servers::{Servers, Summary};
use crate::steps::Steps;

/// The command that compiles and runs the tests.
pub(crate) const TESTS: &str = "test --workspace --all-features";

/// The examples that run from end to end by themselves: name, arguments, last line.
const EXAMPLES: [(&str, &str, &str); 7] = [
    ("phantom_token", "", "phantom token flow: ok"),
    ("phantom_token", "--store sqlite:{}/tokens.db", "phantom token flow: ok"),
    ("gateway", "--demo", "gateway: ok"),
    ("custom_store", "", "custom store: ok"),
    ("tenants", "", "tenants: ok"),
    ("same_process", "", "same process: ok"),
    ("plain_hyper", "", "plain hyper: ok"),
];

/// An example over a program that is installed with the servers.
const WITH_SOFTHSM: (&str, &str, &str) = ("pkcs11", "--demo", "pkcs11: ok");

/// The options of the task.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Test {
    /// Without the tests that need a server.
    is_embedded: bool,
}

impl Test {
    /// Reads `[--embedded]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        match args {
            [] => Some(Self::default()),
            [option] if option == "--embedded" => Some(Self { is_embedded: true }),
            _ => None,
        }
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        let outcome = steps(&mut Steps::default(), self, None)?;
        println!("\n{outcome}");
        Ok(())
    }
}

/// Runs everything in one profile with one set of features, so that it is compiled only once.
pub(crate) fn steps(
    steps: &mut Steps,
    test: Test,
    coverage: Option<&Coverage>,
) -> Result<Outcome, Failure> {
    let mut counts = Counts::default();
    let mut servers = Servers::none();
    if !test.is_embedded {
        steps.run("servers", || Servers::start().map(|started| servers = started))?;
    }
    steps.run("tests", || tests(&mut counts, &servers, coverage))?;
    steps.run("examples", || cargo("build --workspace --all-features --examples").run())?;
    for (name, arguments, last) in EXAMPLES {
        steps.run(name, || example(name, arguments, last))?;
    }
    if !test.is_embedded {
        steps.run("mcp clients", mcp::run)?;
    }
    if !test.is_embedded {
        let (name, arguments, last) = WITH_SOFTHSM;
        steps.run(name, || example(name, arguments, last))?;
    }
    let summary = servers.summary();
    steps.run("end of servers", || servers.end())?;
    Ok(Outcome { summary, counts })
}

pub(crate) fn tests(
    counts: &mut Counts,
    servers: &Servers,
    coverage: Option<&Coverage>,
) -> Result<(), Failure> {
    // Without `--no-fail-fast`, what follows the first failing binary would not be counted.
    let mut command = servers.tell(cargo(TESTS).arg("--no-fail-fast"));
    if let Some(coverage) = coverage {
        command = coverage.measured(command)?;
    }
    let result = command.stream(|line| counts.add(line));
    if counts.failed > 0 {
        println!("\n{}\n{counts}", servers.summary());
    } else if result.is_ok() && counts.is_empty() {
        return Err(command.failure("ran no test"));
    }
    result
}

/// Runs the binary that was just built: `cargo run` would unify other features and compile again. In
/// its arguments, `{}` stands for an empty directory.
fn example(name: &str, arguments: &str, expected: &str) -> Result<(), Failure> {
    let target = target()?;
    let data = target.join("examples-data");
    start_anew(&data)?;
    let mut command = program(target.join("debug/examples").join(format!("{name}{EXE_SUFFIX}")));
    for argument in arguments.split_whitespace() {
        command = command.arg(argument.replace("{}", &data.display().to_string()));
    }
    let mut last = String::new();
    command.stream(|line| line.clone_into(&mut last))?;
    if last == expected {
        Ok(())
    } else {
        Err(command.failure(format_args!("ended with `{last}`, not with `{expected}`")))
    }
}

/// What was tested, and how it went; shown at the end.
#[derive(Debug)]
pub(crate) struct Outcome {
    summary: Summary,
    counts: Counts,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.summary, self.counts)
    }
}

/// The sum over all test binaries and doc tests.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    left_out: u64,
}

impl Counts {
    /// Whether no test passed.
    pub(crate) const fn is_empty(&self) -> bool {
        self.passed == 0
    }

    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; ignores others.
    pub(crate) fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let fields = result.split_once(". ").map_or("", |(_, fields)| fields);
        for field in fields.split("; ") {
            let Some((number, name)) = field.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match name {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                "filtered out" => self.left_out += number,
                _ => {}
            }
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, what) in [(self.ignored, "ignored"), (self.left_out, "left out by request")] {
            if number > 0 {
                writeln!(f, "{number} {what}")?;
            }
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_over_all_binaries() {
        let output = "\
running 2 tests
test a ... ok
test b ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 3 tests
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.10s
";
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.add(line));
        assert_eq!(counts, Counts { passed: 3, failed: 1, ignored: 1, left_out: 2 });
        assert_eq!(counts.to_string(), "1 ignored\n2 left out by request\n3 passed, 1 failed");
    }

    #[test]
    fn the_closing_line_is_plain() {
        let counts = Counts { passed: 12, ..Counts::default() };
        assert_eq!(counts.to_string(), "12 passed, 0 failed");
    }

    #[test]
    fn the_one_option_is_read() {
        let parse =
            |args: &[&str]| Test::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Some(Test { is_embedded: false }));
        assert_eq!(parse(&["--embedded"]), Some(Test { is_embedded: true }));
        assert_eq!(parse(&["--embedded", "--embedded"]), None);
        assert_eq!(parse(&["http"]), None);
    }
}
