//! Revocation (RFC 7009), and what it reaches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::revocation::{Cursor, Epoch, LogEntry, LogEvent, RevocationBatch};
use cloakroom::core::store::{TokenStore as _, TokenStoreExt};
use cloakroom::core::time::UnixTime;
use cloakroom::core::{Audience, GrantId, Random, Subject, TokenSecret};
use cloakroom::{ApprovedRequest, Caller, Event, Grant, GrantRefusal, Lifetimes, TokenError};
use tokio::task::JoinSet;

use super::support::*;

impl Fixture {
    /// `web-app` revokes a token.
    async fn revoke(&self, token: &TokenSecret) {
        self.issuer.revoke(token, &client_id("web-app")).await.unwrap();
    }
}

#[tokio::test]
async fn an_access_token_is_revoked_alone() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let other = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    fixture.revoke(&session.access).await;
    fixture.revoke(&session.access).await;
    assert!(!fixture.is_active(&session.access).await);
    assert!(fixture.is_active(&other.access).await);
    fixture.refresh(&other.refresh).await.unwrap();
    assert_eq!(fixture.sessions().await, 1);
}

impl Fixture {
    /// The revocations in the log so far.
    async fn log(&self) -> Vec<LogEntry> {
        let batch = self.store.memory().revocations(Cursor::start(), 100).await.unwrap();
        let RevocationBatch::Entries { entries, .. } = batch else { panic!("{batch:?}") };
        let revoked = entries.into_iter().filter(|it| matches!(it.event, LogEvent::Revoked { .. }));
        revoked.collect()
    }
}

#[tokio::test]
async fn a_token_from_when_tokens_lived_longer_stays_revoked() {
    let long = secs(12 * 3600);
    let fixture = Fixture::with(|issuer| {
        let retention = 2 * long;
        issuer
            .lifetimes(Lifetimes::default().access_token(long))
            .key_policy(KeyPolicy::default().max_token_life(long).retention(retention))
    })
    .await;
    let tokens = [fixture.session().await.access, fixture.token_for(JOBS).await.access_token];
    // It is built anew, with the settings of today.
    let issuer = fixture.node(&fixture.clock).await;
    for token in tokens {
        issuer.revoke(&token, &client_id("web-app")).await.unwrap();
        let last = fixture.log().await.pop().unwrap();
        // Some verifier may be 2 minutes lenient, and 5 seconds behind.
        let end = UnixTime::from_secs(START.as_secs()) + long;
        assert!(last.until >= end + secs(120 + 5), "{last:?}");
    }
}

#[tokio::test]
async fn a_jwt_is_revoked_for_as_long_as_some_verifier_may_take_it() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.token_for(JOBS).await, fixture.token_for(JOBS).await);
    let end = secs(first.expires_in);
    fixture.clock.advance(end + secs(119));
    assert!(!fixture.is_active(&first.access_token).await);
    fixture.revoke(&first.access_token).await;
    assert_eq!(fixture.log().await.len(), 1);
    fixture.clock.advance(secs(1));
    fixture.revoke(&second.access_token).await;
    assert_eq!(fixture.log().await.len(), 1, "nobody takes that any more");
}

