//! Features are additive: none needs or breaks another, and each crate compiles with any of them.

use crate::ci;
use crate::command::{Failure, cargo};

/// Which selections of a crate's features are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selections {
    /// None, each alone, and the default ones. All of them are what `ci` compiles anyway.
    Few,
    /// In addition, all except each, and all: code that needs two features and names one of them may fail
    /// only where the other one is left out.
    Many,
}

/// `cargo xtask features`: compiles each crate with many selections of its features.
pub(crate) fn task() -> Result<(), Failure> {
    check(&ci::crates()?, Selections::Many)
}

/// Compiles each crate with selections of its features.
pub(crate) fn check(crates: &[String], wanted: Selections) -> Result<(), Failure> {
    for name in crates {
        let features = features(name)?;
        let features: Vec<&str> =
            features.trim().split(',').filter(|name| !matches!(*name, "" | "default")).collect();
        if features.is_empty() {
            continue;
        }
        for selection in selections(&features, wanted) {
            cargo(&format!("clippy --package {name} {selection} -- -D warnings")).run()?;
        }
    }
    Ok(())
}

/// The names of all features, separated by commas.
fn features(name: &str) -> Result<String, Failure> {
    cargo(&format!("tree --package {name} --all-features --depth 0 --prefix none --format {{f}}"))
        .output()
}

fn selections(features: &[&str], wanted: Selections) -> Vec<String> {
    let only = |features: &str| format!("--no-default-features --features {features}");
    let mut selections = vec!["--no-default-features".to_owned()];
    selections.extend(features.iter().copied().map(only));
    selections.push(String::new());
    if wanted == Selections::Few {
        return selections;
    }
    // With two features, all except one is the other one alone.
    for left_out in features.iter().filter(|_| features.len() > 2) {
        let others: Vec<&str> = features.iter().copied().filter(|name| name != left_out).collect();
        selections.push(only(&others.join(",")));
    }
    selections.push("--all-features".to_owned());
    selections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_tried_alone_and_left_out() {
        const ONLY: &str = "--no-default-features --features";
        let few = [
            "--no-default-features".to_owned(),
            format!("{ONLY} a"),
            format!("{ONLY} b"),
            format!("{ONLY} c"),
            String::new(),
        ];
        assert_eq!(selections(&["a", "b", "c"], Selections::Few), few);
        let more = [
            format!("{ONLY} b,c"),
            format!("{ONLY} a,c"),
            format!("{ONLY} a,b"),
            "--all-features".to_owned(),
        ];
        assert_eq!(selections(&["a", "b", "c"], Selections::Many), [&few[..], &more].concat());
    }

    #[test]
    fn the_features_of_the_facade_are_found() {
        let features = features("cloakroom").expect("cargo tree runs");
        for name in ["memory", "http", "axum", "resource"] {
            assert!(features.trim().split(',').any(|found| found == name), "{features}");
        }
    }
}
