//! The test, which `cargo xtask failover postgres` runs.

use crate::dice::Dice;
use crate::failover::history::Report;
use crate::failover::load::{Load, RETRY_WINDOW, STALENESS};
use crate::failover::oracle::Promise;
use crate::failover::patroni::{Cluster, Settings, open};
use crate::failover::trial::{LAG, survive};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fail_over_is_survived() {
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    let cluster = Cluster::start(Settings::from_environment()).await;
    println!("three servers run");
    let url = cluster.url();
    let load = Load::new(async || open(&url).await, dice).await;
    let promise = Promise {
        is_synchronous: cluster.is_synchronous(),
        lag: LAG,
        staleness: STALENESS,
        retry_window: RETRY_WINDOW,
    };
    let (facts, seen) = survive(&cluster, &load, cluster.rounds(), promise).await;
    assert!(seen.unknown > 0, "answers were lost");
    if cluster.is_synchronous() {
        let regressed = facts.reports.iter().find(|(_, it)| matches!(it, Report::Regressed(_)));
        assert_eq!(regressed, None, "nothing is lost, so nothing went back");
    }
}
