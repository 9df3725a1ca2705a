//! What servers stand: requests a second of one core, beside the same server without cloakroom, and
//! beside another library; and how long a revocation takes.
//!
//! ```sh
//! cargo run --release --package cloakroom-benches-http
//! ```
//!
//! Each server is a process of its own, on core 0, and the client has core 1 to itself. The servers
//! take turns in short rounds, so that whatever disturbs the machine disturbs them alike. `--quick`
//! only shows that everything runs; with `--json` each result is a line for `cargo xtask bench`.
//! `introspect`, `introspect-sqlite`, `refresh`, `refresh-sqlite`, `issue-opaque`, `issue-es256`, `api`,
//! `gateway` and `delay` run that alone; `introspect-postgres` runs only by its name, on the server that
//! `CLOAKROOM_TEST_POSTGRES_URL` names.

mod case;
mod delay;
mod followers;
mod load;
mod process;
mod rounds;
mod servers;

// The gateway of the examples, as it is.
#[path = "../../examples/gateway/allowed.rs"]
mod allowed;
#[path = "../../examples/gateway/body.rs"]
mod body;
#[path = "../../examples/gateway/entry.rs"]
mod entry;
#[path = "../../examples/gateway/headers.rs"]
mod headers;
#[expect(dead_code, reason = "it counts, and nobody asks for the counts")]
#[path = "../../examples/gateway/prometheus.rs"]
mod prometheus;
#[path = "../../examples/gateway/proxy.rs"]
mod proxy;
#[path = "../../examples/gateway/server.rs"]
mod server;
#[path = "../../examples/gateway/streams.rs"]
mod streams;
#[path = "../../examples/gateway/tunnel.rs"]
mod tunnel;

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
        Some("follow") => followers::follow(&arguments[1..]),
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
    let delay = arguments.iter().any(|name| name == "delay");
    let all = named.is_empty() && !delay;
    if delay || all {
        // On all cores.
        delay::in_process(suite)?;
    }
    process::pin_client(suite);
    for case in if all { Case::ALL.to_vec() } else { named } {
        rounds::measure(case, suite)?;
    }
    if delay || all {
        delay::over_http(suite)?;
    }
    Ok(())
}
