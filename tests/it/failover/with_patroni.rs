//! The test, which `cargo xtask failover postgres` runs.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::failover::history::{Deed, Facts, FailOver, Of, Report};
use crate::failover::load::{Load, RETRY_WINDOW, STALENESS};
use crate::failover::oracle::{Promise, Verdict, judge};
use crate::failover::patroni::{Cluster, FAULTS, Fault, LEASE, Settings};

/// How old the writes may be that a fail-over loses. A standby that lags further behind is out of order.
const LAG: Duration = Duration::from_secs(5);

/// How far the standbys are behind when the primary fails.
const BEHIND: Duration = Duration::from_secs(1);

/// How many writes the new primary has taken before the old one comes back.
const WRITES: usize = 50;

/// How long one round may take.
const HANGS: Duration = Duration::from_secs(900);

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

    let facts = load.history.facts();
    let promise = Promise {
        is_synchronous: cluster.is_synchronous(),
        lag: LAG,
        staleness: STALENESS,
        retry_window: RETRY_WINDOW,
    };
    let verdict = judge(&facts, promise);
    for (time, report) in &facts.reports {
        if let Report::Regressed(why) = report {
            println!("{:.1} s: store_regressed: {why}", time.as_secs_f64());
        }
    }
    println!("{} rounds, {} calls: {:?}", cluster.rounds(), facts.entries.len(), verdict.seen);
    for (fault, outages) in &outages {
        let longest = outages.iter().max().copied().unwrap_or_default();
        println!("{fault}: at most {:.1} s without a write", longest.as_secs_f64());
    }
    show(&facts, &verdict);
    verdict.acquit();
    let seen = verdict.seen;
    assert!(seen.unknown > 0 && seen.shared > 0, "clients raced, and answers were lost");
    assert!(seen.refreshes > 100 * cluster.rounds(), "there was something to judge");
    if cluster.is_synchronous() {
        let regressed = facts.reports.iter().find(|(_, it)| matches!(it, Report::Regressed(_)));
        assert_eq!(regressed, None, "nothing is lost, so nothing went back");
    }
}

/// Shows all that happened to the first session of a conviction.
fn show(facts: &Facts, verdict: &Verdict) {
    let Some(first) = verdict.convictions.first() else { return };
    println!("{first:?}");
    for fail_over in &facts.fail_overs {
        println!("{fail_over:?}");
    }
    let (number, user) = (first.session(), facts.user(first.session()));
    for entry in &facts.entries {
        let is_about = match &entry.deed {
            Deed::LogIn { session, .. }
            | Deed::Refresh { session, .. }
            | Deed::Introspect { session, .. } => *session == number,
            Deed::Revoke { of: Of::Session(session), .. } => *session == number,
            Deed::Revoke { of: Of::User(of), .. } => Some(*of) == user,
        };
        if is_about {
            println!("{entry:?}");
        }
    }
    for report in &facts.reports {
        println!("{report:?}");
    }
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
