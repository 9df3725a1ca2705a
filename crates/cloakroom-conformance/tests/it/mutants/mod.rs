//! The kit, tried on wrong stores: it must convict each, of a promise that the store breaks.
//!
//! `CLOAKROOM_MUTANT_ROUNDS=20 cargo test -p cloakroom-conformance mutants` has each of them
//! convicted twenty times in a row; a round is one run of the checks of the promises in question.

mod fault;
mod plain;
mod single_use;
mod smoke;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::{Check, Database, Factory, Promise, Ran, Report, checks, run, run_all};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;

use fault::Fault;
use plain::database::PlainDatabase;
use plain::keys::PlainKeys;
use plain::{Manners, Plain};

/// Stores with one fault, or with none.
#[derive(Debug, Clone, Copy, Default)]
struct Plainly {
    fault: Option<Fault>,
    manners: Manners,
}

#[async_trait]
impl Factory for Plainly {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(Plain::new(self.fault, self.manners))
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(PlainKeys::new(self.fault))
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        Some(Arc::new(PlainDatabase::new(self.fault, self.manners)))
    }
}

fn wrong(fault: Fault) -> Arc<dyn Factory> {
    Arc::new(Plainly { fault: Some(fault), ..Plainly::default() })
}

fn rounds() -> usize {
    let rounds = std::env::var("CLOAKROOM_MUTANT_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

fn checks_of(promises: &[Promise]) -> Vec<Check> {
    let mut checks = checks();
    checks.retain(|check| promises.contains(&check.promise));
    checks
}

/// Has the kit convict this mutant, in each round.
async fn convict(fault: Fault) {
    let checks = checks_of(fault.promises());
    assert!(!checks.is_empty(), "no check of {:?}", fault.promises());
    for round in 1..=rounds() {
        assert!(
            is_convicted(fault, &checks).await,
            "{fault:?} got away in round {round}:{}",
            fault.what()
        );
    }
}

/// Wrong in ways that a few operations in a row bring to light: the model must see them, too,
/// with no check that was made for them.
const PLAIN_TO_THE_MODEL: [Fault; 10] = [
    Fault::CreateUpserts,
    Fault::CreateIgnoresRules,
    Fault::AdvanceComparesGeneration,
    Fault::AdvanceIgnoresRevocation,
    Fault::MoveDropsTokens,
    Fault::NoTombstones,
    Fault::GrantsAreNotLogged,
    Fault::SecondRuleIsIgnored,
    Fault::ListShowsRevoked,
    Fault::PurgeRevoked,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_model_convicts() {
    let checks = checks_of(&[Promise::Model]);
    for fault in PLAIN_TO_THE_MODEL {
        for round in 1..=rounds() {
            assert!(is_convicted(fault, &checks).await, "{fault:?} got away in round {round}");
        }
    }
}

async fn is_convicted(fault: Fault, checks: &[Check]) -> bool {
    for check in checks {
        // Not a measure of time: it names the check that a wrong store keeps for ever.
        let trial = tokio::time::timeout(Duration::from_secs(120), check.run(wrong(fault)));
        match trial.await {
            Ok(Ok(Ran::Passed)) => {}
            Ok(Ok(other)) => panic!("{}: {other:?}", check.name),
            Ok(Err(failure)) => {
                assert_eq!(failure.promise, check.promise);
                return true;
            }
            Err(_) => panic!("{} never ends on {fault:?}", check.name),
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_plain_store_passes() {
    run_all(Plainly::default()).await.assert_ok();
}

/// What the contract leaves to the store must not be held against it.
mod acquitted {
    use super::{Manners, Plainly, run_all};

    async fn acquit(manners: Manners) {
        let plainly = Plainly { manners, ..Plainly::default() };
        let report = run_all(plainly).await;
        assert!(report.not_run.is_empty(), "{report}");
        report.assert_ok();
    }

    macro_rules! manners {
        ($($name:ident)*) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    acquit(Manners { $name: true, ..Manners::default() }).await;
                }
            )*
        };
    }

    manners! {
        crashes lazy_sweeps polls short_pages own_tasks other_choices small_steps
        gaps raises own_cursors more_for_a_while
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failure_says_what_was_asked_and_what_led_there() {
    for (fault, operation) in [
        (Fault::CreateUpserts, "create("),
        (Fault::AdvanceIgnoresRevocation, "advance("),
        (Fault::KeysReuseGenerations, "insert("),
    ] {
        let checks = checks_of(fault.promises());
        let report = run(&checks, wrong(fault)).await;
        let failure = report.failures.first().expect("it is convicted");
        let text = report.to_string();
        assert!(report.convicts(failure.promise));
        assert!(fault.promises().contains(&failure.promise));
        for part in [
            failure.promise.name(),
            failure.promise.contract(),
            failure.check,
            &failure.happened,
            operation,
            " → ",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert_eq!(panic_text(report), text);
    }
}

fn panic_text(report: Report) -> String {
    let panic = std::panic::catch_unwind(move || report.assert_ok()).expect_err("it panics");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn every_promise_has_a_mutant() {
    let of_stores = Fault::ALL.iter().flat_map(|fault| fault.promises());
    let tried: Vec<Promise> = of_stores.chain(single_use::TRIED).copied().collect();
    // The model has a test of its own.
    let untried: Vec<_> = Promise::ALL
        .iter()
        .filter(|promise| **promise != Promise::Model && !tried.contains(promise))
        .collect();
    assert!(untried.is_empty(), "{untried:?}");
}
