//! The published form of every crate, built by itself.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::command::{Failure, cargo, program, root, target};

/// Packs the crates, unpacks what would be published, and builds that: together, as none of them
/// need be on crates.io yet.
///
/// `cargo package` would build them, too, but from a registry made for the occasion, and cargo takes
/// it that what has a registry's name and version never changes: it would build each crate against
/// the others as they were when they were packed here for the first time.
pub(crate) fn check(crates: &[String]) -> Result<(), Failure> {
    let names: String = crates.iter().map(|name| format!(" --package {name}")).collect();
    cargo(&format!("package --allow-dirty --no-verify{names}")).run()?;

    let packed = target()?.join("package");
    let unpacked = packed.join("unpacked");
    start_anew(&unpacked)?;
    let version = env!("CARGO_PKG_VERSION");
    for name in crates {
        // The packed files are dated years ago, and cargo builds only what is newer than its build.
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

/// A workspace of the unpacked crates, each of which finds the others there, with the profiles of
/// this one, so that what both depend on is not compiled again.
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
