//! `cargo xtask semver`: whether the version says how much of the public API has changed since the
//! newest release.

use crate::command::{Failure, cargo, program};
use crate::{ci, tools};

/// # Errors
///
/// A change needs a higher version than `Cargo.toml` has, or there is no release to compare with.
pub(crate) fn task() -> Result<(), Failure> {
    let tags = program("git")
        .arg("tag")
        .arg("--list")
        .arg("--merged=HEAD")
        .arg("--sort=-version:refname")
        .output()?;
    let release = newest(&tags).ok_or_else(|| {
        Failure::new("there is no release to compare with: no tag such as `v0.1.0` leads to here")
    })?;
    tools::install("semver-checks", "0.51.0")?;
    let released = program("git")
        .arg("ls-tree")
        .arg("-d")
        .arg("--name-only")
        .arg(release)
        .arg("crates/")
        .output()?;
    let packages = packages(&ci::libraries()?, &released);
    cargo(&format!("semver-checks{packages} --all-features --baseline-rev")).arg(release).run()
}

/// Options for the crates that were part of the release. A new one has nothing to be compared with.
fn packages(crates: &[String], released: &str) -> String {
    let was_there = |name: &str| {
        released.lines().any(|path| path.strip_prefix("crates/").is_some_and(|it| it == name))
    };
    let old = crates.iter().filter(|name| was_there(name));
    old.map(|name| format!(" --package {name}")).collect()
}

/// The first tag that names a version. The tags come newest first.
fn newest(tags: &str) -> Option<&str> {
    tags.lines().find(|tag| {
        tag.strip_prefix('v')
            .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_new_is_not_compared() {
        let crates = ["a", "a-b", "new"].map(ToOwned::to_owned);
        assert_eq!(
            packages(&crates, "crates/a\ncrates/a-b\ncrates/gone\n"),
            " --package a --package a-b"
        );
    }

    #[test]
    fn only_tags_that_name_a_version_are_releases() {
        assert_eq!(newest("vendor\nv0.10.0\nv0.9.1\n"), Some("v0.10.0"));
        assert_eq!(newest("nightly\nv-next\n"), None);
        assert_eq!(newest(""), None);
    }
}
