//! What the endpoints stand: requests a second of one core, beside a bare axum handler that returns
//! the same bytes, and beside another library.
//!
//! ```sh
//! cargo run --release --package cloakroom-benches-http
//! ```
//!
//! Each server is a process of its own, on core 0, and the client has core 1 to itself. The servers
//! take turns in short rounds, so that whatever disturbs the machine disturbs them alike. `--quick`
//! only shows that everything runs; with `--json` each result is a line for `cargo xtask bench`.
//! `introspect`, `issue-opaque` or `issue-es256` run that case alone.

mod case;
mod load;
mod process;
mod rounds;
mod servers;

use std::env;
use std::process::ExitCode;

use cloakroom_benches::Suite;

use crate::case::Case;

/// Whatever goes wrong ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("serve") => servers::serve(&arguments[1..]),
        _ => run(&Suite::from_args(), &arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(suite: &Suite, arguments: &[String]) -> Result<(), Failure> {
    let named: Vec<Case> = arguments.iter().filter_map(|name| Case::parse(name)).collect();
    process::pin_client(suite);
    for case in if named.is_empty() { Case::ALL.to_vec() } else { named } {
        rounds::measure(case, suite)?;
    }
    Ok(())
}
