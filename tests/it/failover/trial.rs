//! Rounds of a trial: each time something fails under load, and what clients saw is judged at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::failover::history::{Deed, Facts, FailOver, Of, Report};
use crate::failover::load::Load;
use crate::failover::oracle::{Promise, Seen, Verdict, judge};

/// How far the replicas are behind when the primary fails.
pub(crate) const BEHIND: Duration = Duration::from_secs(1);

/// How old the writes may be that a fail-over loses. A replica that lags further behind is out of order.
pub(crate) const LAG: Duration = Duration::from_secs(5);

/// How many writes are taken before something fails, and after that.
const WRITES: usize = 50;

/// How long one round may take.
const HANGS: Duration = Duration::from_secs(900);

/// What befalls a primary, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its processes are killed, and started later.
    Kill,
    /// Its processes stop, as on a machine that is suspended. Later they go on as if nothing had happened.
    Stop,
    /// Its network is cut. Later it is mended.
    Cut,
}

pub(crate) const FAULTS: [Fault; 3] = [Fault::Kill, Fault::Stop, Fault::Cut];

/// Servers of a database that take each other's place.
pub(crate) trait Replicated {
    /// What `mend` has to know.
    type Failed;

    /// What happens in this round, for the report.
    fn fault(&self, round: usize) -> String;

    /// Waits until every replica follows its primary.
    async fn until_whole(&self);

    /// Lets something fail, and waits until writes are taken again.
    async fn fail(&self, round: usize) -> Self::Failed;

    async fn mend(&self, failed: Self::Failed);
}

/// Goes through the rounds, and acquits. Returns what there was to judge.
pub(crate) async fn survive(
    database: &impl Replicated,
    load: &Arc<Load>,
    rounds: usize,
    promise: Promise,
) -> (Facts, Seen) {
    let mut clients = load.start();
    let mut outages = BTreeMap::<String, Vec<Duration>>::new();
    for number in 0..rounds {
        let round = timeout(HANGS, round(database, load, number));
        let outage = tokio::select! {
            outage = round => outage.expect("the round ends"),
            // Clients go on until they are told to end.
            Some(failed) = clients.join_next() => panic!("{failed:?}"),
        };
        let fault = database.fault(number);
        println!("round {}: {fault}, {:.1} s without a write", number + 1, outage.as_secs_f64());
        outages.entry(fault).or_default().push(outage);
    }
    load.end();
    clients.abort_all();
    while clients.join_next().await.is_some() {}

    let facts = load.history.facts();
    let verdict = judge(&facts, promise);
    for (time, report) in &facts.reports {
        if let Report::Regressed(why) = report {
            println!("{:.1} s: store_regressed: {why}", time.as_secs_f64());
        }
    }
    println!("{rounds} rounds, {} calls: {:?}", facts.entries.len(), verdict.seen);
    for (fault, outages) in &outages {
        let longest = outages.iter().max().copied().unwrap_or_default();
        println!("{fault}: at most {:.1} s without a write", longest.as_secs_f64());
    }
    show(&facts, &verdict);
    verdict.acquit();
    assert!(verdict.seen.shared > 0, "clients raced");
    assert!(verdict.seen.refreshes > 100 * rounds, "there was something to judge");
    (facts, verdict.seen)
}

/// One round: how long nothing was written.
async fn round(database: &impl Replicated, load: &Load, number: usize) -> Duration {
    let history = &load.history;
    // Replication has taken up the load: otherwise the first round would lose the tables.
    let start = history.now();
    while history.written_since(start) < WRITES {
        sleep(Duration::from_millis(100)).await;
    }
    database.until_whole().await;
    let begun = history.now();
    let failed = database.fail(number).await;
    let led = history.now();
    while history.written_since(led) < WRITES {
        sleep(Duration::from_millis(100)).await;
    }
    database.mend(failed).await;
    database.until_whole().await;
    load.settle().await;
    let settled = history.now();
    history.failed_over(FailOver { begun, settled });
    load.audit().await;
    load.longest_outage(begun)
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
