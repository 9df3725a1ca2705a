//! A store that goes back in time: what a server knows stays in force, and the store learns it again.

use std::collections::HashMap;
use std::sync::Arc;

use cloakroom::core::revocation::{
    Cursor, Epoch, LogEntry, LogEvent, RevocationBatch, RuleKey, Target,
};
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::time::{Clock as _, ManualClock, UnixTime};
use cloakroom::core::{Audience, Kid, Subject};
use cloakroom::{
    Caller, Event, Grant, GrantRefusal, Issuer, IssuerBuilder, Operation, RefreshRequest,
    Regression, TokenError,
};

use super::store::When;
use super::support::*;

/// What a server has revoked, and what lives.
struct Story {
    session: Session,
    token: Session,
    jwt: cloakroom::TokenSecret,
    by_subject: cloakroom::TokenResponse,
    key: Kid,
    living: Session,
}

impl Fixture {
    /// Runs maintenance for a moment: a heartbeat is written and read, and the store put right.
    pub(super) async fn tend(&self) {
        let now = self.clock.now();
        self.store.memory().heartbeat(now, now + MINUTE).await.unwrap();
        tend(&self.issuer).await;
    }

    async fn story(&self) -> Story {
        let bob = Grant::user("other-app", "bob").unwrap();
        Story {
            session: self.session().await,
            token: self.session().await,
            jwt: self.token_for(JOBS).await.access_token,
            by_subject: self.issuer.issue(bob).await.unwrap(),
            key: signer(&self.issuer).await,
            living: self.session().await,
        }
    }

    async fn revoke_all(&self, story: &Story) {
        let (issuer, client) = (&self.issuer, client_id("web-app"));
        issuer.revoke(&story.session.refresh, &client).await.unwrap();
        issuer.revoke(&story.token.access, &client).await.unwrap();
        issuer.revoke(&story.jwt, &client).await.unwrap();
        issuer.revoke_subject(&bob()).await.unwrap();
        issuer.compromise_key(&story.key).await.unwrap();
    }

    /// What was revoked, except nobody, whose revocation raises the newest bound.
    async fn logged(&self) -> Vec<Target> {
        let is_nobody = |target: &Target| match target {
            Target::SubjectAtClient(Subject::User(user), client) => {
                user.as_str() == client.as_str()
            }
            _ => false,
        };
        let revoked = |event| match event {
            LogEvent::Revoked { target, .. } => Some(target).filter(|target| !is_nobody(target)),
            _ => None,
        };
        self.entries().await.into_iter().filter_map(|entry| revoked(entry.event)).collect()
    }

    pub(super) async fn entries(&self) -> Vec<LogEntry> {
        let batch = self.store.memory().revocations(Cursor::start(), 1_000).await.unwrap();
        let RevocationBatch::Entries { entries, .. } = batch else { panic!("a gap at the start") };
        entries
    }

    /// When the newest entry of each revocation ends.
    async fn log_ends(&self) -> HashMap<Target, UnixTime> {
        let revoked = |entry: LogEntry| match entry.event {
            LogEvent::Revoked { target, .. } => Some((target, entry.until)),
            _ => None,
        };
        self.entries().await.into_iter().filter_map(revoked).collect()
    }

    /// When each heartbeat was written, by its writer.
    async fn heartbeats(&self) -> Vec<UnixTime> {
        let entries = self.entries().await;
        let heartbeats =
            entries.iter().filter(|entry| matches!(entry.event, LogEvent::Heartbeat {}));
        heartbeats.map(|entry| entry.at).collect()
    }

    pub(super) fn regressions(&self) -> Vec<Regression> {
        let noticed = |event| match event {
            Event::StoreRegressed { noticed } => Some(noticed),
            _ => None,
        };
        self.events.take().into_iter().filter_map(noticed).collect()
    }
}

pub(super) fn bob() -> Subject {
    Subject::user("bob").unwrap()
}

pub(super) async fn signer(issuer: &Issuer) -> Kid {
    issuer.keys().signer().await.unwrap().kid().clone()
}

/// Lets a server follow its log for a moment.
pub(crate) async fn tend(issuer: &Issuer) {
    let issuer = issuer.clone();
    let maintenance = tokio::spawn(async move { issuer.run_maintenance().await });
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    maintenance.abort();
}

async fn is_active(issuer: &Issuer, token: &cloakroom::TokenSecret) -> bool {
    issuer.introspect(token, Caller::Internal).await.unwrap().is_active()
}

