//! Where a finding of the diagnosis begins: what is just in time passes, and a moment later does not.

use std::time::Duration;

use cloakroom::core::Jti;
use cloakroom::core::revocation::{Revocation, Target};
use cloakroom::core::store::{QueryPlan, StoreStatus, TokenStore as _};
use cloakroom::core::time::{Clock as _, UnixTime};
use cloakroom::operator::{Check, Diagnosis, Outcome};
use cloakroom::{IssuerBuilder, KeyPolicy};

use super::store::ProbeStore;
use super::support::*;

const MILLI: Duration = Duration::from_millis(1);

/// The clock skew by default.
const SKEW: Duration = secs(5);

/// The worst finding of this check, and what it says.
fn worst(diagnosis: &Diagnosis, check: Check) -> (Outcome, &str) {
    let of_check = diagnosis.findings.iter().filter(|finding| finding.check == check);
    let worst = of_check.max_by_key(|finding| finding.outcome).unwrap();
    (worst.outcome, &worst.text)
}

impl Fixture {
    async fn outcome(&self, check: Check) -> Outcome {
        self.outcome_with(check, |builder| builder).await
    }

    async fn outcome_with(
        &self,
        check: Check,
        settings: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
    ) -> Outcome {
        let diagnosis = settings(builder(&self.store, &self.clock)).diagnose().await;
        worst(&diagnosis, check).0
    }

    async fn heartbeat(&self, at: UnixTime) {
        self.store.heartbeat(at, at + HOUR).await.unwrap();
    }
}

#[tokio::test]
async fn the_clock_of_the_database_may_differ_by_the_clock_skew() {
    let fixture = Fixture::new().await;
    fixture.heartbeat(START).await;
    for (time, expected) in [
        (START, Outcome::Passed),
        (START + SKEW, Outcome::Passed),
        (START + SKEW + MILLI, Outcome::Failed),
        (START - SKEW, Outcome::Passed),
        (START - SKEW - MILLI, Outcome::Failed),
    ] {
        let mut status = StoreStatus::default();
        status.time = Some(time);
        fixture.store.describe(status);
        assert_eq!(fixture.outcome(Check::Clock).await, expected, "{time}");
    }
}

#[tokio::test]
async fn housekeeping_may_be_an_hour_late() {
    let fixture = Fixture::new().await;
    // Nothing is deleted until a minute, and the clock skew, after its end.
    let may_go = START - (SKEW + MINUTE);
    for (oldest, expected) in [
        (Some(may_go - HOUR), Outcome::Passed),
        (Some(may_go - HOUR - MILLI), Outcome::Failed),
        (None, Outcome::Passed),
    ] {
        let mut status = StoreStatus::default();
        status.ended_rows = Some(3);
        status.oldest_ended = oldest;
        fixture.store.describe(status);
        assert_eq!(fixture.outcome(Check::Housekeeping).await, expected, "{oldest:?}");
    }
}

#[tokio::test]
async fn a_rotation_may_be_ten_minutes_late() {
    let fixture = Fixture::new().await;
    // The next key is published a day before the signer ends.
    fixture.clock.advance(29 * DAY + 10 * MINUTE - MILLI);
    assert_eq!(fixture.outcome(Check::SigningKeys).await, Outcome::Passed);
    fixture.clock.advance(MILLI);
    assert_eq!(fixture.outcome(Check::SigningKeys).await, Outcome::Failed);
}

/// A key that was made with other settings than these.
#[tokio::test]
async fn a_key_that_signs_longer_or_is_removed_sooner_than_the_settings_say_is_a_warning() {
    let fixture = Fixture::new().await;
    let settings = KeyPolicy::default();
    for (policy, expected) in [
        (settings, Outcome::Passed),
        (settings.rotation(20 * DAY), Outcome::Warning),
        (settings.rotation(40 * DAY), Outcome::Passed),
        (settings.retention(3 * DAY), Outcome::Warning),
        (settings.retention(DAY), Outcome::Passed),
    ] {
        let found = fixture.outcome_with(Check::SigningKeys, |builder| builder.key_policy(policy));
        assert_eq!(found.await, expected, "{policy:?}");
    }
}

#[tokio::test]
async fn a_heartbeat_may_be_late_and_ahead_by_the_clock_skew() {
    let fixture = Fixture::new().await;
    fixture.heartbeat(START + SKEW).await;
    assert_eq!(fixture.outcome(Check::Clock).await, Outcome::Passed);
    fixture.heartbeat(START + SKEW + MILLI).await;
    assert_eq!(fixture.outcome(Check::Clock).await, Outcome::Failed);

    // Ten heartbeats, or half a minute if that is longer.
    for (interval, late) in [(1, 30), (10, 100)] {
        let fixture = Fixture::new().await;
        fixture.heartbeat(START).await;
        let outcome = async || {
            let settings = |builder: IssuerBuilder| builder.heartbeat_interval(secs(interval));
            fixture.outcome_with(Check::RevocationLog, settings).await
        };
        fixture.clock.advance(secs(late) + SKEW);
        assert_eq!(outcome().await, Outcome::Passed, "{interval}");
        fixture.clock.advance(MILLI);
        assert_eq!(outcome().await, Outcome::Failed, "{interval}");
    }
}

