//! What a server makes of the log that it follows: whom it believes, and for how long.

use cloakroom::core::Subject;
use cloakroom::core::revocation::{LogEvent, Target};
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::time::Clock as _;
use cloakroom::{Caller, Regression};

use super::regression::{bob, signer, tend};
use super::support::*;

/// How long a heartbeat stays in the log: its life, and the clock skew.
const KEPT: u64 = 65;

impl Fixture {
    /// The store goes back to a time before its log, and its bound with it.
    async fn lose_the_log(&self) {
        let copy = self.store.copy().await;
        for _ in 0..3 {
            self.issuer.revoke_subject(&bob()).await.unwrap();
        }
        self.store.put_back(copy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_stays_as_long_as_a_slow_reader_may_need_it() {
    let fixture = Fixture::new().await;
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    tokio::time::sleep(secs(2)).await;
    running.abort();
    let entries = fixture.entries().await;
    assert!(!entries.is_empty());
    for entry in entries {
        assert_eq!(entry.until, fixture.clock.now() + secs(KEPT));
    }
}

/// Nothing but a heartbeat was lost, and the others have raised the bound again: it is the newest
/// entry that this server misses.
#[tokio::test]
async fn the_newest_entry_is_missed_until_it_may_be_trimmed() {
    for (later, noticed) in [(KEPT - 1, &[Regression::Log][..]), (KEPT, &[])] {
        let fixture = Fixture::new().await;
        let now = fixture.clock.now();
        fixture.store.memory().heartbeat(now, now + secs(KEPT)).await.unwrap();
        tend(&fixture.issuer).await;
        let copy = fixture.store.copy().await;
        fixture.clock.advance(secs(later));
        fixture.store.put_back(copy);
        fixture.tend().await;
        assert_eq!(fixture.regressions(), noticed, "after {later} s");
    }
}

#[tokio::test]
async fn a_heartbeat_from_the_future_proves_no_loss() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    fixture.tend().await;
    fixture.store.swallow_revocation();
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    let ahead = fixture.clock.now() + HOUR;
    fixture.store.memory().heartbeat(ahead, ahead + MINUTE).await.unwrap();
    fixture.tend().await;
    assert_eq!(fixture.regressions(), []);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_server_gave_up_signs_nothing_once_the_log_says_so() {
    let fixture = Fixture::new().await;
    let other = fixture.node(&fixture.clock).await;
    let issuer = other.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    tokio::time::sleep(secs(2)).await;
    let key = signer(&other).await;
    fixture.issuer.compromise_key(&key).await.unwrap();
    // Nothing but the log tells of it.
    fixture.store.keys_down(true);
    tokio::time::sleep(secs(2)).await;
    assert_ne!(signer(&other).await, key);
    running.abort();
}

#[tokio::test]
async fn the_keys_are_put_right_with_the_log() {
    let fixture = Fixture::new().await;
    let key = signer(&fixture.issuer).await;
    let copy = fixture.store.copy().await;
    fixture.issuer.compromise_key(&key).await.unwrap();
    for _ in 0..3 {
        fixture.issuer.revoke_subject(&bob()).await.unwrap();
    }
    fixture.store.put_back(copy);
    // It is noticed, and put right before anything is answered. Nobody runs maintenance.
    fixture.issuer.epoch().await.unwrap_err();
    fixture.issuer.epoch().await.unwrap();
    let fresh = fixture.node(&fixture.clock).await;
    assert_ne!(signer(&fresh).await, key);
}

#[tokio::test]
async fn the_entry_that_raises_the_bound_stays_as_long_as_a_heartbeat() {
    let fixture = Fixture::new().await;
    fixture.lose_the_log().await;
    fixture.issuer.epoch().await.unwrap_err();
    fixture.issuer.epoch().await.unwrap();
    let entries = fixture.entries().await;
    let raising = |event: &LogEvent| match event {
        LogEvent::Revoked {
            target: Target::SubjectAtClient(Subject::User(user), client), ..
        } => user.as_str() == client.as_str(),
        _ => false,
    };
    let raised = entries.iter().find(|entry| raising(&entry.event)).unwrap();
    assert_eq!(raised.until, fixture.clock.now() + secs(KEPT));
}

#[tokio::test]
async fn a_log_that_has_no_heartbeat_any_more_is_silent() {
    let fixture = Fixture::with(|builder| builder.max_log_staleness(secs(15))).await;
    fixture.tend().await;
    let session = fixture.session().await;
    let copy = fixture.store.copy().await;
    fixture.store.put_back(copy);
    fixture.store.fail_all("heartbeat", true);
    tend(&fixture.issuer).await;
    let silent = fixture.issuer.introspect(&session.access, Caller::Internal).await;
    assert_eq!(silent.unwrap_err().code(), None, "503");
    fixture.store.fail_all("heartbeat", false);
    fixture.tend().await;
    assert!(fixture.is_active(&session.access).await);
}
