//! Prints the public API of a crate, one item a line, sorted: `xtask-public-api <rustdoc.json>`.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

use public_api::Builder;

fn main() -> ExitCode {
    let Some(json) = env::args_os().nth(1) else {
        eprintln!("usage: xtask-public-api <rustdoc.json>");
        return ExitCode::from(2);
    };
    // What every type implements anyway would only be noise.
    let listed = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build();
    match listed {
        Ok(api) => {
            print!("{api}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("The rustdoc of each release needs its own version of the crate public-api.");
            ExitCode::FAILURE
        }
    }
}
