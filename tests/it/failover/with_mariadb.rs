//! The test, which `cargo xtask failover mysql` runs.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::failover::history::FailOver;
use crate::failover::load::Load;
use crate::failover::mariadb::Pair;
use crate::failover::{BEHIND, HANGS, WRITES, conclude, settings};

/// What befalls the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Cut,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fail_over_is_survived() {
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    let (rounds, is_synchronous) = settings();
    let mut pair = Pair::start(is_synchronous).await.expect("MariaDB is installed");
    println!("two servers run");
    let load = Load::new(&pair.url(), dice).await;
    let mut clients = load.start();
    let mut outages = BTreeMap::<String, Vec<Duration>>::new();
    for round in 0..rounds {
        let fault = if round % 2 == 0 { Fault::Kill } else { Fault::Cut };
        let blow = timeout(HANGS, fail_over(&mut pair, &load, fault));
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
    conclude(&load, rounds, is_synchronous, &outages);
}

/// One round: how long nothing was written.
async fn fail_over(pair: &mut Pair, load: &Load, fault: Fault) -> Duration {
    let history = &load.history;
    let start = history.now();
    while history.written_since(start) < WRITES {
        sleep(Duration::from_millis(100)).await;
    }
    pair.until_replayed().await;
    let begun = history.now();
    pair.cut_replication();
    sleep(BEHIND).await;
    match fault {
        Fault::Kill => pair.primary.kill(),
        // It goes on, and nobody reaches it.
        Fault::Cut => pair.address.cut(true),
    }
    pair.promote().await;
    pair.address.cut(false);
    let led = history.now();
    while history.written_since(led) < WRITES {
        sleep(Duration::from_millis(100)).await;
    }
    pair.replace_old_primary().await;
    load.settle().await;
    let settled = history.now();
    history.failed_over(FailOver { begun, settled });
    load.audit().await;
    load.longest_outage(begun)
}
