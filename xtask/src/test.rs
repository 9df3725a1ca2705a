//! `cargo xtask test`: every test, and the main example from end to end.

use std::env;
use std::fmt::{self, Display};

use crate::command::{Failure, cargo, program};
use crate::steps::Steps;

const EXAMPLE: &str = "phantom_token";
const EXAMPLE_OK: &str = "phantom token flow: ok";

pub(crate) fn task() -> Result<(), Failure> {
    let counts = steps(&mut Steps::default())?;
    println!("\n{counts}");
    Ok(())
}

/// Runs everything in one profile with one set of features, so that it is compiled only once.
pub(crate) fn steps(steps: &mut Steps) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    steps.run("tests", || tests(&mut counts))?;
    steps.run("examples", || cargo("build --workspace --all-features --examples").run())?;
    steps.run(EXAMPLE, example)?;
    Ok(counts)
}

fn tests(counts: &mut Counts) -> Result<(), Failure> {
    // Without `--no-fail-fast`, what follows the first failing binary would not be counted.
    let command = cargo("test --workspace --all-features --no-fail-fast");
    let result = command.stream(|line| counts.add(line));
    if counts.failed > 0 {
        println!("\n{counts}");
    } else if result.is_ok() && counts.passed == 0 {
        return Err(command.failure("ran no test"));
    }
    result
}

/// Runs the binary that was just built: `cargo run` would unify other features and compile anew.
fn example() -> Result<(), Failure> {
    let xtask = env::current_exe().map_err(|error| {
        Failure::new(format!("cannot find the directory that holds the examples: {error}"))
    })?;
    let name = format!("{EXAMPLE}{}", env::consts::EXE_SUFFIX);
    let command = program(xtask.with_file_name("examples").join(name));
    let mut last = String::new();
    command.stream(|line| line.clone_into(&mut last))?;
    if last == EXAMPLE_OK {
        Ok(())
    } else {
        Err(command.failure(format_args!("ended with `{last}`, not with `{EXAMPLE_OK}`")))
    }
}

/// The sum over all test binaries and doc tests.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; ignores others.
    fn add(&mut self, line: &str) {
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
                _ => {}
            }
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ignored > 0 {
            writeln!(f, "{} ignored", self.ignored)?;
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
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
";
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.add(line));
        assert_eq!(counts, Counts { passed: 3, failed: 1, ignored: 1 });
        assert_eq!(counts.to_string(), "1 ignored\n3 passed, 1 failed");
    }

    #[test]
    fn the_closing_line_is_plain() {
        let counts = Counts { passed: 12, failed: 0, ignored: 0 };
        assert_eq!(counts.to_string(), "12 passed, 0 failed");
    }
}
