//! The conformance kit of **cloakroom**: tests that every [`TokenStore`] and [`KeyStore`] must pass.
//!
//! The kit checks each promise of the contract: with single calls, under races, with dropped
//! futures, and against a model. If a store breaks a promise, the report names the promise, says
//! what happened, and lists the operations that led to it.
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use cloakroom_conformance::{Factory, run_all};
//! use cloakroom_core::keys::KeyStore;
//! use cloakroom_core::store::TokenStore;
//! use cloakroom_memory::MemoryStore;
//!
//! #[derive(Debug)]
//! struct Memory;
//!
//! #[async_trait]
//! impl Factory for Memory {
//!     async fn tokens(&self) -> Arc<dyn TokenStore> {
//!         Arc::new(MemoryStore::new()) // fresh and empty at every call
//!     }
//!
//!     async fn keys(&self) -> Arc<dyn KeyStore> {
//!         Arc::new(MemoryStore::new())
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() {
//! run_all(Memory).await.assert_ok();
//! # }
//! ```
//!
//! Run it on a multi-threaded tokio runtime with its timer: races need threads. The crate has no features.
//!
//! # What it checks
//!
//! | topic | what | needs |
//! |---|---|---|
//! | the contract | each method alone: what it writes, refuses, lists, keeps and deletes | – |
//! | races | two calls in every order of their awaits, and many tasks at once | – |
//! | the log | cursors, gaps, wake-ups, and order under concurrent writers | – |
//! | dropped futures | each method, dropped at each await | – |
//! | a model | random sequences, compared with a small model of the contract | – |
//! | large numbers | thousands of grants, tokens, rules and entries | – |
//! | instances | one sees what the other has acknowledged; races through both | [`Database::another`] |
//! | a restart | what was acknowledged is there, and numbers such as bounds and generations continue | [`Database::restart`] |
//! | failures | each is an error, and nothing is half done | [`Database::fail`] |
//! | damage | a row that cannot be read affects no other row | [`Database::damage`] |
//!
//! The last four need a [`Database`], which [`Factory::database`] returns and which may support
//! only a part of them. [`Report::not_run`] names the checks that were not run, and what they need.
//!
//! If the contract leaves a choice, the kit accepts every variant: bounds with gaps, a newest bound
//! that is raised at any time, any content of cursors, sweeps that are left to `maintain`, short
//! batches and pages, and a `maintain` that asks to be called again.
//!
//! The random sequences of the model are the same in every run. The numbers
//! `CLOAKROOM_CONFORMANCE_SEED` and `CLOAKROOM_CONFORMANCE_CASES` in the environment select other
//! sequences, or more of them. If several programs share your store, also race it from several
//! [`processes`].
//!
//! [`single_use`] has the checks of a [`SingleUseStore`](cloakroom_core::store::SingleUseStore),
//! which can be a different store from that of the tokens.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod ask;
mod checks;
mod context;
mod database;
mod fixtures;
mod pace;
mod promises;
mod reading;
mod report;
mod sight;
pub mod single_use;
mod story;

use std::fmt;
use std::sync::Arc;

use cloakroom_core::MAX_ID_BYTES;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::{CheckValue, TokenStore};

/// For implementations of [`Factory`] and [`Database`].
pub use cloakroom_core::async_trait;

pub use checks::processes;
pub use context::Context;
pub use database::{Database, Failing, Instance};
pub use promises::Promise;
pub use report::{Failure, NotRun, Report};

/// Makes the stores that the kit checks. Put [`#[async_trait]`](cloakroom_core::async_trait) on your `impl`.
#[async_trait]
pub trait Factory: fmt::Debug + Send + Sync + 'static {
    /// A new, empty token store that shares nothing with any other.
    async fn tokens(&self) -> Arc<dyn TokenStore>;

    /// A new, empty key store that shares nothing with any other.
    async fn keys(&self) -> Arc<dyn KeyStore>;

    /// The largest size of an identifier, in bytes: [`MAX_ID_BYTES`], unless the stores add a
    /// prefix, as [`TenantStore`](cloakroom_core::store::TenantStore) does.
    fn max_id_bytes(&self) -> usize {
        MAX_ID_BYTES
    }

    /// The largest size of the name of a check value, in bytes: [`CheckValue::MAX_NAME_BYTES`],
    /// unless the stores add a prefix.
    fn max_name_bytes(&self) -> usize {
        CheckValue::MAX_NAME_BYTES
    }

    /// A new, empty database for checks that need more than one store: a second instance, a restart or
    /// failures. `None` skips these checks.
    async fn database(&self) -> Option<Arc<dyn Database>> {
        None
    }
}

/// One check of the kit.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, as `topic::module::function`: the path of its file below `checks/`.
    pub name: &'static str,
    /// The promise that it checks.
    pub promise: Promise,
    run: fn(Context) -> report::CheckFuture,
}

impl Check {
    /// Runs only this check.
    ///
    /// # Errors
    ///
    /// If the store breaks the promise, fails, panics, or does not answer for two minutes.
    pub async fn run(&self, factory: Arc<dyn Factory>) -> Result<Ran, Failure> {
        let context = Context::new(factory);
        let story = context.story();
        report::tried(self.name, self.promise, &story, (self.run)(context)).await
    }
}

/// The result of a check that found nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ran {
    /// The check passed.
    Passed,
    /// The check was not run, since the factory does not support the named feature.
    NotOffered(&'static str),
}

/// Every check of the kit, in order.
#[must_use]
pub fn checks() -> Vec<Check> {
    checks::all()
}

/// Runs every check, each on its own stores.
pub async fn run_all(factory: impl Factory) -> Report {
    run(&checks(), Arc::new(factory)).await
}

/// Runs these checks.
pub async fn run(checks: &[Check], factory: Arc<dyn Factory>) -> Report {
    let mut report = Report::default();
    for check in checks {
        report.enter(check.name, check.run(Arc::clone(&factory)).await);
    }
    report
}
