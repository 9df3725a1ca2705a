//! The servers that tests need: those that the environment names, or private ones. The run creates a
//! database in each.
//!
//! Each has a keeper, a process that cleans up whatever happens to xtask. The tests get the same
//! variables that a developer may set.

mod cluster;
mod engine;
mod install;
mod keeper;
mod mysql;
mod postgres;
mod private;
mod redis;
mod stores;
mod url;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

pub(crate) use self::cluster::Cluster;
pub(crate) use self::engine::find;
use self::engine::{ENGINES, Engine, Purpose};
pub(crate) use self::install::{install_missing, install_redis};
use self::keeper::{Keeper, Kept};
pub(crate) use self::stores::Summary;
pub(crate) use self::url::Url;
use crate::command::{Cmd, Failure};

/// The tests that start nginx.
const NGINX_TESTS: &str = "http::nginx::";

/// The test that starts Chromium.
const BROWSER_TESTS: &str = "with_chromium::";

/// The tests that only `cargo xtask failover` runs.
const CLUSTER_TESTS: [&str; 4] = [
    "with_patroni::",
    "with_mariadb::",
    "failover::with_redis::a_",
    "failover::with_redis::moving_",
];

/// Keeps servers, if xtask was started for that.
pub(crate) fn run_keeper() -> Option<ExitCode> {
    keeper::run().or_else(cluster::run_keeper)
}

/// The servers of a run. Dropping this ends them.
#[derive(Debug)]
pub(crate) struct Servers {
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    engine: &'static dyn Engine,
    keeper: Keeper,
    kept: Kept,
    is_given: bool,
}

impl Servers {
    /// Finds or starts one of each, all at the same time; installs what is missing.
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut wanted = Vec::new();
        for engine in ENGINES {
            wanted.push((engine, keeper::given(engine)?));
        }
        let needs: Vec<(&dyn Engine, bool)> =
            wanted.iter().map(|(engine, given)| (*engine, given.is_some())).collect();
        install::install(&needs)?;
        Self::keep(&wanted, Purpose::Tests)
    }

    /// This one alone, for benchmarks: a private one is as durable as with the settings of its makers.
    pub(crate) fn durable(name: &str) -> Result<Self, Failure> {
        let engine = engine::named(name).ok_or_else(|| Failure::new("no such server"))?;
        let given = keeper::given(engine)?;
        if given.is_none() {
            install::install_server(engine)?;
        }
        Self::keep(&[(engine, given)], Purpose::Benchmarks)
    }

    fn keep(
        wanted: &[(&'static dyn Engine, Option<Url>)],
        purpose: Purpose,
    ) -> Result<Self, Failure> {
        let mut keepers = Vec::new();
        for (engine, given) in wanted {
            let keeper = Keeper::start(*engine, given.as_ref(), purpose)?;
            keepers.push((*engine, keeper, given.is_some()));
        }
        let mut running = Vec::new();
        for (engine, mut keeper, is_given) in keepers {
            let kept = keeper.ready()?;
            let one = Running { engine, keeper, kept, is_given };
            println!("{engine:?}: {}", one.what());
            running.push(one);
        }
        Ok(Self { running })
    }

    /// None: for tests that need no server.
    pub(crate) fn none() -> Self {
        Self { running: Vec::new() }
    }

    /// Passes the URLs of the servers to the tests, and leaves out tests without a server.
    pub(crate) fn tell(&self, tests: Cmd) -> Cmd {
        let tests = self.name_to(tests);
        let left_out = self.left_out().into_iter().chain(CLUSTER_TESTS.map(ToOwned::to_owned));
        left_out.fold(tests.arg("--"), |tests, name| tests.arg("--skip").arg(name))
    }

    /// Passes the URLs of the servers.
    pub(crate) fn name_to(&self, mut command: Cmd) -> Cmd {
        for Running { engine, kept, .. } in &self.running {
            command = command.secret(engine.facts().variable, &kept.url);
        }
        command
    }

    fn left_out(&self) -> Vec<String> {
        if self.running.is_empty() {
            let names = ENGINES.map(|engine| engine.facts().tests);
            return names
                .into_iter()
                .chain([NGINX_TESTS, BROWSER_TESTS])
                .map(ToOwned::to_owned)
                .collect();
        }
        let untried = self.running.iter().filter(|one| !one.can_be_private());
        untried.map(|one| format!("servers::tests::{}", one.engine.facts().tests)).collect()
    }

    /// How each store is tested.
    pub(crate) fn summary(&self) -> Summary {
        let servers = self.running.iter().map(|one| (one.engine.facts().name, one.what()));
        Summary::new(&servers.collect::<Vec<_>>())
    }

    /// Removes the databases, and ends what was started.
    pub(crate) fn end(self) -> Result<(), Failure> {
        let failed: Vec<String> = self
            .running
            .into_iter()
            .filter_map(|one| one.keeper.end().err())
            .map(|failure| failure.to_string())
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(Failure::new(failed.join("\n"))) }
    }
}

impl Running {
    fn what(&self) -> String {
        let Kept { version, url } = &self.kept;
        if !self.is_given {
            return format!("private {version}");
        }
        let untried = if self.can_be_private() { "" } else { "; no private one was tried" };
        format!("given {version}, {url}{untried}")
    }

    /// Whether a test that starts one can run here.
    fn can_be_private(&self) -> bool {
        self.engine.server().is_some()
    }
}
