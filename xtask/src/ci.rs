//! `cargo xtask ci`: everything that must hold before a change is merged.

use std::fs;

use crate::command::{Failure, cargo, root};
use crate::steps::Steps;
use crate::{test, tools, tree};

pub(crate) fn task() -> Result<(), Failure> {
    let mut steps = Steps::default();
    let result = in_order(&mut steps);
    println!("\n{steps}");
    if let Ok(counts) = &result {
        println!("{counts}");
    }
    result.map(drop)
}

fn in_order(steps: &mut Steps) -> Result<test::Counts, Failure> {
    let crates = crates()?;
    steps.run("tools", tools::check)?;
    steps.run("format", || cargo("fmt --all --check").run())?;
    steps.run("clippy", || {
        cargo("clippy --workspace --all-targets --all-features -- -D warnings").run()
    })?;
    steps.run("features", || crates.iter().try_for_each(|name| each_feature_alone(name)))?;
    let counts = test::steps(steps)?;
    steps.run("docs", || {
        cargo("doc --workspace --no-deps --all-features").env("RUSTDOCFLAGS", "-D warnings").run()
    })?;
    steps.run("packages", || packages(&crates))?;
    steps.run("dependency tree", || tree::check(&crates))?;
    Ok(counts)
}

/// The crates that users depend on: the names of the directories under `crates/`.
fn crates() -> Result<Vec<String>, Failure> {
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

/// Features add and none needs another: the crate compiles with none, and with each by itself.
fn each_feature_alone(name: &str) -> Result<(), Failure> {
    let features = cargo(&format!(
        "tree --package {name} --all-features --depth 0 --prefix none --format {{f}}"
    ))
    .output()?;
    let features: Vec<&str> =
        features.trim().split(',').filter(|name| !matches!(*name, "" | "default")).collect();
    if features.is_empty() {
        return Ok(());
    }
    let clippy = |features: &str| {
        let package = format!("clippy --package {name} --no-default-features");
        cargo(&format!("{package} {features} -- -D warnings")).run()
    };
    clippy("")?;
    features.iter().try_for_each(|feature| clippy(&format!("--features {feature}")))
}

/// Builds the published form of every crate, together, as none of them need be on crates.io yet.
fn packages(crates: &[String]) -> Result<(), Failure> {
    let packages: String = crates.iter().map(|name| format!(" --package {name}")).collect();
    cargo(&format!("package --allow-dirty{packages}")).run()
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
    }
}
