//! The list of mutants, and their names.

use std::collections::HashMap;
use std::fmt::{self, Display};

use crate::command::Failure;

/// One change to the code, as cargo-mutants names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// The file, from the root of the workspace.
    pub(crate) path: String,
    /// `line:column`.
    position: String,
    /// Such as `replace < with <= in is_active`.
    what: String,
    /// Its number among those in its file with the same text, from 1.
    nth: usize,
}

impl Mutant {
    /// Its name for cargo-mutants, which changes when a line is added above it.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}: {}", self.path, self.position, self.what)
    }

    /// Its name for `docs/mutants.md`, which does not depend on other lines of the file.
    pub(crate) fn id(&self) -> String {
        match self.nth {
            1 => self.what.clone(),
            nth => format!("{} ({nth})", self.what),
        }
    }

    /// Its rank in a sample: arbitrary, but always the same.
    pub(crate) fn rank(&self) -> u64 {
        // FNV-1a.
        let text = format!("{}: {}", self.path, self.id());
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

impl Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Reads the list of all mutants in some files: a name on each line.
pub(crate) fn read(list: &str) -> Result<Vec<Mutant>, Failure> {
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    list.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (path, position, what) = split(line)
                .ok_or_else(|| Failure::new(format!("this is not the name of a mutant: {line}")))?;
            let nth = seen.entry((path.to_owned(), what.to_owned())).or_default();
            *nth += 1;
            let (path, position, what) = (path.to_owned(), position.to_owned(), what.to_owned());
            Ok(Mutant { path, position, what, nth: *nth })
        })
        .collect()
}

/// Splits `<path>:<line>:<column>: <what>`.
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let (place, what) = name.split_once(": ")?;
    let (path, position) = place.split_once(':')?;
    Some((path, position, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_name_are_found() {
        let mutants = read(
            "crates/cloakroom-core/src/judge.rs:7:5: replace judge -> Option<a::B> with None\n\
             crates/cloakroom-core/src/judge.rs:8:9: replace < with == in judge\n\
             crates/cloakroom-core/src/judge.rs:8:19: replace < with == in judge\n",
        );
        let mutants = mutants.expect("names");
        assert_eq!(mutants[0].path, "crates/cloakroom-core/src/judge.rs");
        let ids: Vec<String> = mutants.iter().map(Mutant::id).collect();
        assert_eq!(
            ids,
            [
                "replace judge -> Option<a::B> with None",
                "replace < with == in judge",
                "replace < with == in judge (2)",
            ]
        );
        assert_eq!(
            mutants[2].name(),
            "crates/cloakroom-core/src/judge.rs:8:19: replace < with == in judge"
        );
        read("Found 3 mutants\n").expect_err("not a name");
    }

    #[test]
    fn the_rank_depends_on_what_is_changed_and_not_on_where() {
        let rank = |name: &str| read(name).expect("a name")[0].rank();
        let one = rank("crates/a/src/b.rs:8:9: replace < with == in c");
        assert_eq!(one, rank("crates/a/src/b.rs:9:1: replace < with == in c"));
        assert_ne!(one, rank("crates/a/src/b.rs:8:9: replace < with == in d"));
        assert_ne!(one, rank("crates/a/src/c.rs:8:9: replace < with == in c"));
    }
}
