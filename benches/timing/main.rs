//! Whether the time of a check reveals how much of a wrong guess was right.
//!
//! `cargo bench --package cloakroom-benches --bench timing` compares two classes of inputs for each
//! check that compares a secret, interleaved at random, by the method of `dudect`. It fails (1) if
//! a check takes different times for the two, beyond |t| = 10.
//!
//! A control runs beside each check: the same work, with a comparison that stops at the first
//! difference. If the run does not notice the control, its other results mean nothing, and it fails
//! (2). It also fails (2) if it tells a class from itself.
//!
//! It tests this build on this machine. How small a difference it can see depends on how quiet the
//! machine is; that it sees none proves nothing.

mod checks;
mod measure;

use std::env;
use std::process::ExitCode;

use cloakroom_benches::timing::Verdict;

use crate::checks::{Checks, Expected};
use crate::measure::{Outcome, resolution};

fn main() -> ExitCode {
    let asked = |name: &str| env::args().any(|arg| arg == name);
    // `cargo test --benches` only checks that it runs.
    let quick = asked("--quick") || !asked("--bench");
    println!("the clock tells {:.0} ns apart", resolution());
    println!("{:64} {:>12} {:>8} {:>8}  verdict", "", "measured", "ns/call", "max |t|");
    let (mut leaks, mut blind) = (false, false);
    Checks::new(quick).run(|name, expected, outcome: Outcome| {
        let Outcome { measurements, per_call, t } = outcome;
        let verdict = Verdict::of(t);
        println!("{name:64} {measurements:>12} {per_call:>8.1} {t:>8.1}  {verdict}");
        match expected {
            Expected::Alike => leaks |= verdict == Verdict::Different,
            Expected::ControlAlike => blind |= verdict == Verdict::Different,
            Expected::ControlDifferent => blind |= verdict != Verdict::Different,
        }
    });
    if quick {
        println!("too little was measured for a verdict");
        ExitCode::SUCCESS
    } else if blind {
        println!("the controls did not come out as they must: this run says nothing");
        ExitCode::from(2)
    } else if leaks {
        println!("the time of a check depends on a secret");
        ExitCode::FAILURE
    } else {
        println!("no check beyond |t| = 10, and every control was noticed");
        ExitCode::SUCCESS
    }
}
