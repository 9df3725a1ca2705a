//! Fail-overs of Redis. Only `cargo xtask failover redis-…` runs them; `cargo xtask test` runs `isolated`.

mod isolated;

use std::time::Duration;

use crate::dice::Dice;
use crate::failover::history::{Facts, Report};
use crate::failover::load::{Load, RETRY_WINDOW, STALENESS};
use crate::failover::oracle::Promise;
use crate::failover::redis_cluster::{Cluster, Moving};
use crate::failover::redis_sentinel::Watched;
use crate::failover::trial::{LAG, survive};

fn rounds() -> usize {
    std::env::var("CLOAKROOM_FAILOVER_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap())
}

fn dice() -> Dice {
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    dice
}

/// Replication is asynchronous, and each time the replicas were behind.
const ASYNCHRONOUS: Promise =
    Promise { is_synchronous: false, lag: LAG, staleness: STALENESS, retry_window: RETRY_WINDOW };

/// That each fail-over has lost something, and that somebody has noticed.
fn assert_noticed(facts: &Facts) {
    for fail_over in &facts.fail_overs {
        let span = fail_over.begun..=fail_over.settled;
        let mut reports = facts.reports.iter();
        let is_noticed =
            reports.any(|(time, it)| matches!(it, Report::Regressed(_)) && span.contains(time));
        assert!(is_noticed, "{fail_over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_promotion_by_sentinels_is_survived() {
    let _turn = crate::TURN.lock().await;
    let watched = Watched::start().await;
    let load = Load::new(async || watched.open().await, dice()).await;
    let (facts, seen) = survive(&watched, &load, rounds(), ASYNCHRONOUS).await;
    assert!(seen.unknown > 0, "answers were lost");
    assert_noticed(&facts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_master_of_a_cluster_is_survived() {
    let _turn = crate::TURN.lock().await;
    let cluster = Cluster::start().await;
    let load = Load::new(async || cluster.open().await, dice()).await;
    let (facts, seen) = survive(&cluster, &load, rounds(), ASYNCHRONOUS).await;
    assert!(seen.unknown > 0, "answers were lost");
    assert_noticed(&facts);
}

/// Nothing is lost while slots move, so the oracle allows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moving_slots_are_survived() {
    let _turn = crate::TURN.lock().await;
    let cluster = Moving(Cluster::start().await);
    let load = Load::new(async || cluster.0.open().await, dice()).await;
    let promise = Promise { is_synchronous: true, staleness: Duration::ZERO, ..ASYNCHRONOUS };
    let (facts, _) = survive(&cluster, &load, rounds(), promise).await;
    let regressed = facts.reports.iter().find(|(_, it)| matches!(it, Report::Regressed(_)));
    assert_eq!(regressed, None, "nothing is lost, so nothing went back");
}