/// It is read in pages of a thousand entries.
#[tokio::test]
async fn the_log_is_read_to_its_end() {
    let fixture = Fixture::new().await;
    for number in 0..1_000 {
        let target = Target::Jti(Jti::new(format!("jti-{number}")).unwrap());
        fixture.store.revoke(Revocation::new(target, START, START + HOUR)).await.unwrap();
    }
    fixture.heartbeat(fixture.clock.now()).await;
    let diagnosis = builder(&fixture.store, &fixture.clock).diagnose().await;
    let (outcome, text) = worst(&diagnosis, Check::RevocationLog);
    assert_eq!(outcome, Outcome::Passed);
    assert!(text.starts_with("1001 entries"), "{text}");
}

#[tokio::test]
async fn what_a_store_says_of_itself_is_a_finding() {
    let fixture = Fixture::new().await;
    fixture.heartbeat(START).await;
    let told = async |check, tell: &dyn Fn(&mut StoreStatus)| {
        let mut status = StoreStatus::default();
        tell(&mut status);
        fixture.store.describe(status);
        let diagnosis = builder(&fixture.store, &fixture.clock).diagnose().await;
        let (outcome, text) = worst(&diagnosis, check);
        (outcome, text.to_owned())
    };
    let (passed, skipped) = (Outcome::Passed, Outcome::Skipped);
    let is = |found: (Outcome, String), outcome, text: &str| {
        assert_eq!((found.0, &*found.1), (outcome, text));
    };
    let nothing = |_: &mut StoreStatus| ();
    is(told(Check::Schema, &nothing).await, skipped, "the store does not describe itself");
    let server = |status: &mut StoreStatus| status.server = Some("PostgreSQL 16.4".to_owned());
    is(told(Check::Schema, &server).await, passed, "PostgreSQL 16.4");
    let version = |status: &mut StoreStatus| {
        server(status);
        status.schema = Some(3);
    };
    is(told(Check::Schema, &version).await, passed, "PostgreSQL 16.4, tables of version 3");
    let problem = |status: &mut StoreStatus| {
        version(status);
        status.problems = vec!["an index is missing".to_owned()];
    };
    is(told(Check::Schema, &problem).await, Outcome::Failed, "an index is missing");

    is(told(Check::Plans, &nothing).await, skipped, "not checked: the store shows no plans");
    let reads = || QueryPlan::new("find a grant", "grants_by_id");
    let plans = |status: &mut StoreStatus| status.plans = Some(vec![reads(), reads()]);
    is(told(Check::Plans, &plans).await, passed, "2 queries read their indexes");
    let scans = |status: &mut StoreStatus| {
        status.plans = Some(vec![reads(), reads().instead("Seq Scan")]);
    };
    let (outcome, text) = told(Check::Plans, &scans).await;
    assert_eq!(outcome, Outcome::Failed);
    let expected = "to find a grant, the database does not read the index `grants_by_id`: Seq Scan";
    assert!(text.starts_with(expected), "{text}");

    is(told(Check::Housekeeping, &nothing).await, skipped, "the store does not count");
    for (rows, expected) in [(3, "3"), (9_999, "9999"), (10_000, "10000 or more")] {
        let ended = |status: &mut StoreStatus| status.ended_rows = Some(rows);
        let text = format!("{expected} ended rows wait to be deleted");
        is(told(Check::Housekeeping, &ended).await, passed, &text);
    }
    for (open, expected) in [(0, passed), (1, Outcome::Warning), (2, Outcome::Warning)] {
        let sweeps = |status: &mut StoreStatus| {
            (status.ended_rows, status.open_sweeps) = (Some(0), Some(open));
        };
        assert_eq!(told(Check::Housekeeping, &sweeps).await.0, expected, "{open}");
    }
}

#[tokio::test]
async fn the_issuer_of_a_store_is_named_where_another_one_is_given() {
    let fixture = Fixture::new().await;
    let settings = builder(&fixture.store, &fixture.clock).url("https://other.example");
    let diagnosis = settings.diagnose().await;
    let (outcome, text) = worst(&diagnosis, Check::Issuer);
    assert_eq!(outcome, Outcome::Failed);
    assert!(text.contains(ISSUER), "{text}");
}

#[tokio::test]
async fn an_outage_is_the_stores_and_damage_belongs_to_its_check() {
    let fixture = Fixture::new().await;
    fixture.heartbeat(START).await;
    let diagnose = async || builder(&fixture.store, &fixture.clock).diagnose().await;
    assert!(diagnose().await.is_healthy());
    type Break = fn(&ProbeStore, bool);
    for fails in [ProbeStore::tokens_down as Break, ProbeStore::keys_down] {
        fails(&fixture.store, true);
        let diagnosis = diagnose().await;
        assert!(diagnosis.has_outage(), "{diagnosis:#?}");
        let (outcome, text) = worst(&diagnosis, Check::Store);
        assert_eq!(outcome, Outcome::Failed);
        assert!(text.contains("unavailable"), "{text}");
        fails(&fixture.store, false);
    }
    fixture.store.damage("revocations", true);
    let diagnosis = diagnose().await;
    assert!(!diagnosis.has_outage(), "{diagnosis:#?}");
    let (outcome, text) = worst(&diagnosis, Check::RevocationLog);
    assert_eq!(outcome, Outcome::Failed);
    assert!(text.contains("No server reads on past this row"), "{text}");
}