#[tokio::test]
async fn the_log_says_what_a_token_hangs_off() {
    let fixture = Fixture::new().await;
    let jwt = fixture.token_for(JOBS).await.access_token;
    fixture.revoke(&jwt).await;
    let [entry] = &fixture.log().await[..] else { panic!("one entry") };
    let LogEvent::Revoked { client, grant, .. } = &entry.event else { panic!("{entry:?}") };
    assert_eq!(client.as_ref(), Some(&client_id("web-app")));
    let expected = claims(&jwt)["grant_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(*grant, Some(expected));
}

#[tokio::test]
async fn any_genuine_refresh_token_ends_its_grant() {
    // The current one; one that is spent; one that was spent long ago.
    for presented in [2, 1, 0] {
        let fixture = Fixture::new().await;
        let first = fixture.session().await;
        let second = Session::of(fixture.refresh(&first.refresh).await.unwrap());
        let third = Session::of(fixture.refresh(&second.refresh).await.unwrap());
        fixture.clock.advance(5 * MINUTE);
        let tokens = [&first.refresh, &second.refresh, &third.refresh];
        fixture.events.take();
        fixture.revoke(tokens[presented]).await;
        assert_eq!(fixture.events.names(), ["Revoked"], "not a reuse");
        for access in [&first.access, &second.access, &third.access] {
            assert!(!fixture.is_active(access).await);
        }
        for token in tokens {
            assert_eq!(refusal(fixture.refresh(token).await), GrantRefusal::Dead);
        }
    }
}

#[tokio::test]
async fn a_code_ends_its_grant_before_and_after_its_redemption() {
    let fixture = Fixture::new().await;
    let (unspent, spent) = (fixture.code().await, fixture.code().await);
    let session = Session::of(fixture.redeem(&spent).await.unwrap());
    fixture.revoke(&unspent).await;
    assert_eq!(refusal(fixture.redeem(&unspent).await), GrantRefusal::Dead);
    fixture.revoke(&spent).await;
    assert!(!fixture.is_active(&session.access).await);
}

#[tokio::test]
async fn another_clients_token_is_refused_and_lives_on() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let jwt = fixture.token_for(JOBS).await.access_token;
    let (code, other) = (fixture.code().await, client_id("other-app"));
    fixture.events.take();
    for token in [&session.access, &session.refresh, &jwt, &code] {
        let refused = fixture.issuer.revoke(token, &other).await;
        assert!(matches!(refused, Err(TokenError::UnauthorizedClient(_))));
    }
    assert_eq!(fixture.events.names(), [""; 0]);
    assert!(fixture.is_active(&session.access).await && fixture.is_active(&jwt).await);
    fixture.refresh(&session.refresh).await.unwrap();
    fixture.redeem(&code).await.unwrap();
}

#[tokio::test]
async fn what_is_not_known_is_no_error() {
    let fixture = Fixture::new().await;
    let elsewhere = Fixture::new().await.session().await;
    let stranger = handles();
    let (invented, _) =
        stranger.mint_access(grant_of(&fixture.session().await.access), &Random::system()).unwrap();
    fixture.events.take();
    let texts = ["", "junk", "a.b.c", "cr_at_", "cr_rt_AAAA"].map(TokenSecret::new);
    for token in texts.iter().chain([&elsewhere.access, &elsewhere.refresh, &invented]) {
        fixture.revoke(token).await;
    }
    assert_eq!(fixture.events.names(), [""; 0]);
}

#[tokio::test]
async fn a_jwt_is_revoked_by_its_jti() {
    let fixture = Fixture::new().await;
    let session = Session::of(fixture.token_for(JOBS).await);
    let other = Session::of(fixture.refresh_for(JOBS, &session.refresh).await);
    fixture.events.take();
    fixture.revoke(&session.access).await;
    let [Event::Revoked { target: cloakroom::core::revocation::Target::Jti(jti) }] =
        &fixture.events.take()[..]
    else {
        panic!("no event");
    };
    assert_eq!(claims(&session.access)["jti"], jti.as_str());
    assert!(!fixture.is_active(&session.access).await);
    assert!(fixture.is_active(&other.access).await, "and that one alone");
    // Its grant reaches the rest.
    fixture.revoke(&other.refresh).await;
    assert!(!fixture.is_active(&other.access).await);
}

impl Fixture {
    async fn refresh_for(&self, resource: &str, token: &TokenSecret) -> cloakroom::TokenResponse {
        let request = refreshing(token).resources(vec![resource.into()]);
        self.issuer.refresh(request).await.unwrap()
    }

    /// A token for each: Alice and Bob at `web-app` and at `other-app`.
    async fn four(&self) -> [TokenSecret; 4] {
        let mut all = Vec::new();
        for (user, client) in
            [("alice", "web-app"), ("alice", "other-app"), ("bob", "web-app"), ("bob", "other-app")]
        {
            let grant = Grant::user(client, user).unwrap();
            all.push(self.issuer.issue(grant).await.unwrap().access_token);
        }
        all.try_into().ok().unwrap()
    }

