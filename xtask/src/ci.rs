//! `cargo xtask ci`: everything that must hold before a change is merged.

use std::fs;

use crate::command::{Failure, cargo, root};
use crate::coverage::Coverage;
use crate::features::Selections;
use crate::mutants::Change;
use crate::steps::Steps;
use crate::test::{Outcome, Test};
use crate::{api, features, packages, test, tools, tree};

pub(crate) fn task() -> Result<(), Failure> {
    let mut steps = Steps::default();
    let result = in_order(&mut steps);
    println!("\n{steps}");
    if let Ok(outcome) = &result {
        println!("{outcome}");
    }
    result.map(drop)
}

fn in_order(steps: &mut Steps) -> Result<Outcome, Failure> {
    let crates = crates()?;
    steps.run("tools", tools::check)?;
    steps.run("format", || cargo("fmt --all --check").run())?;
    steps.run("dependencies", dependencies)?;
    steps.run("dependency tree", || tree::check(&crates))?;
    steps.run("clippy", || {
        cargo("clippy --workspace --all-targets --all-features -- -D warnings").run()
    })?;
    steps.run("features", || features::check(&crates, Selections::Few))?;
    steps.run("public API", api::check)?;
    steps.run("docs", || {
        cargo("doc --workspace --no-deps --all-features").env("RUSTDOCFLAGS", "-D warnings").run()
    })?;
    let coverage = Coverage::start();
    let outcome = test::steps(steps, Test::default(), coverage.as_ref().ok())?;
    match coverage {
        Ok(coverage) => steps.run("coverage", || {
            let report = coverage.report()?;
            println!("{report}");
            report.check()
        })?,
        Err(why) => steps.skip("coverage", &why),
    }
    steps.run("packages", || packages::check(&crates))?;
    // Last, as it takes the longest and no other step needs it.
    match Change::of_tree() {
        Ok(change) => steps.run_and_note("mutants", || change.check())?,
        Err(why) => steps.skip("mutants", &why),
    }
    Ok(outcome)
}

/// Bans, licences and sources, as `deny.toml` says. Advisories appear without a change here, so they
/// fail none: `cargo deny check advisories` shows them.
fn dependencies() -> Result<(), Failure> {
    tools::install("deny", "0.20.2")?;
    // Hides the warnings about crates in two versions.
    cargo("deny --log-level error check bans licenses sources").run()
}

/// The crates that users depend on: the names of the directories under `crates/`.
pub(crate) fn crates() -> Result<Vec<String>, Failure> {
    let directory = root().join("crates");
    let unreadable =
        |error| Failure::new(format!("cannot read `{}`: {error}", directory.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The crates with a public API: all but the operator's tool, which is a program alone.
pub(crate) fn libraries() -> Result<Vec<String>, Failure> {
    let mut names = crates()?;
    names.retain(|name| root().join("crates").join(name).join("src/lib.rs").is_file());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_crates_that_users_depend_on() {
        let crates = crates().expect("the directory is readable");
        for name in ["cloakroom", "cloakroom-core"] {
            assert!(crates.iter().any(|found| found == name), "{crates:?}");
        }
        let libraries = libraries().expect("the directory is readable");
        assert!(!libraries.contains(&"cloakroom-cli".to_owned()), "{libraries:?}");
        assert_eq!(libraries.len() + 1, crates.len());
    }
}
