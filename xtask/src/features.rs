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

/// None, each alone, every two together, the default ones, and all. A failure with three but with
/// no two of them is not worth 2ⁿ runs.
fn selections(features: &[&str]) -> Vec<String> {
    let only = |features: &str| format!("--no-default-features --features {features}");
    let mut selections = vec!["--no-default-features".to_owned()];
    for (index, one) in features.iter().enumerate() {
        selections.push(only(one));
        selections.extend(features[..index].iter().map(|other| only(&format!("{other},{one}"))));
    }
    selections.extend([String::new(), "--all-features".to_owned()]);
    selections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_features_are_tried() {
        const ONLY: &str = "--no-default-features --features";
        let expected = [
            "--no-default-features".to_owned(),
            format!("{ONLY} a"),
            format!("{ONLY} b"),
            format!("{ONLY} a,b"),
            format!("{ONLY} c"),
            format!("{ONLY} a,c"),
            format!("{ONLY} b,c"),
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
