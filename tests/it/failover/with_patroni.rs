//! The test, which `cargo xtask failover postgres` runs.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::failover::history::FailOver;
use crate::failover::load::Load;
use crate::failover::patroni::{Cluster, FAULTS, Fault, LEASE, Settings};
use crate::failover::{BEHIND, HANGS, WRITES, conclude};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fail_over_is_survived() {
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    let cluster = Cluster::start(Settings::from_environment()).await;
    println!("three servers run");
    let load = Load::new(&cluster.url(), dice).await;
    let mut clients = load.start();
    let mut outages = BTreeMap::<String, Vec<Duration>>::new();
    for round in 0..cluster.rounds() {
        let fault = FAULTS[round % FAULTS.len()];
        let blow = timeout(HANGS, fail_over(&cluster, &load, fault));
        let outage = tokio::select! {
            outage = blow => outage.expect("the round ends"),
            // Clients go on until they are told to end.
            Some(failed) = clients.join_next() => panic!("{failed:?}"),
        };
        println!("round {}: {fault:?}, {:.1} s without a write", round + 1, outage.as_secs_f64());
        outages.entry(format!("{fault:?}")).or_default().push(outage);
    }
    load.end();
    clients.abort_all();
    while clients.join_next().await.is_some() {}

    conclude(&load, cluster.rounds(), cluster.is_synchronous(), &outages);
}

/// One round: how long nothing was written.
async fn fail_over(cluster: &Cluster, load: &Load, fault: Fault) -> Duration {
    let history = &load.history;
    // Replication has taken up the load: otherwise the first round would lose the tables.
    let start = history.now();
    while history.written_since(start) < WRITES {
        sleep(Duration::from_millis(100)).await;
    }
    cluster.until_whole().await;
    let old = cluster.until_leader(None).await;
    let begun = history.now();
    cluster.cut_replication(old);
    sleep(BEHIND).await;
    cluster.inflict(fault, old);
    cluster.until_leader(Some(old)).await;
    let led = history.now();
    if fault == Fault::Stop {
        sleep(LEASE.saturating_sub(led - begun)).await;
    }
    while history.written_since(led) < WRITES {
        sleep(Duration::from_millis(100)).await;
    }
    cluster.mend(fault, old);
    cluster.until_whole().await;
    load.settle().await;
    let settled = history.now();
    history.failed_over(FailOver { begun, settled });
    load.audit().await;
    load.longest_outage(begun)
}
