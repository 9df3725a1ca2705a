//! `docs/public-api`: the public API of each crate, in a file, so that a change shows in review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::command::{Failure, cargo, root, target};
use crate::{ci, stand_in};

/// `cargo xtask api`: writes the files again.
pub(crate) fn task() -> Result<(), Failure> {
    let directory = directory();
    let unwritable =
        |error: io::Error| Failure::new(format!("cannot write {}: {error}", directory.display()));
    let listings = listings()?;
    for stale in kept()?.keys().filter(|name| !listings.contains_key(*name)) {
        fs::remove_file(directory.join(stale)).map_err(unwritable)?;
    }
    fs::create_dir_all(&directory).map_err(unwritable)?;
    for (name, listing) in listings {
        fs::write(directory.join(name), listing).map_err(unwritable)?;
    }
    Ok(())
}

/// Compares the files with the code.
pub(crate) fn check() -> Result<(), Failure> {
    let difference = difference(&kept()?, &listings()?);
    if difference.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "docs/public-api differs from the crates:\n\n{difference}\n\
         if you mean the change, run `cargo xtask api` and commit what it writes"
    )))
}

/// The text of each file, by its name.
type Listings = BTreeMap<String, String>;

fn directory() -> PathBuf {
    root().join("docs/public-api")
}

fn kept() -> Result<Listings, Failure> {
    let directory = directory();
    let unreadable =
        |error: io::Error| Failure::new(format!("cannot read {}: {error}", directory.display()));
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listings::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut kept = Listings::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let text = fs::read_to_string(entry.path()).map_err(unreadable)?;
        kept.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    Ok(kept)
}

/// Runs rustdoc with JSON output, in one call and with the features of `cargo doc`, so that no
/// dependency is checked twice.
fn listings() -> Result<Listings, Failure> {
    let document = cargo("doc --workspace --no-deps --all-features --quiet")
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    stand_in::unlocks_rustdoc(document)?.run()?;

    let target = target()?;
    let lister = cargo("run --quiet --locked --manifest-path xtask/public-api/Cargo.toml")
        .arg("--target-dir")
        .arg(target.join("public-api").display())
        .arg("--");
    let listing = |name: String| {
        let json = target.join("doc").join(format!("{}.json", name.replace('-', "_")));
        Ok((format!("{name}.txt"), lister.clone().arg(json.display()).output()?))
    };
    ci::libraries()?.into_iter().map(listing).collect()
}

/// Lines that are only in one of them: `-` for the file, `+` for the code.
fn difference(kept: &Listings, now: &Listings) -> String {
    let names: BTreeSet<&String> = kept.keys().chain(now.keys()).collect();
    let mut difference = String::new();
    for name in names.into_iter().filter(|name| kept.get(*name) != now.get(*name)) {
        let mut lines = BTreeMap::<&str, i32>::new();
        for (text, step) in [(kept.get(name), -1), (now.get(name), 1)] {
            for line in text.into_iter().flat_map(|text| text.lines()) {
                *lines.entry(line).or_default() += step;
            }
        }
        difference += &format!("{name}\n");
        for (line, surplus) in lines.into_iter().filter(|(_, surplus)| *surplus != 0) {
            difference += &format!("{}{line}\n", if surplus < 0 { '-' } else { '+' });
        }
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listings(texts: &[(&str, &str)]) -> Listings {
        texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_was_added_removed_or_changed_is_shown() {
        let kept =
            listings(&[("a.txt", "fn x\nfn y()\n"), ("b.txt", "fn b\n"), ("c.txt", "fn c\n")]);
        let now =
            listings(&[("a.txt", "fn x\nfn y(u8)\n"), ("b.txt", "fn b\n"), ("d.txt", "fn d\n")]);
        assert_eq!(difference(&kept, &kept), "");
        assert_eq!(
            difference(&kept, &now),
            "a.txt\n-fn y()\n+fn y(u8)\nc.txt\n-fn c\nd.txt\n+fn d\n"
        );
    }

    #[test]
    fn another_order_is_a_change() {
        let (kept, now) = (listings(&[("a.txt", "x\ny\n")]), listings(&[("a.txt", "y\nx\n")]));
        assert_eq!(difference(&kept, &now), "a.txt\n");
    }
}
