//! Checks that every [`SingleUseStore`] must pass.
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use cloakroom_conformance::single_use::{self, SingleUseDatabase, SingleUseFactory};
//! use cloakroom_core::store::SingleUseStore;
//! use cloakroom_memory::MemorySingleUse;
//!
//! #[derive(Debug)]
//! struct Memory;
//!
//! #[async_trait]
//! impl SingleUseFactory for Memory {
//!     async fn database(&self) -> Arc<dyn SingleUseDatabase> {
//!         Arc::new(Database(MemorySingleUse::new())) // fresh and empty at every call
//!     }
//! }
//!
//! #[derive(Debug)]
//! struct Database(MemorySingleUse);
//!
//! #[async_trait]
//! impl SingleUseDatabase for Database {
//!     async fn open(&self) -> Arc<dyn SingleUseStore> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() {
//! single_use::run_all(Memory).await.assert_ok();
//! # }
//! ```
//!
//! Run it on a multi-threaded tokio runtime with its timer: races need threads.
//!
//! If several programs share your store, also race it from several processes. Use [`contend`] and
//! [`judge`] like those of [`processes`](crate::processes), with the same
//! [`Plan`](crate::processes::Plan).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::store::SingleUseStore;

use crate::Ran;
use crate::promises::Promise;
use crate::report::{self, CheckFuture, Failure, Report};
use crate::story::{Story, Told};

pub use crate::checks::single_use::processes::{Outcome, contend, judge};

/// Makes the databases that the kit checks. Put [`#[async_trait]`](cloakroom_core::async_trait) on your
/// `impl`.
#[async_trait]
pub trait SingleUseFactory: fmt::Debug + Send + Sync + 'static {
    /// A new, empty database that shares nothing with any other.
    async fn database(&self) -> Arc<dyn SingleUseDatabase>;

    /// A new database that holds at most this many items; `None` if the store has no such bound.
    async fn bounded(&self, _items: usize) -> Option<Arc<dyn SingleUseDatabase>> {
        None
    }
}

/// A database of single-use items.
#[async_trait]
pub trait SingleUseDatabase: fmt::Debug + Send + Sync + 'static {
    /// A store on this database. Each call opens another node. If the earlier stores have been
    /// dropped, the call stands for a restart.
    async fn open(&self) -> Arc<dyn SingleUseStore>;

    /// How many items are stored, over or not; `None` if the database cannot tell.
    async fn count(&self) -> Option<u64> {
        None
    }
}

/// One check of a single-use store.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, as `topic::module::function`: the path of its file below `checks/`.
    pub name: &'static str,
    /// The promise that it checks.
    pub promise: Promise,
    pub(crate) run: fn(Trial) -> CheckFuture,
}

impl Check {
    /// Runs only this check.
    ///
    /// # Errors
    ///
    /// If the store breaks the promise, fails, panics, or does not answer for two minutes.
    pub async fn run(&self, factory: Arc<dyn SingleUseFactory>) -> Result<Ran, Failure> {
        let trial = Trial { factory, story: Story::default() };
        let story = trial.story.clone();
        report::tried(self.name, self.promise, &story, (self.run)(trial)).await
    }
}

/// Every check of a single-use store, in order.
#[must_use]
pub fn checks() -> Vec<Check> {
    crate::checks::single_use::all()
}

/// Runs every check, each on its own databases.
pub async fn run_all(factory: impl SingleUseFactory) -> Report {
    run(&checks(), Arc::new(factory)).await
}

/// Runs these checks.
pub async fn run(checks: &[Check], factory: Arc<dyn SingleUseFactory>) -> Report {
    let mut report = Report::default();
    for check in checks {
        report.enter(check.name, check.run(Arc::clone(&factory)).await);
    }
    report
}

/// The databases of one check. It records their operations for the report.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    factory: Arc<dyn SingleUseFactory>,
    story: Story,
}

impl Trial {
    pub(crate) async fn database(&self) -> Tried {
        Tried { database: self.factory.database().await, story: self.story.clone() }
    }

    pub(crate) async fn bounded(&self, items: usize) -> Option<Tried> {
        let database = self.factory.bounded(items).await?;
        Some(Tried { database, story: self.story.clone() })
    }

    /// A store on a new, empty database.
    pub(crate) async fn store(&self) -> Arc<dyn SingleUseStore> {
        self.database().await.open().await
    }
}

impl From<&Trial> for Story {
    fn from(trial: &Trial) -> Self {
        trial.story.clone()
    }
}

/// A database whose stores record their operations.
#[derive(Debug)]
pub(crate) struct Tried {
    database: Arc<dyn SingleUseDatabase>,
    story: Story,
}

impl Tried {
    pub(crate) async fn open(&self) -> Arc<dyn SingleUseStore> {
        Arc::new(Told { story: self.story.clone(), inner: self.database.open().await })
    }

    pub(crate) async fn count(&self) -> Option<u64> {
        self.database.count().await
    }
}