async fn assert_revoked(issuer: &Issuer, story: &Story) {
    for token in [&story.session.access, &story.token.access, &story.jwt] {
        assert!(!is_active(issuer, token).await);
    }
    let refreshed = issuer.refresh(refreshing(&story.session.refresh)).await;
    assert!(refreshed.is_err());
    assert!(!is_active(issuer, &story.by_subject.access_token).await);
    assert!(issuer.sessions(&bob()).await.unwrap().is_empty());
    assert_ne!(signer(issuer).await, story.key);
    assert!(!issuer.jwks().await.unwrap().json.contains(story.key.as_str()));
    assert!(is_active(issuer, &story.living.access).await);
}

#[tokio::test]
async fn what_was_revoked_is_dead_before_the_log_is_read_and_repeated_after() {
    let fixture = Fixture::new().await;
    let story = fixture.story().await;
    fixture.tend().await;
    let copy = fixture.store.copy().await;
    fixture.revoke_all(&story).await;
    fixture.store.put_back(copy);
    fixture.events.take();
    // By this server's own memory alone.
    assert_revoked(&fixture.issuer, &story).await;
    assert_eq!(fixture.logged().await, [], "the store knows nothing");

    fixture.clock.advance(secs(61));
    assert_revoked(&fixture.issuer, &story).await;
    fixture.tend().await;
    let noticed = fixture.regressions();
    assert!(noticed.contains(&Regression::Log), "{noticed:?}");
    let kid = story.key.clone();
    assert!(noticed.contains(&Regression::Key { kid }), "{noticed:?}");
    assert_eq!(fixture.logged().await.len(), 5);
    assert_revoked(&fixture.issuer, &story).await;
    // Whoever knows nothing but the store agrees.
    let fresh = fixture.node(&fixture.clock).await;
    assert_revoked(&fresh, &story).await;
    // All is said and done.
    fixture.clock.advance(secs(61));
    fixture.tend().await;
    assert_eq!(fixture.logged().await.len(), 5);
    assert_eq!(fixture.regressions(), []);
    fixture.session().await;
}

#[tokio::test]
async fn what_another_server_revoked_is_known_from_the_log() {
    let fixture = Fixture::new().await;
    let story = fixture.story().await;
    let other = fixture.node(&fixture.clock).await;
    tend(&other).await;
    let copy = fixture.store.copy().await;
    fixture.revoke_all(&story).await;
    // It hears of the key as well, long before it loads its ring again.
    tend(&other).await;
    assert_revoked(&other, &story).await;
    fixture.store.put_back(copy);
    assert_revoked(&other, &story).await;
    tend(&other).await;
    assert_eq!(fixture.logged().await.len(), 5);
}

/// Two servers notice the same at once.
#[tokio::test]
async fn servers_that_repeat_the_same_come_to_rest() {
    let fixture = Fixture::new().await;
    let story = fixture.story().await;
    let other = fixture.node(&fixture.clock).await;
    tend(&other).await;
    fixture.tend().await;
    let copy = fixture.store.copy().await;
    fixture.revoke_all(&story).await;
    tend(&other).await;
    fixture.store.put_back(copy);
    tokio::join!(tend(&other), fixture.tend());
    for _ in 0..3 {
        fixture.clock.advance(secs(61));
        tokio::join!(tend(&other), fixture.tend());
    }
    let logged = fixture.logged().await;
    assert!((5..=10).contains(&logged.len()), "each at most once a server: {logged:?}");
    fixture.events.take();
    fixture.clock.advance(secs(61));
    tokio::join!(tend(&other), fixture.tend());
    assert_eq!(fixture.logged().await, logged);
    assert_eq!(fixture.regressions(), []);
    // A login now is as good as ever.
    let login = || Grant::user("other-app", "bob").unwrap();
    for issuer in [&fixture.issuer, &other] {
        let tokens = issuer.issue(login()).await.unwrap();
        assert!(is_active(&fixture.issuer, &tokens.access_token).await);
        assert!(is_active(&other, &tokens.access_token).await);
    }
}

