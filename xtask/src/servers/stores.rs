//! With which server each store is tested.

use std::fmt::{self, Display};

use self::Place::{Server, With};

/// Each store, where its tests keep their data, and the crate that these tests are in.
const STORES: [(&str, Place, Option<&str>); 5] = [
    ("memory", With("in process"), Some("cloakroom-memory")),
    ("sqlite", With("files in a temporary folder"), Some("cloakroom-sqlite")),
    ("postgres", Server, Some("cloakroom-postgres")),
    ("mysql", Server, Some("cloakroom-mysql")),
    ("redis", Server, Some("cloakroom-redis")),
];

/// Where a store keeps its data.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the process or in files: always available.
    With(&'static str),
    /// In the server of this name.
    Server,
}

const LEFT_OUT: [&str; 2] = ["left out by request", "none"];

/// How each store was tested, as a table.
#[derive(Debug)]
pub(crate) struct Summary {
    rows: Vec<[String; 3]>,
}

impl Summary {
    /// Of a run with these servers, each with what it is. With none, a run was asked to do without.
    pub(super) fn new(servers: &[(&str, String)]) -> Self {
        let mut rows = vec![row("store", ["where", "tests"])];
        for (store, place, tests) in STORES {
            let server = servers.iter().find(|(name, _)| *name == store);
            let tests = tests.unwrap_or("it answers; no store uses it yet");
            rows.push(match (place, server) {
                (With(what), _) => row(store, [what, tests]),
                (Server, Some((_, what))) => row(store, [what, tests]),
                (Server, None) => row(store, LEFT_OUT),
            });
        }
        for (program, tests) in [("(nginx)", "cloakroom"), ("(chromium)", "cloakroom-examples")] {
            let started = ["started by its tests", tests];
            rows.push(row(program, if servers.is_empty() { LEFT_OUT } else { started }));
        }
        Self { rows }
    }
}

fn row(store: &str, rest: [&str; 2]) -> [String; 3] {
    [store, rest[0], rest[1]].map(ToOwned::to_owned)
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (first, second) = (width(0), width(1));
        for [store, place, tests] in &self.rows {
            writeln!(f, "{store:<first$}  {place:<second$}  {tests}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::engine::ENGINES;
    use crate::{ci, tree};

    #[test]
    fn every_store_of_the_workspace_and_every_server_has_a_row() {
        let mut listed: Vec<&str> = STORES.iter().filter_map(|(_, _, tests)| *tests).collect();
        listed.sort_unstable();
        let mut crates = ci::crates().expect("the directory is readable");
        crates.retain(|name| tree::is_store(name) && name != "cloakroom-conformance");
        assert_eq!(listed, crates);

        let served = STORES.iter().filter(|(_, place, _)| matches!(place, Server));
        let served: Vec<&str> = served.map(|(store, _, _)| *store).collect();
        assert_eq!(served, ENGINES.map(|engine| engine.facts().name));
    }

    #[test]
    fn the_table_says_where_each_store_was_tested() {
        let servers = [("redis", "private Redis 7.0.15".to_owned())];
        let table = Summary::new(&servers).to_string();
        let line = |name| {
            let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("memory"), "memory in process cloakroom-memory");
        assert_eq!(line("redis"), "redis private Redis 7.0.15 cloakroom-redis");
        assert_eq!(line("mysql"), "mysql left out by request none");
    }
}