    async fn lives(&self, tokens: &[TokenSecret; 4]) -> [bool; 4] {
        let mut lives = [false; 4];
        for (life, token) in lives.iter_mut().zip(tokens) {
            *life = self.is_active(token).await;
        }
        lives
    }
}

#[tokio::test]
async fn a_subject_a_client_or_a_pair_is_revoked_and_nothing_else() {
    let fixture = Fixture::new().await;
    let (issuer, client) = (&fixture.issuer, client_id("web-app"));
    let tokens = fixture.four().await;
    issuer.revoke_subject(&alice()).await.unwrap();
    assert_eq!(fixture.lives(&tokens).await, [false, false, true, true]);
    let tokens = fixture.four().await;
    issuer.revoke_client(&client).await.unwrap();
    assert_eq!(fixture.lives(&tokens).await, [false, true, false, true]);
    let tokens = fixture.four().await;
    issuer.revoke_subject_at_client(&alice(), &client).await.unwrap();
    assert_eq!(fixture.lives(&tokens).await, [false, true, true, true]);
}

#[tokio::test]
async fn a_user_and_a_client_of_one_spelling_are_two() {
    let fixture = Fixture::new().await;
    let (as_client, as_user) = (Subject::client("web-app"), Subject::user("web-app"));
    let issue = |grant: Grant| async { fixture.issuer.issue(grant).await.unwrap().access_token };
    let client = issue(Grant::client("web-app").unwrap()).await;
    let user = issue(Grant::user("web-app", "web-app").unwrap()).await;
    fixture.issuer.revoke_subject(&as_user.unwrap()).await.unwrap();
    assert!(!fixture.is_active(&user).await && fixture.is_active(&client).await);
    let user = issue(Grant::user("web-app", "web-app").unwrap()).await;
    fixture.issuer.revoke_subject(&as_client.unwrap()).await.unwrap();
    assert!(fixture.is_active(&user).await && !fixture.is_active(&client).await);
}

#[tokio::test]
async fn the_login_right_after_log_out_everywhere_lives() {
    let fixture = Fixture::new().await;
    for _ in 0..10 {
        // All in one millisecond, as the clock does not move.
        let session = fixture.session().await;
        let jwt = fixture.token_for(JOBS).await.access_token;
        fixture.issuer.revoke_subject(&alice()).await.unwrap();
        assert!(!fixture.is_active(&session.access).await && !fixture.is_active(&jwt).await);
        assert_eq!(refusal(fixture.refresh(&session.refresh).await), GrantRefusal::Dead);
        let session = fixture.session().await;
        assert!(fixture.is_active(&session.access).await);
        fixture.refresh(&session.refresh).await.unwrap();
        assert_eq!(fixture.sessions().await, 1);
    }
}

#[tokio::test]
async fn a_login_in_progress_dies_with_the_revocation() {
    let fixture = Fixture::new().await;
    let issuer = &fixture.issuer;
    let epoch = issuer.epoch().await.unwrap();
    let grant = || Grant::user("web-app", "alice").unwrap().epoch(epoch);
    // Before the revocation it is good.
    let early = issuer.issue(grant()).await.unwrap();
    let code =
        issuer.authorize(ApprovedRequest::new(grant(), CALLBACK).pkce(challenge())).await.unwrap();
    issuer.revoke_subject(&alice()).await.unwrap();
    assert!(!fixture.is_active(&early.access_token).await);
    assert_eq!(refusal(fixture.redeem(&code).await), GrantRefusal::Dead);
    // Her password is typed in only now.
    let late = issuer.issue(grant()).await.unwrap_err();
    assert!(matches!(late, TokenError::Barred));
    assert_eq!(late.code(), Some("invalid_grant"));
    let code = issuer.authorize(ApprovedRequest::new(grant(), CALLBACK).pkce(challenge())).await;
    assert!(matches!(code, Err(TokenError::Barred)));
    // Another user's is not affected.
    let bob = Grant::user("web-app", "bob").unwrap().epoch(epoch);
    issuer.issue(bob).await.unwrap();
    assert_eq!(fixture.sessions().await, 0);
}