#[tokio::test]
async fn nothing_is_vouched_for_until_the_store_is_put_right() {
    let fixture = Fixture::new().await;
    let story = fixture.story().await;
    fixture.tend().await;
    let copy = fixture.store.copy().await;
    fixture.issuer.revoke_subject(&bob()).await.unwrap();
    fixture.tend().await;
    fixture.store.put_back(copy);
    // It is noticed, and cannot be put right.
    fixture.store.fail_all("revoke", true);
    fixture.tend().await;
    let refused = |answer: Result<(), TokenError>| {
        assert_eq!(answer.unwrap_err().code(), None, "503");
    };
    for _ in 0..3 {
        let access = &story.living.access;
        refused(fixture.issuer.introspect(access, Caller::Internal).await.map(drop));
        refused(fixture.issuer.swap(access, Some(ORDERS), Caller::Internal).await.map(drop));
        refused(fixture.refresh(&story.living.refresh).await.map(drop));
        let login = Grant::user("web-app", "alice").unwrap();
        refused(fixture.issuer.issue(login).await.map(drop));
        refused(fixture.issuer.epoch().await.map(drop));
    }
    fixture.store.fail_all("revoke", false);
    // By itself, whether or not maintenance runs.
    assert!(fixture.is_active(&story.living.access).await);
    fixture.refresh(&story.living.refresh).await.unwrap();
    assert_eq!(fixture.logged().await.len(), 1);
}

#[tokio::test]
async fn a_bound_that_went_back_is_noticed_by_whoever_signs_in() {
    let fixture = Fixture::new().await;
    let copy = fixture.store.copy().await;
    // Within one millisecond: bounds run ahead of the clock.
    for _ in 0..3 {
        fixture.issuer.revoke_subject(&bob()).await.unwrap();
    }
    let before = fixture.issuer.epoch().await.unwrap();
    fixture.store.put_back(copy);
    fixture.events.take();
    let login = || Grant::user("web-app", "alice").unwrap();
    fixture.issuer.issue(login()).await.unwrap_err();
    fixture.issuer.issue(login()).await.unwrap();
    let noticed = fixture.regressions();
    assert!(matches!(noticed[..], [Regression::Bound { .. }]), "{noticed:?}");
    assert!(fixture.issuer.epoch().await.unwrap() >= before);
    assert_eq!(fixture.logged().await.len(), 1);
}

#[tokio::test]
async fn what_was_written_and_is_not_in_the_log_is_noticed_without_a_gap() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    fixture.tend().await;
    fixture.store.swallow_revocation();
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    assert!(!fixture.is_active(&session.access).await);
    fixture.tend().await;
    assert_eq!(fixture.regressions(), [], "the heartbeat may be older, by another clock");
    fixture.clock.advance(secs(6));
    fixture.tend().await;
    assert_eq!(fixture.regressions(), [Regression::Written]);
    assert_eq!(fixture.logged().await, [Target::Grant(grant_of(&session.access))]);
}

#[tokio::test]
async fn a_place_that_was_trimmed_in_time_is_no_regression() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    fixture.tend().await;
    // The machine sleeps, and the others trim what has ended.
    let other = fixture.node(&fixture.clock).await;
    for _ in 0..5 {
        fixture.clock.advance(HOUR);
        tend(&other).await;
    }
    fixture.events.take();
    fixture.tend().await;
    assert_eq!(fixture.regressions(), []);
    fixture.session().await;
}

#[tokio::test]
async fn the_log_brings_the_epoch_and_the_store_is_asked_where_that_is_too_old() {
    let fixture = Fixture::new().await;
    fixture.tend().await;
    fixture.store.calls();
    fixture.session().await;
    fixture.code().await;
    assert_eq!(fixture.store.calls(), ["create"; 2]);

    // Revoked elsewhere, and not heard of here: the next login is none of those that it ends.
    let other = fixture.node(&fixture.clock).await;
    fixture.clock.advance(secs(1));
    other.revoke_subject(&alice()).await.unwrap();
    fixture.store.calls();
    let next = fixture.session().await;
    assert_eq!(fixture.store.calls(), ["create", "rules", "create"]);
    assert!(fixture.is_active(&next.access).await);
    let code = fixture.code().await;
    fixture.redeem(&code).await.unwrap();

    // A login that began before is.
    let grant = Grant::user("web-app", "alice").unwrap().epoch(Epoch::new(1));
    assert!(matches!(fixture.issuer.issue(grant).await, Err(TokenError::Barred)));

    // Nobody follows the log any more.
    fixture.clock.advance(secs(4));
    fixture.store.calls();
    fixture.session().await;
    assert_eq!(fixture.store.calls(), ["rules", "create"]);
}

#[tokio::test]
async fn a_bound_that_is_lost_is_raised_again() {
    let fixture = Fixture::new().await;
    fixture.tend().await;
    let copy = fixture.store.copy().await;
    // By a server whose clock is ahead.
    let ahead = Arc::new(ManualClock::at(fixture.clock.now() + secs(4)));
    let other = fixture.node(&ahead).await;
    other.revoke_subject(&bob()).await.unwrap();
    fixture.tend().await;
    let epoch = fixture.issuer.epoch().await.unwrap();
    fixture.store.put_back(copy);
    fixture.tend().await;
    let login = Grant::user("web-app", "alice").unwrap();
    let tokens = fixture.issuer.issue(login).await.unwrap();
    assert!(fixture.issuer.epoch().await.unwrap() >= epoch);
    // The clock of whoever revokes is behind the epoch of the login.
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    assert!(!fixture.is_active(&tokens.access_token).await);
    let fresh = fixture.node(&fixture.clock).await;
    assert!(!is_active(&fresh, &tokens.access_token).await);
}

