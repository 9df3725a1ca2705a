//! The conformance kit of **cloakroom**: what every [`TokenStore`] and [`KeyStore`] must pass.
//!
//! The kit asks a store to keep each promise of the contract — alone, under races, when futures are
//! dropped, against a model — and says of a store that breaks one which promise it was, what
//! happened, and which operations led there.
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
//! Run it on a multi-threaded tokio runtime with its timer: races need threads.
//!
//! # What it tries
//!
//! | | what | needs |
//! |---|---|---|
//! | the contract, method by method | each promise, alone: what is written, refused, listed, kept, deleted | – |
//! | races | two calls in every order of their awaits, and many tasks at once | – |
//! | the log | cursors, gaps, wake-ups, order under concurrent writers | – |
//! | dropped futures | each method dropped at each await | – |
//! | a model | random sequences, beside a small model of the contract | – |
//! | thousands | of grants, tokens, rules, entries: past every round number | – |
//! | instances | what one acknowledged the other knows; races through both | [`Database::another`] |
//! | a restart | what was acknowledged is there, and every count goes on | [`Database::restart`] |
//! | failures | an error each time, never an answer; nothing half done | [`Database::fail`] |
//! | damage | a row that cannot be read stops nothing else | [`Database::damage`] |
//!
//! The last four need a [`Database`], which [`Factory::database`] may offer; with all of it or with a
//! part. [`Report::not_run`] names the checks that were not run, and what they need.
//!
//! Where the contract leaves a choice, the kit takes either: bounds with gaps, a newest bound that is
//! raised at any time, cursors of the store's own content, sweeps that are left to `maintain`, batches
//! and pages that are short, a `maintain` that wants to be called again.
//!
//! The model's random sequences are the same at every run, unless `CLOAKROOM_CONFORMANCE_SEED` and
//! `CLOAKROOM_CONFORMANCE_CASES` (numbers) ask for others, or more. A store that several programs
//! share is raced from several [`processes`], too.
//!
//! A [`SingleUseStore`](cloakroom_core::store::SingleUseStore) is tried by checks of its own, in
//! [`single_use`]: it may be another store than that of the tokens.

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

use async_trait::async_trait;
use cloakroom_core::MAX_ID_BYTES;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::{CheckValue, TokenStore};

pub use checks::processes;
pub use context::Context;
pub use database::{Database, Failing, Instance};
pub use promises::Promise;
pub use report::{Failure, NotRun, Report};

/// Makes the stores that the kit tries.
#[async_trait]
pub trait Factory: fmt::Debug + Send + Sync + 'static {
    /// A fresh, empty token store, apart from every other.
    async fn tokens(&self) -> Arc<dyn TokenStore>;

    /// A fresh, empty key store, apart from every other.
    async fn keys(&self) -> Arc<dyn KeyStore>;

    /// The most bytes that an identifier may have: [`MAX_ID_BYTES`], unless the stores add something
    /// to each, as [`TenantStore`](cloakroom_core::store::TenantStore) does.
    fn longest_id(&self) -> usize {
        MAX_ID_BYTES
    }

    /// The most bytes that the name of a check value may have, likewise:
    /// [`CheckValue::MAX_NAME_BYTES`], unless the stores add something to each.
    fn longest_name(&self) -> usize {
        CheckValue::MAX_NAME_BYTES
    }

    /// A fresh, empty database, apart from every other, with which more can be done than asking one
    /// store: a second instance, a restart, failures.
    async fn database(&self) -> Option<Arc<dyn Database>> {
        None
    }
}

/// One check of the kit.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, as `topic::module::function`: the path of its file below `checks/`.
    pub name: &'static str,
    /// The promise of the contract that it tries.
    pub promise: Promise,
    run: fn(Context) -> report::CheckFuture,
}

impl Check {
    /// Runs this check alone.
    ///
    /// # Errors
    ///
    /// If the store breaks the promise, fails, panics, or has not answered for two minutes.
    pub async fn run(&self, factory: Arc<dyn Factory>) -> Result<Ran, Failure> {
        let context = Context::new(factory);
        let story = context.story();
        report::tried(self.name, self.promise, &story, (self.run)(context)).await
    }
}

/// How a check ended that found nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ran {
    /// It passed.
    Passed,
    /// It was not run: it needs this, which the factory does not offer.
    NotOffered(&'static str),
}

/// Every check of the kit, in order.
#[must_use]
pub fn checks() -> Vec<Check> {
    checks::all()
}

/// Runs every check, each on stores of its own.
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
