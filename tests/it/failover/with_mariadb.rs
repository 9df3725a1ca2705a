//! The test, which `cargo xtask failover mysql` runs.

use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::failover::history::Report;
use crate::failover::load::{Load, RETRY_WINDOW, STALENESS};
use crate::failover::mariadb::{Pair, open};
use crate::failover::oracle::Promise;
use crate::failover::trial::{BEHIND, LAG, Replicated, survive};

/// A primary that is killed and one that nobody reaches, in turn. The replica takes over.
struct Promoted(Mutex<Pair>);

impl Replicated for Promoted {
    type Failed = ();

    fn fault(&self, round: usize) -> String {
        if round.is_multiple_of(2) { "Kill".into() } else { "Cut".into() }
    }

    async fn until_whole(&self) {
        self.0.lock().await.until_replayed().await;
    }

    async fn fail(&self, round: usize) {
        let mut pair = self.0.lock().await;
        pair.cut_replication();
        sleep(BEHIND).await;
        if round.is_multiple_of(2) {
            pair.primary.kill();
        } else {
            // It goes on, and nobody reaches it.
            pair.address.cut(true);
        }
        pair.promote().await;
        pair.address.cut(false);
    }

    async fn mend(&self, (): ()) {
        self.0.lock().await.replace_old_primary().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fail_over_is_survived() {
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    let read = |name: &str| std::env::var(name).unwrap_or_default();
    let rounds = read("CLOAKROOM_FAILOVER_ROUNDS").parse().unwrap_or(2);
    let is_synchronous = read("CLOAKROOM_FAILOVER_SYNCHRONOUS") == "true";
    let pair = Pair::start(is_synchronous).await.expect("MariaDB is installed");
    println!("two servers run");
    let url = pair.url();
    let pair = Promoted(Mutex::new(pair));
    let load = Load::new(async || open(&url).await, dice).await;
    let promise =
        Promise { is_synchronous, lag: LAG, staleness: STALENESS, retry_window: RETRY_WINDOW };
    let (facts, seen) = survive(&pair, &load, rounds, promise).await;
    assert!(seen.unknown > 0, "answers were lost");
    if is_synchronous {
        let regressed = facts.reports.iter().find(|(_, it)| matches!(it, Report::Regressed(_)));
        assert_eq!(regressed, None, "nothing is lost, so nothing went back");
    }
}