#[tokio::test]
async fn a_jwt_without_a_row_stays_revoked_with_its_grant() {
    let fixture = Fixture::with(IssuerBuilder::stateless_jwt).await;
    let for_itself = Grant::client("web-app").unwrap().audience(Audience::one(JOBS).unwrap());
    let jwt = fixture.issuer.issue(for_itself).await.unwrap();
    fixture.tend().await;
    let copy = fixture.store.copy().await;
    fixture.issuer.revoke_grant(jwt.grant).await.unwrap();
    fixture.store.put_back(copy);
    assert!(!fixture.is_active(&jwt.access_token).await);
    fixture.tend().await;
    assert!(!fixture.is_active(&jwt.access_token).await);
    assert_eq!(fixture.logged().await, [Target::Grant(jwt.grant)]);
}

/// Until the store was put right, servers that know nothing of a revocation may have issued tokens.
#[tokio::test]
async fn a_repeated_revocation_lasts_as_long_as_a_new_one() {
    let fixture = Fixture::new().await;
    let other_server = fixture.node(&fixture.clock).await;
    let (session, other) = (fixture.session().await, fixture.session().await);
    fixture.tend().await;
    let copy = fixture.store.copy().await;
    let lost = [Target::Grant(grant_of(&session.access)), Target::Subject(bob())];
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    other_server.revoke_subject(&bob()).await.unwrap();
    for _ in 0..5 {
        fixture.clock.advance(10 * MINUTE);
        fixture.tend().await;
    }
    fixture.store.put_back(copy);
    let ignorant = fixture.node(&fixture.clock).await;
    ignorant.refresh(refreshing(&session.refresh)).await.unwrap();
    fixture.tend().await;
    fixture.issuer.revoke_grant(grant_of(&other.access)).await.unwrap();
    let ends = fixture.log_ends().await;
    let new = ends[&Target::Grant(grant_of(&other.access))];
    for target in lost {
        assert!(ends[&target] >= new, "{target:?}");
    }
    // Its rule denies whoever signed in since, for as long as a grant lives.
    let rules = fixture.store.memory().rules(vec![RuleKey::Subject(bob())]).await.unwrap().rules;
    assert!(rules[0].until >= fixture.clock.now() + 90 * DAY, "{rules:?}");
}

#[tokio::test]
async fn a_revocation_is_repeated_and_reported_even_if_the_store_fails() {
    for when in [When::Before, When::After] {
        let fixture = Fixture::new().await;
        let session = fixture.session().await;
        fixture.tend().await;
        let copy = fixture.store.copy().await;
        fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
        fixture.store.put_back(copy);
        fixture.events.take();
        fixture.store.fail_next("revoke", when);
        for _ in 0..2 {
            fixture.clock.advance(secs(61));
            fixture.tend().await;
        }
        let target = Target::Grant(grant_of(&session.access));
        assert_eq!(fixture.logged().await, std::slice::from_ref(&target));
        let mut events = fixture.events.take();
        events.retain(|event| !matches!(event, Event::StoreRegressed { .. }));
        let operation = Operation::Revoke;
        let mut expected = vec![Event::Unconfirmed { operation, target: Some(target.clone()) }];
        if when == When::Before {
            expected.push(Event::Revoked { target });
        }
        assert_eq!(events, expected, "{when:?}");
    }
}

/// Bounds run ahead of the clock where thousands of subjects are revoked each second.
#[tokio::test]
async fn a_bound_far_ahead_of_the_clock_is_raised_again() {
    for ahead in [secs(10), secs(100), 300 * DAY] {
        let fixture = Fixture::new().await;
        let copy = fixture.store.copy().await;
        let now = fixture.clock.now();
        fixture.store.memory().heartbeat(now + ahead, now + MINUTE).await.unwrap();
        fixture.tend().await;
        let epoch = fixture.issuer.epoch().await.unwrap();
        fixture.store.put_back(copy);
        fixture.tend().await;
        let tokens = fixture.sign_in("web-app").await;
        assert!(fixture.issuer.epoch().await.unwrap() >= epoch);
        fixture.issuer.revoke_subject(&alice()).await.unwrap();
        let fresh = fixture.node(&fixture.clock).await;
        assert!(!is_active(&fresh, &tokens.access_token).await, "{ahead:?}");
        // A heartbeat from the future would make whoever reads it late look up to date.
        let heartbeats = fixture.heartbeats().await;
        assert!(heartbeats.iter().all(|at| *at <= fixture.clock.now()), "{heartbeats:?}");
        // Nothing is missing now.
        fixture.events.take();
        let logged = fixture.logged().await;
        for _ in 0..2 {
            fixture.clock.advance(secs(61));
            fixture.tend().await;
        }
        assert_eq!(fixture.regressions(), []);
        assert_eq!(fixture.logged().await, logged);
    }
}

