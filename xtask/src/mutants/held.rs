//! `docs/mutants.md`: the files in which no mutant may survive, and the exceptions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::list::Mutant;
use crate::command::{Failure, root};

pub(crate) const PATH: &str = "docs/mutants.md";

/// The files that are held, each with the mutants in it that may live.
#[derive(Debug, Default)]
pub(crate) struct Held {
    files: BTreeMap<String, BTreeSet<String>>,
}

impl Held {
    pub(crate) fn load() -> Result<Self, Failure> {
        let text = fs::read_to_string(root().join(PATH))
            .map_err(|error| Failure::new(format!("cannot read {PATH}: {error}")))?;
        Self::parse(&text)
    }

    /// Reads an item for each file, and under it one for each mutant, with the reason behind it.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        let mut last: Option<&mut BTreeSet<String>> = None;
        for line in text.lines() {
            let wrong = || Failure::new(format!("{PATH}: this cannot be read: {line}"));
            if let Some(item) = line.strip_prefix("- `") {
                let path = item.strip_suffix('`').ok_or_else(wrong)?;
                last = Some(files.entry(path.to_owned()).or_default());
            } else if let Some(item) = line.strip_prefix("  - `") {
                let (id, why) = item.split_once("`: ").ok_or_else(wrong)?;
                let file = last.as_mut().filter(|_| !why.trim().is_empty()).ok_or_else(wrong)?;
                if !file.insert(id.to_owned()) {
                    return Err(wrong());
                }
            }
        }
        Ok(Self { files })
    }

    pub(crate) fn holds(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn excuses(&self, mutant: &Mutant) -> bool {
        self.files.get(&mutant.path).is_some_and(|excused| excused.contains(&mutant.id()))
    }

    /// Excuses that are not needed: for mutants that no longer exist, or that a test detects.
    pub(crate) fn stale(
        &self,
        all: &[Mutant],
        is_detected: impl Fn(&Mutant) -> bool,
    ) -> Vec<String> {
        let needed = |path: &str, id: &str| {
            all.iter()
                .any(|mutant| mutant.path == path && mutant.id() == id && !is_detected(mutant))
        };
        let mut stale = Vec::new();
        for (path, excused) in &self.files {
            let ids = excused.iter().filter(|id| !needed(path, id));
            stale.extend(ids.map(|id| format!("{path}: {id}")));
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::super::list;
    use super::*;

    const TEXT: &str = "\
# Mutants

- An item that is something else.

- `crates/a/src/b.rs`
  - `replace || with && in c`: the second is always true
    where it is asked for.
  - `replace < with <= in c (2)`: harmless.
- `crates/a/src/d.rs`
";

    fn mutant(name: &str) -> Mutant {
        list::read(name).expect("a name").remove(0)
    }

    #[test]
    fn files_and_excuses_are_read() {
        let held = Held::parse(TEXT).expect("a list");
        for (path, is_held) in
            [("crates/a/src/b.rs", true), ("crates/a/src/d.rs", true), ("crates/a/src/e.rs", false)]
        {
            assert_eq!(held.holds(path), is_held, "{path}");
        }
        for (name, is_excused) in [
            ("crates/a/src/b.rs:1:2: replace || with && in c", true),
            ("crates/a/src/b.rs:1:2: replace < with <= in c", false),
            ("crates/a/src/d.rs:1:2: replace || with && in c", false),
        ] {
            assert_eq!(held.excuses(&mutant(name)), is_excused, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_excuse() {
        for text in [
            "- `a.rs`\n  - `replace x in y`\n",
            "- `a.rs`\n  - `replace x in y`: \n",
            "- `a.rs`\n  - `x`: one\n  - `x`: two\n",
            "  - `replace x in y`: no file\n",
            "- `a.rs: text\n",
        ] {
            Held::parse(text).expect_err(text);
        }
    }

    #[test]
    fn an_excuse_that_nobody_needs_is_stale() {
        let held = Held::parse(TEXT).expect("a list");
        let all = list::read(
            "crates/a/src/b.rs:1:2: replace || with && in c\n\
             crates/a/src/b.rs:1:2: replace < with <= in c\n",
        )
        .expect("names");
        let gone = "crates/a/src/b.rs: replace < with <= in c (2)";
        assert_eq!(held.stale(&all, |_| false), [gone]);
        let detected = "crates/a/src/b.rs: replace || with && in c";
        assert_eq!(held.stale(&all, |_| true), [gone, detected]);
    }

    #[test]
    fn the_list_itself_can_be_read() {
        let held = Held::load().expect("a list");
        for path in held.files.keys() {
            assert!(root().join(path).is_file(), "{path} is not there");
        }
    }
}
