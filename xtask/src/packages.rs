//! The published form of every crate, built by itself.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::command::{Failure, cargo, program, root, target};

/// Packs the crates, unpacks what would be published, and builds that: together, because they may not
/// be on crates.io yet.
///
/// `cargo package` would build them, too, but from a temporary registry, and cargo assumes that a
/// version in a registry never changes: it would build each crate against the others as they were
/// when they were first packed here.
pub(crate) fn check(crates: &[String]) -> Result<(), Failure> {
    let names: String = crates.iter().map(|name| format!(" --package {name}")).collect();
    cargo(&format!("package --allow-dirty --no-verify{names}")).run()?;

    let packed = target()?.join("package");
    let unpacked = packed.join("unpacked");
    start_anew(&unpacked)?;
    let version = env!("CARGO_PKG_VERSION");
    for name in crates {
        // The packed files have an old date, and cargo rebuilds only files that are newer than the build.
        program("tar")
            .arg("--extract")
            .arg("--touch")
            .arg("--file")
            .arg(packed.join(format!("{name}-{version}.crate")).display())
            .arg("--directory")
            .arg(unpacked.display())
            .run()?;
    }
    write(&unpacked.join("Cargo.toml"), &workspace(crates, version)?)?;
    let lock = root().join("Cargo.lock");
    fs::copy(&lock, unpacked.join("Cargo.lock"))
        .map_err(|error| Failure::new(format!("cannot copy `{}`: {error}", lock.display())))?;
    cargo("build --workspace")
        .arg("--manifest-path")
        .arg(unpacked.join("Cargo.toml").display())
        .arg("--target-dir")
        .arg(target()?.display())
        .run()
}

/// A workspace of the unpacked crates, which depend on each other there. It has the profiles of this
/// workspace, so that common dependencies are not compiled again.
fn workspace(crates: &[String], version: &str) -> Result<String, Failure> {
    let mut text =
        "[workspace]\nresolver = \"3\"\nmembers = [\"*-*\"]\n\n[patch.crates-io]\n".to_owned();
    for name in crates {
        let _ = writeln!(text, "{name} = {{ path = \"{name}-{version}\" }}");
    }
    let manifest = root().join("Cargo.toml");
    let manifest = fs::read_to_string(&manifest)
        .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", manifest.display())))?;
    if let Some(profiles) = manifest.find("\n[profile.") {
        text.push_str(&manifest[profiles..]);
    }
    Ok(text)
}

pub(crate) fn start_anew(directory: &Path) -> Result<(), Failure> {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(|error| {
            Failure::new(format!("cannot remove `{}`: {error}", directory.display()))
        })?;
    }
    fs::create_dir_all(directory)
        .map_err(|error| Failure::new(format!("cannot make `{}`: {error}", directory.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))
}