#[tokio::test]
async fn what_was_noticed_is_reported_at_the_latest_when_the_issuer_goes() {
    let fixture = Fixture::new().await;
    let key = signer(&fixture.issuer).await;
    let copy = fixture.store.copy().await;
    fixture.issuer.compromise_key(&key).await.unwrap();
    fixture.store.put_back(copy);
    fixture.clock.advance(secs(61));
    fixture.issuer.jwks().await.unwrap();
    let Fixture { issuer, events, .. } = fixture;
    events.take();
    drop(issuer);
    let kid = key;
    let events = events.take();
    let noticed = Event::StoreRegressed { noticed: Regression::Key { kid } };
    assert!(events.contains(&noticed), "{events:?}");

    let fixture = Fixture::new().await;
    let copy = fixture.store.copy().await;
    for _ in 0..3 {
        fixture.issuer.revoke_subject(&bob()).await.unwrap();
    }
    fixture.store.put_back(copy);
    fixture.issuer.epoch().await.unwrap_err();
    let Fixture { issuer, events, .. } = fixture;
    drop(issuer);
    let last = events.take().pop();
    let noticed = matches!(last, Some(Event::StoreRegressed { noticed: Regression::Bound { .. } }));
    assert!(noticed, "{last:?}");
}

/// A replica that is new, or begins to read anew, knows what the log holds. A heartbeat would make it
/// look complete.
#[tokio::test(start_paused = true)]
async fn no_heartbeat_vouches_for_a_log_that_lacks_revocations() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    let heartbeats = async |seconds| {
        fixture.store.calls();
        for _ in 0..seconds {
            tokio::time::sleep(secs(1)).await;
            fixture.clock.advance(secs(1));
        }
        fixture.store.calls().iter().filter(|call| **call == "heartbeat").count()
    };
    assert!((4..=6).contains(&heartbeats(5).await));
    let copy = fixture.store.copy().await;
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    fixture.store.put_back(copy);
    fixture.store.fail_all("revoke", true);
    // Until it is noticed: the log looks complete up to the next heartbeat in it.
    assert!(heartbeats(3).await <= 1);
    assert_eq!(heartbeats(20).await, 0);
    fixture.store.fail_all("revoke", false);
    assert!(heartbeats(5).await >= 3);
    assert_eq!(fixture.logged().await, [Target::Grant(grant_of(&session.access))]);
    running.abort();
}

/// The store goes back right after a revocation, while a refresh has found its grant alive and waits
/// for a signature.
#[tokio::test]
async fn a_step_for_a_grant_that_is_known_to_be_revoked_is_not_taken() {
    for (client, by_subject) in
        [("web-app", false), ("web-app", true), ("workers", false), ("workers", true)]
    {
        let fixture = Fixture::new().await;
        let grant = Grant::user(client, "alice").unwrap().audience(Audience::one(JOBS).unwrap());
        let token = fixture.issuer.issue(grant).await.unwrap().refresh_token.unwrap();
        let copy = fixture.store.copy().await;
        // The ring of keys is loaded again.
        fixture.clock.advance(secs(61));
        let gate = fixture.store.hold("keys.load", When::After);
        let request = RefreshRequest::new(token.clone(), client_id(client));
        let issuer = fixture.issuer.clone();
        let refreshed = tokio::spawn(async move { issuer.refresh(request).await });
        gate.holds(1).await;
        match by_subject {
            true => fixture.issuer.revoke_subject(&alice()).await.unwrap(),
            false => fixture.issuer.revoke_grant(grant_of(&token)).await.unwrap(),
        }
        fixture.store.put_back(copy);
        fixture.events.take();
        gate.open();
        assert_eq!(refusal(refreshed.await.unwrap()), GrantRefusal::Dead, "{client} {by_subject}");
        assert_eq!(fixture.events.names(), [""; 0], "{client} {by_subject}");
    }
}
