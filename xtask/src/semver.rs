//! `cargo xtask semver`: whether the version says how much of the public API has changed since the
//! newest release.

use crate::command::{Failure, cargo, program};
use crate::tools;

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
    // Compares the published crates of the workspace with those of the tag, both from git.
    cargo("semver-checks --workspace --all-features --baseline-rev").arg(release).run()
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
    fn only_tags_that_name_a_version_are_releases() {
        assert_eq!(newest("vendor\nv0.10.0\nv0.9.1\n"), Some("v0.10.0"));
        assert_eq!(newest("nightly\nv-next\n"), None);
        assert_eq!(newest(""), None);
    }
}
