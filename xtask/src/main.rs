//! The workspace's tasks, run as `cargo xtask <task>`; `cargo xtask help` lists them.

mod api;
mod bench;
mod bench_plot;
mod bench_report;
mod ci;
mod command;
mod coverage;
mod coverage_report;
mod failover;
mod features;
mod fuzz;
mod mcp;
mod mutants;
mod packages;
mod semver;
mod servers;
mod stand_in;
mod steps;
mod storm;
mod test;
mod tools;
mod tree;

use std::env;
use std::process::ExitCode;

use crate::bench::Bench;
use crate::command::Failure;
use crate::failover::FailOver;
use crate::fuzz::Fuzz;
use crate::mutants::Mutants;
use crate::storm::FullStorm;
use crate::test::Test;

const USAGE: &str = "\
The workspace's tasks.

Usage: cargo xtask <task>

  test [--embedded]
          run every test, and the examples that run from end to end; the servers that tests need are
          those named by CLOAKROOM_TEST_POSTGRES_URL, _MYSQL_URL and _REDIS_URL, or are started for
          the run, or installed first (on Debian, as root); --embedded leaves out the tests that need
          a server
  failover DATABASE [--rounds N] [--synchronous]
          kill, stop and cut off the primary of a replicated database under load, 20 times, and judge
          what clients saw: `postgres` (see docs/postgresql.md), `mysql` (see docs/mysql.md),
          `redis-sentinel`, `redis-cluster` (see docs/redis.md); with `redis-slots`, slots of a cluster
          move; --synchronous is for the first two; installs the programs that are missing (on Debian,
          as root)
  storm [--rounds N]
          revoke thousands of tokens while servers and connections fail, on each store; `test` does
          the same, but in files and on servers with a quarter as many
  mcp     run clients on the official SDKs of the Model Context Protocol against the example
          `mcp_server`, which must have been built; installs the SDKs below target/, and Node.js and
          Python if they are missing (on Debian, as root)
  fuzz TARGET [--minutes N]
          fuzz a target (see fuzz/README.md); installs cargo-fuzz if it is missing
  bench [--quick] [NAME[/PART]...]
          run the benchmarks, or those of these names or parts of them (see docs/benchmarks.md), and
          print one table; all of them renew docs/benchmarks.md, except those that start servers and run
          only by their names: `redis`, `postgres`, `mysql` and `introspect-postgres`; --quick only shows
          that they run
  coverage
          run every test, and list the lines that none of them reaches
  mutants [--change | [--sample N] FILE...]
          change the code of these files or directories, one expression at a time, and show which
          changes no test notices; without a name, the files in docs/mutants.md, which takes hours;
          --sample tries at most so many of each, always the same ones; --change does what ci does;
          installs cargo-mutants if it is missing
  features
          compile each crate with each of its features alone and left out; `ci` does less
  semver  compare the public API with that of the newest tag `v*`, and show whether the version
          says enough; fails while there is no such tag; installs cargo-semver-checks if it is missing
  api     write the public API of each crate into docs/public-api
  ci      check format, dependencies, lints, features, public API, docs, tests, coverage, packages,
          and a sample of mutants; installs cargo-deny and cargo-mutants if they are missing
  help    print this text
";

fn main() -> ExitCode {
    if let Some(code) = stand_in::run().or_else(servers::run_keeper) {
        return code;
    }
    let args: Vec<String> = env::args().skip(1).collect();
    match task(&args) {
        Some(task) => finish(task()),
        None => {
            if !args.is_empty() {
                eprintln!("error: no such task: `{}`\n", args.join(" "));
            }
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

type Task = Box<dyn FnOnce() -> Result<(), Failure>>;

fn task(args: &[String]) -> Option<Task> {
    let (name, rest) = args.split_first()?;
    match (name.as_str(), rest) {
        ("test", rest) => {
            let test = Test::parse(rest)?;
            Some(Box::new(move || test.run()))
        }
        ("storm", rest) => {
            let storm = FullStorm::parse(rest)?;
            Some(Box::new(move || storm.run()))
        }
        ("mcp", []) => Some(Box::new(mcp::run)),
        ("coverage", []) => Some(Box::new(coverage::task)),
        ("features", []) => Some(Box::new(features::task)),
        ("semver", []) => Some(Box::new(semver::task)),
        ("api", []) => Some(Box::new(api::task)),
        ("ci", []) => Some(Box::new(ci::task)),
        ("failover", rest) => {
            let failover = FailOver::parse(rest)?;
            Some(Box::new(move || failover.run()))
        }
        ("fuzz", rest) => {
            let fuzz = Fuzz::parse(rest)?;
            Some(Box::new(move || fuzz.run()))
        }
        ("mutants", rest) => {
            let mutants = Mutants::parse(rest)?;
            Some(Box::new(move || mutants.run()))
        }
        ("bench", rest) => {
            let bench = Bench::parse(rest)?;
            Some(Box::new(move || bench.run()))
        }
        ("help" | "--help" | "-h", []) => Some(Box::new(help)),
        _ => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every task has this signature")]
fn help() -> Result<(), Failure> {
    print!("{USAGE}");
    Ok(())
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nerror: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_task(args: &[&str]) -> bool {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        task(&args).is_some()
    }

    #[test]
    fn knows_its_tasks_and_nothing_else() {
        for name in ["test", "coverage", "features", "semver", "api", "ci", "help", "--help", "-h"]
        {
            assert!(is_task(&[name]), "{name}");
            assert!(!is_task(&[name, "more"]), "{name} more");
        }
        assert!(is_task(&["test", "--embedded"]));
        assert!(is_task(&["failover", "postgres", "--rounds", "2"]));
        assert!(is_task(&["failover", "redis-cluster"]));
        assert!(!is_task(&["failover"]));
        assert!(is_task(&["mutants", "crates/cloakroom-core"]));
        assert!(!is_task(&["ci", "--embedded"]));
        assert!(!is_task(&[]));
        assert!(!is_task(&["tests"]));
    }
}
