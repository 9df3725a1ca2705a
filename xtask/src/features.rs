//! Features are additive: none needs or breaks another, and each crate compiles with any of them.

use crate::command::{Failure, cargo};

/// Compiles each crate with each selection of its features.
pub(crate) fn check(crates: &[String]) -> Result<(), Failure> {
    for name in crates {
        let features = features(name)?;
        let features: Vec<&str> =
            features.trim().split(',').filter(|name| !matches!(*name, "" | "default")).collect();
        if features.is_empty() {
            continue;
        }
        for selection in selections(&features) {
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

/// None, each alone, all except each, the default ones, and all. Code that needs a feature that it does not
/// name fails where only that feature is left out, however many others it needs.
fn selections(features: &[&str]) -> Vec<String> {
    let only = |features: &str| format!("--no-default-features --features {features}");
    let mut selections = vec!["--no-default-features".to_owned()];
    selections.extend(features.iter().copied().map(only));
    // With two features, all except one is the other one alone.
    for left_out in features.iter().filter(|_| features.len() > 2) {
        let others: Vec<&str> = features.iter().copied().filter(|name| name != left_out).collect();
        selections.push(only(&others.join(",")));
    }
    selections.extend([String::new(), "--all-features".to_owned()]);
    selections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_tried_alone_and_left_out() {
        const ONLY: &str = "--no-default-features --features";
        let expected = [
            "--no-default-features".to_owned(),
            format!("{ONLY} a"),
            format!("{ONLY} b"),
            format!("{ONLY} c"),
            format!("{ONLY} b,c"),
            format!("{ONLY} a,c"),
            format!("{ONLY} a,b"),
            String::new(),
            "--all-features".to_owned(),
        ];
        assert_eq!(selections(&["a", "b", "c"]), expected);
    }

    #[test]
    fn the_features_of_the_facade_are_found() {
        let features = features("cloakroom").expect("cargo tree runs");
        for name in ["memory", "http", "axum", "resource"] {
            assert!(features.trim().split(',').any(|found| found == name), "{features}");
        }
    }
}
