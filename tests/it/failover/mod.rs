//! Fail-overs that nobody steers, under load, and an oracle over the history of each session.
//!
//! | | |
//! |---|---|
//! | `with_patroni` | the test itself; `cargo xtask failover postgres` runs it, and nothing else does |
//! | `patroni` | three PostgreSQL servers under Patroni, and the faults that befall their primary |
//! | `with_mariadb` | the same for MariaDB, run by `cargo xtask failover mysql` |
//! | `mariadb` | a MariaDB primary and its replica, which the test promotes |
//! | `proxy` | the network between them, which can be cut |
//! | `load` | three authorization servers, and clients that race each other |
//! | `history` | what each client sent, and what it was answered |
//! | `oracle` | judges a history; its own tests are among the ordinary ones |
//!
//! A fail-over of another server (Redis with Sentinel, Galera) needs a cluster like `patroni`, a module
//! like `with_patroni`, and a line in `xtask/src/failover`.

mod history;
pub(crate) mod load;
pub(crate) mod mariadb;
mod oracle;
mod patroni;
pub(crate) mod proxy;
mod with_mariadb;
mod with_patroni;

use std::collections::BTreeMap;
use std::time::Duration;

use self::history::{Deed, Facts, Of, Report};
use self::load::{Load, RETRY_WINDOW, STALENESS};
use self::oracle::{Promise, Verdict, judge};

/// How old the writes may be that a fail-over loses. A standby that lags further behind is out of order.
const LAG: Duration = Duration::from_secs(5);

/// How far the standbys are behind when the primary fails.
const BEHIND: Duration = Duration::from_secs(1);

/// How many writes the new primary has taken before the old one comes back.
const WRITES: usize = 50;

/// How long one round may take.
const HANGS: Duration = Duration::from_secs(900);

/// How many fail-overs, and whether replication is synchronous, as xtask says.
fn settings() -> (usize, bool) {
    let read = |name: &str| std::env::var(name).unwrap_or_default();
    let rounds = read("CLOAKROOM_FAILOVER_ROUNDS").parse().unwrap_or(2);
    (rounds, read("CLOAKROOM_FAILOVER_SYNCHRONOUS") == "true")
}

/// Judges what happened, and shows it.
fn conclude(
    load: &Load,
    rounds: usize,
    is_synchronous: bool,
    outages: &BTreeMap<String, Vec<Duration>>,
) {
    let facts = load.history.facts();
    let promise =
        Promise { is_synchronous, lag: LAG, staleness: STALENESS, retry_window: RETRY_WINDOW };
    let verdict = judge(&facts, promise);
    for (time, report) in &facts.reports {
        if let Report::Regressed(why) = report {
            println!("{:.1} s: store_regressed: {why}", time.as_secs_f64());
        }
    }
    println!("{} rounds, {} calls: {:?}", rounds, facts.entries.len(), verdict.seen);
    for (fault, outages) in outages {
        let longest = outages.iter().max().copied().unwrap_or_default();
        println!("{fault}: at most {:.1} s without a write", longest.as_secs_f64());
    }
    show(&facts, &verdict);
    verdict.acquit();
    let seen = verdict.seen;
    assert!(seen.unknown > 0 && seen.shared > 0, "clients raced, and answers were lost");
    assert!(seen.refreshes > 100 * rounds, "there was something to judge");
    if is_synchronous {
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