#[tokio::test]
async fn a_revocation_between_the_two_steps_of_a_login_covers_it() {
    let fixture = Fixture::new().await;
    fixture.store.before_next("create", {
        let issuer = fixture.issuer.clone();
        async move { issuer.revoke_subject(&alice()).await.unwrap() }
    });
    let grant = Grant::user("web-app", "alice").unwrap();
    assert!(matches!(fixture.issuer.issue(grant).await, Err(TokenError::Barred)));
    assert_eq!(fixture.sessions().await, 0);
}

/// The order of logins and revocations is that of reading the epoch and allotting the bound:
///
/// - a login whose epoch was read before a revocation was asked for is dead once both are done;
/// - one that began after it was acknowledged lives;
/// - in between it lives if and only if its epoch is above the bound, and is refused only if not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_login_slips_past_a_revocation() {
    const TASKS: usize = 6;
    let fixture = Fixture::new().await;
    for _ in 0..40 {
        let asked = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let issuer = fixture.issuer.clone();
            let (asked, acknowledged) = (asked.clone(), acknowledged.clone());
            let begun = begun.clone();
            tasks.spawn(async move {
                let mut logins = Vec::new();
                loop {
                    let after = acknowledged.load(Ordering::SeqCst);
                    let epoch = issuer.epoch().await.unwrap();
                    let before = !asked.load(Ordering::SeqCst);
                    begun.fetch_add(1, Ordering::SeqCst);
                    let grant = Grant::user("web-app", "alice").unwrap().epoch(epoch);
                    logins.push((before, after, epoch, issuer.issue(grant).await));
                    if after {
                        return logins;
                    }
                }
            });
        }
        // Once every task is at it.
        while begun.load(Ordering::SeqCst) < TASKS {
            tokio::task::yield_now().await;
        }
        asked.store(true, Ordering::SeqCst);
        fixture.issuer.revoke_subject(&alice()).await.unwrap();
        acknowledged.store(true, Ordering::SeqCst);

        let logins: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        let following: Epoch = fixture.store.memory().epoch().await.unwrap();
        for (before, after, epoch, login) in logins {
            let lives = match &login {
                Ok(response) => fixture.is_active(&response.access_token).await,
                Err(TokenError::Barred) => false,
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(lives, epoch >= following, "{epoch:?} {following:?} {login:?}");
            assert!(!(before && lives), "it escaped");
            assert!(!after || lives, "it was refused for nothing");
        }
        fixture.issuer.revoke_subject(&alice()).await.unwrap();
        assert_eq!(fixture.sessions().await, 0);
    }
}

#[tokio::test]
async fn a_grant_that_is_revoked_before_it_is_seen_never_lives() {
    let fixture = Fixture::new().await;
    let grant = GrantId::from_bytes([7; 16]);
    fixture.issuer.revoke_grant(grant).await.unwrap();
    fixture.issuer.revoke_grant(grant).await.unwrap();
    let (token, _) = handles().mint_access(grant, &Random::system()).unwrap();
    assert!(!fixture.is_active(&token).await);
}

#[tokio::test]
async fn a_revoked_session_is_gone_from_the_list_and_the_others_stay() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    fixture.clock.advance(MINUTE);
    fixture.sign_in("other-app").await;
    let sessions = fixture.issuer.sessions(&alice()).await.unwrap();
    let clients: Vec<_> = sessions.iter().map(|session| session.client.as_str()).collect();
    assert_eq!(clients, ["other-app", "web-app"], "newest first");
    fixture.issuer.revoke_grant(sessions[1].grant).await.unwrap();
    assert_eq!(fixture.sessions().await, 1);
    assert!(!fixture.is_active(&first.access).await);
    let audience = Audience::one(ORDERS).unwrap();
    let grant = Grant::client("web-app").unwrap().audience(audience);
    fixture.issuer.issue(grant).await.unwrap();
    assert_eq!(fixture.sessions().await, 1, "the client's own are not hers");
    let answer = fixture.issuer.introspect(&first.refresh, Caller::Internal).await;
    assert!(!answer.unwrap().is_active());
}
