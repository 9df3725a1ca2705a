//! Checks on the dependency tree which crate depends on which.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Failure, cargo};

/// The crates from the bottom up; a crate may use only crates on a lower floor.
const FLOORS: &[(&str, u8)] = &[
    ("cloakroom-cli", TOOL),
    ("cloakroom", FACADE),
    ("cloakroom-resource", 4),
    ("cloakroom-jwt", 3),
    ("cloakroom-conformance", STORES),
    ("cloakroom-memory", STORES),
    ("cloakroom-postgres", STORES),
    ("cloakroom-mysql", STORES),
    ("cloakroom-redis", STORES),
    ("cloakroom-sqlite", STORES),
    ("cloakroom-core", 1),
];

/// The operator's tool, which reaches the stores through the facade.
const TOOL: u8 = 6;

/// Only this floor knows a store.
const FACADE: u8 = 5;

/// The stores, and the kit that they pass: of our crates, these use the core only.
const STORES: u8 = 2;

const CORE: &str = "cloakroom-core";

/// The core does no I/O and runs on every runtime.
const RUNTIMES_AND_IO: &[&str] = &[
    "async-io",
    "async-std",
    "aws-lc-sys",
    "axum",
    "glommio",
    "h2",
    "hyper",
    "mio",
    "monoio",
    "polling",
    "quinn",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "ureq",
];

/// Crates that only a store needs.
const DRIVERS: &[&str] = &[
    "diesel",
    "fred",
    "libsqlite3-sys",
    "mysql",
    "mysql_async",
    "postgres",
    "redis",
    "rusqlite",
    "sqlx",
    "sqlx-core",
    "tokio-postgres",
];

/// The names of all packages in a tree, its root among them.
type Names = BTreeSet<String>;

/// Asks `cargo tree`, crate by crate: in one tree of all, features of one would show up in another.
pub(crate) fn check(crates: &[String]) -> Result<(), Failure> {
    const TREE: &str = "tree --all-features --target all --prefix none --format {p}";
    let mut trees = BTreeMap::new();
    for name in crates {
        let tree = cargo(&format!("{TREE} --edges normal,build --package {name}")).output()?;
        trees.insert(name.clone(), names(&tree));
    }
    let violations = violations(&trees);
    if violations.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("the dependency tree is wrong:\n  {}", violations.join("\n  "))))
}

/// Reads lines such as `serde v1.0.0 (proc-macro) (*)`.
fn names(tree: &str) -> Names {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect()
}

fn violations(trees: &BTreeMap<String, Names>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, _) in FLOORS {
        if !trees.contains_key(*name) {
            found.push(format!("{name} has a floor, but is not there"));
        }
    }
    for (name, uses) in trees {
        match floor(name) {
            Some(own) => crate_violations(name, own, uses, &mut found),
            None => found.push(format!("{name} has no floor: give it one in xtask")),
        }
    }
    found
}

fn crate_violations(name: &str, own: u8, uses: &Names, found: &mut Vec<String>) {
    for (other, floor) in FLOORS.iter().filter(|(other, _)| *other != name && uses.contains(*other))
    {
        if *floor >= own {
            found.push(format!("{name} (floor {own}) uses {other} (floor {floor})"));
        } else if *floor == STORES && own < FACADE {
            found.push(format!("{name} uses the store {other}: only the facade may"));
        }
    }
    let mut forbid = |packages: &[&str], why: &str| {
        for package in packages.iter().filter(|package| uses.contains(**package)) {
            found.push(format!("{name} uses {package}: {why}"));
        }
    };
    if name == CORE {
        forbid(RUNTIMES_AND_IO, "the core has no I/O and no runtime");
    }
    if own != STORES && own < FACADE {
        forbid(DRIVERS, "only a store has a driver");
    }
}

/// Whether the crate is a store, or the kit that they pass.
#[cfg(test)]
pub(crate) fn is_store(name: &str) -> bool {
    floor(name) == Some(STORES)
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree of every crate, each with nothing of ours but the core, as `cargo tree` prints it.
    fn good() -> BTreeMap<String, Names> {
        let tree = |name: &str| {
            let text = format!(
                "{name} v0.1.0 (/cloakroom/crates/{name})\n\
                 cloakroom-core v0.1.0 (/cloakroom/crates/cloakroom-core)\n\
                 serde_derive v1.0.0 (proc-macro)\n\
                 sha2 v0.11.0 (*)\n"
            );
            (name.to_owned(), names(&text))
        };
        FLOORS.iter().map(|(name, _)| tree(name)).collect()
    }

    /// What is found when `name` also uses `other`.
    fn found_with(name: &str, other: &str) -> Vec<String> {
        let mut trees = good();
        trees.get_mut(name).expect("a known crate").insert(other.to_owned());
        violations(&trees)
    }

    #[test]
    fn names_are_the_first_words() {
        let tree = "a v0.1.0 (/x)\nb-c v1.2.3 (proc-macro) (*)\n\nd v2.0.0\n";
        assert_eq!(names(tree), Names::from(["a", "b-c", "d"].map(ToOwned::to_owned)));
    }

    #[test]
    fn a_good_tree_passes() {
        let none: &[String] = &[];
        assert_eq!(violations(&good()), none);
        assert_eq!(found_with("cloakroom", "cloakroom-memory"), none);
        assert_eq!(found_with("cloakroom-cli", "cloakroom-sqlite"), none);
        assert_eq!(found_with("cloakroom-resource", "cloakroom-jwt"), none);
        assert_eq!(found_with("cloakroom-resource", "tokio"), none);
        assert_eq!(found_with("cloakroom-memory", "rusqlite"), none);
    }

    #[test]
    fn no_crate_uses_its_own_floor_or_a_higher_one() {
        for (name, other) in [
            ("cloakroom-core", "cloakroom-jwt"),
            ("cloakroom-memory", "cloakroom-jwt"),
            ("cloakroom-memory", "cloakroom"),
            ("cloakroom-jwt", "cloakroom-resource"),
            ("cloakroom-resource", "cloakroom"),
            ("cloakroom", "cloakroom-cli"),
        ] {
            let found = found_with(name, other);
            assert!(matches!(&found[..], [one] if one.contains(other)), "{name}: {found:?}");
        }
    }

    #[test]
    fn only_the_facade_uses_a_store() {
        for name in ["cloakroom-jwt", "cloakroom-resource"] {
            let found = found_with(name, "cloakroom-memory");
            assert!(matches!(&found[..], [one] if one.contains("only the facade")), "{found:?}");
        }
    }

    #[test]
    fn the_core_has_no_runtime() {
        for package in ["tokio", "hyper", "mio"] {
            assert_eq!(found_with("cloakroom-core", package).len(), 1, "{package}");
        }
    }

    #[test]
    fn only_a_store_has_a_driver() {
        for name in ["cloakroom-core", "cloakroom-jwt", "cloakroom-resource"] {
            for package in ["sqlx-core", "redis", "rusqlite"] {
                assert_eq!(found_with(name, package).len(), 1, "{name} {package}");
            }
        }
    }

    #[test]
    fn every_crate_has_a_floor_and_every_floor_a_crate() {
        let mut trees = good();
        trees.insert("cloakroom-new".to_owned(), Names::new());
        trees.remove("cloakroom-jwt");
        let found = violations(&trees);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
