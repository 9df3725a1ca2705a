//! What an operator asks: why a token is inactive, what a grant is, what is wrong with a store.

use std::sync::Arc;

use cloakroom::core::handle::{HandleKeys, HandleSecret};
use cloakroom::core::revocation::{Revocation, Target};
use cloakroom::core::store::{PageRequest, Selector, TokenStore as _};
use cloakroom::core::{Audience, GrantId, Jti, Kid};
use cloakroom::jwt::{ACCESS_TOKEN_TYP, AesGcmSealer, sign_jwt};
use cloakroom::operator::*;
use cloakroom::{Caller, Event, Grant, Issuer, IssuerBuilder, Subject, TokenError, TokenSecret};

use super::support::*;

impl Fixture {
    /// The inspection, which agrees with introspection about access tokens.
    async fn inspect(&self, token: &TokenSecret) -> TokenInspection {
        let found = self.issuer.inspect_token(token).await.unwrap();
        assert_eq!(found.active, found.reason.is_none());
        if !matches!(
            found.token,
            PresentedToken::RefreshToken { .. } | PresentedToken::AuthorizationCode
        ) {
            assert_eq!(found.active, self.is_active(token).await, "{found:?}");
        }
        // Nothing in it shows the token, in any form.
        let signature = token.expose().rsplit('.').next().unwrap();
        let text = format!("{found:?}{}", serde_json::to_string(&found).unwrap());
        assert!(!text.contains(signature), "{text}");
        found
    }

    async fn reason(&self, token: &TokenSecret) -> InactiveReason {
        self.inspect(token).await.reason.unwrap()
    }
}

#[tokio::test]
async fn an_access_token_is_active_until_it_is_not_and_the_reason_is_named() {
    let fixture = Fixture::new().await;
    for resource in [REPORTS, JOBS] {
        let session = Session::of(fixture.token_for(resource).await);
        let token = session.access.clone();
        let found = fixture.inspect(&token).await;
        assert_eq!(found.grant, Some(grant_of(&session.refresh)));
        assert_eq!(matches!(found.token, PresentedToken::Jwt { .. }), resource == JOBS);
        assert!(found.introspection.unwrap().is_active());
        // Revoked by itself.
        fixture.issuer.revoke(&token, &"web-app".parse().unwrap()).await.unwrap();
        let found = fixture.inspect(&token).await;
        assert_eq!(found.reason, Some(InactiveReason::TokenRevoked));
        assert!(!found.introspection.unwrap().is_active());
        // With its grant, which is the better reason.
        fixture.issuer.revoke_grant(grant_of(&session.refresh)).await.unwrap();
        let at = fixture.issuer.clock().now();
        assert_eq!(fixture.reason(&token).await, InactiveReason::GrantRevoked { at });

        let ended = Session::of(fixture.token_for(resource).await);
        fixture.clock.advance(11 * MINUTE);
        let reason = fixture.reason(&ended.access).await;
        assert!(matches!(reason, InactiveReason::TokenExpired { .. }), "{reason}");
        // Beyond the leeway, a JWT is not even looked up.
        fixture.clock.advance(2 * MINUTE);
        let reason = fixture.reason(&ended.access).await;
        let is_refused = matches!(reason, InactiveReason::JwtRefused { .. });
        assert_eq!(is_refused, resource == JOBS, "{reason}");
        fixture.clock.advance(91 * DAY);
        if resource == REPORTS {
            let reason = fixture.reason(&ended.access).await;
            assert!(matches!(reason, InactiveReason::GrantExpired { .. }), "{reason}");
            fixture.issuer.maintain().await.unwrap();
            assert_eq!(fixture.reason(&ended.access).await, InactiveReason::GrantUnknown);
        }
    }
}

#[tokio::test]
async fn what_is_not_a_token_of_this_issuer_is_told_apart() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let text = session.access.expose();
    for bad in ["", "x", &text[..text.len() - 1], "a.b.c", "e30.e30.AA"] {
        let reason = fixture.issuer.inspect_token(&TokenSecret::new(bad)).await.unwrap().reason;
        match bad {
            "e30.e30.AA" => assert!(matches!(reason, Some(InactiveReason::JwtRefused { .. }))),
            _ => assert_eq!(reason, Some(InactiveReason::NotRecognized), "{bad}"),
        }
    }
    // Under a secret that this node does not have.
    let secret = HandleSecret::new(9, [9; 32]);
    let other = HandleKeys::new(&secret).for_issuer(ISSUER, &[]);
    let random = cloakroom::core::Random::system();
    let (token, _) = other.mint_access(grant_of(&session.refresh), &random).unwrap();
    let reason = fixture.issuer.inspect_token(&token).await.unwrap().reason;
    assert_eq!(reason, Some(InactiveReason::UnknownHandleSecret { id: 9 }));
    // A key that was compromised.
    let jwt = fixture.token_for(JOBS).await.access_token;
    let kid = fixture.issuer.keys().signer().await.unwrap().kid().clone();
    fixture.issuer.compromise_key(&kid).await.unwrap();
    assert_eq!(fixture.reason(&jwt).await, InactiveReason::KeyRevoked);
    // A grant that was revoked before it was created.
    let id = GrantId::from_bytes([5; 16]);
    fixture.issuer.revoke_grant(id).await.unwrap();
    assert_eq!(
        fixture.issuer.inspect_grant(id).await.unwrap(),
        InspectedGrant::RevokedBeforeCreation
    );
}

#[tokio::test]
async fn a_spent_credential_is_explained_and_its_session_lives_on() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    let found = fixture.inspect(&code).await;
    assert_eq!((found.token, found.active), (PresentedToken::AuthorizationCode, true));
    let first = Session::of(fixture.redeem(&code).await.unwrap());
    let second = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    let found = fixture.inspect(&second.refresh).await;
    assert!(matches!(found.token, PresentedToken::RefreshToken { generation: 2 }), "{found:?}");
    assert!(found.active);
    let reason = fixture.reason(&first.refresh).await;
    assert!(matches!(reason, InactiveReason::SpentRecently { .. }), "{reason}");
    fixture.clock.advance(WINDOW);
    for spent in [&code, &first.refresh] {
        assert_eq!(fixture.reason(spent).await, InactiveReason::Spent { current: 2 });
    }
    assert!(fixture.events.names().iter().all(|name| name != "ReuseDetected"));
    assert!(fixture.inspect(&second.refresh).await.active);
    fixture.clock.advance(15 * DAY);
    let reason = fixture.reason(&second.refresh).await;
    // Nobody has refreshed it, so it has ended before its own end.
    let now = fixture.issuer.clock().now();
    assert!(matches!(reason, InactiveReason::GrantExpired { at } if at <= now), "{reason}");
}

/// Each spent credential has a window of its own, and each one that can be redeemed an end.
#[tokio::test]
async fn the_times_of_a_chain_are_its_own() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    fixture.clock.advance(secs(10));
    let second = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    fixture.clock.advance(secs(10));
    let third = Session::of(fixture.refresh(&second.refresh).await.unwrap());
    let recently = |until| InactiveReason::SpentRecently { until };
    assert_eq!(fixture.reason(&first.refresh).await, recently(START + secs(10) + WINDOW));
    assert_eq!(fixture.reason(&second.refresh).await, recently(START + secs(20) + WINDOW));
    // The grant outlives the refresh token: what was issued with it may be active for a while.
    fixture.clock.advance(14 * DAY - secs(1));
    assert!(fixture.inspect(&third.refresh).await.active);
    fixture.clock.advance(secs(1));
    let at = fixture.issuer.clock().now();
    assert_eq!(fixture.reason(&third.refresh).await, InactiveReason::TokenExpired { at });
}

/// The issuer signs these too, and neither is an access token.
#[tokio::test]
async fn a_jwt_that_is_no_access_token_is_told_from_a_phantom_jwt() {
    let fixture = Fixture::new().await;
    let handle = fixture.session().await.access;
    let swapped = fixture.issuer.swap(&handle, Some(ORDERS), Caller::Internal).await.unwrap();
    assert_eq!(fixture.reason(&swapped.unwrap().jwt).await, InactiveReason::PhantomJwt);
    let mut claims = claims(&fixture.token_for(JOBS).await.access_token);
    claims.as_object_mut().unwrap().remove("grant_epoch").unwrap();
    let signer = fixture.issuer.keys().signer().await.unwrap();
    let jwt = sign_jwt(&*signer, ACCESS_TOKEN_TYP, &claims).await.unwrap();
    assert_eq!(fixture.reason(&jwt).await, InactiveReason::NotRecognized);
}

/// No grant is stored for a stateless JWT, so it is judged by what it carries. Another one has lost its
/// grant, in a restore.
#[tokio::test]
async fn a_jwt_without_a_grant_in_the_store_is_explained() {
    for is_stateless in [true, false] {
        let fixture = Fixture::with(|builder| match is_stateless {
            true => IssuerBuilder::stateless_jwt(builder),
            false => builder,
        })
        .await;
        let copy = fixture.store.copy().await;
        let grant = Grant::client("web-app").unwrap().audience(Audience::one(JOBS).unwrap());
        let jwt = fixture.issuer.issue(grant).await.unwrap().access_token;
        fixture.store.put_back(copy);
        assert_eq!(fixture.is_active(&jwt).await, is_stateless);
        fixture.issuer.revoke(&jwt, &client_id("web-app")).await.unwrap();
        let expected = match is_stateless {
            true => InactiveReason::TokenRevoked,
            false => InactiveReason::GrantUnknown,
        };
        assert_eq!(fixture.reason(&jwt).await, expected);
    }
}

/// A store for many grants marks them later. Until then the rule denies those that it was made for.
#[tokio::test]
async fn a_grant_that_is_not_marked_yet_is_denied_by_its_rule() {
    let fixture = Fixture::new().await;
    fixture.store.sweep_later();
    let before = fixture.session().await.refresh;
    let revocation = Revocation::new(Target::Subject(alice()), START, START + HOUR);
    fixture.store.revoke(revocation).await.unwrap();
    let after = fixture.session().await.refresh;
    let state = async |of: &TokenSecret| match fixture.issuer.inspect_grant(grant_of(of)).await {
        Ok(InspectedGrant::Grant(grant)) => grant.state,
        other => panic!("{other:?}"),
    };
    assert_eq!(state(&before).await, GrantState::Denied);
    assert_eq!(fixture.reason(&before).await, InactiveReason::GrantDenied);
    // A later login is not affected, nor is anything once the rule has ended.
    assert_eq!(state(&after).await, GrantState::Live);
    fixture.clock.advance(HOUR - secs(1));
    assert_eq!(state(&before).await, GrantState::Denied);
    fixture.clock.advance(secs(1));
    assert_eq!(state(&before).await, GrantState::Live);
}

#[tokio::test]
async fn grants_and_sessions_are_shown() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let id = grant_of(&session.refresh);
    let InspectedGrant::Grant(grant) = fixture.issuer.inspect_grant(id).await.unwrap() else {
        panic!("not found")
    };
    assert_eq!((grant.id, grant.state), (id, GrantState::Live));
    assert_eq!(grant.chain.as_ref().unwrap().generation, 0);
    let page = PageRequest { after: None, limit: 10 };
    let of = Selector::Client("web-app".parse().unwrap());
    // What the store is asked for: 1 to 1,000.
    for (limit, expected) in [(0, 1), (1, 1), (1_000, 1_000), (1_001, 1_000)] {
        fixture.store.seen();
        let page = PageRequest { limit, ..page };
        fixture.issuer.list_sessions(of.clone(), page).await.unwrap();
        let [call] = &fixture.store.seen()[..] else { panic!("one call") };
        let arguments = String::from_utf8_lossy(&call.arguments);
        assert!(arguments.contains(&format!("limit: {expected} ")), "{arguments}");
    }
    let listed = fixture.issuer.list_sessions(of, page).await.unwrap();
    assert_eq!((listed.sessions.len(), listed.next), (1, None));
    assert_eq!(listed.sessions[0].subject, Subject::user("alice").unwrap());
    fixture.issuer.revoke_subject(&Subject::user("alice").unwrap()).await.unwrap();
    let InspectedGrant::Grant(grant) = fixture.issuer.inspect_grant(id).await.unwrap() else {
        panic!("not found")
    };
    assert_eq!(grant.state, GrantState::Revoked);
    let unknown = GrantId::from_bytes([7; 16]);
    assert_eq!(fixture.issuer.inspect_grant(unknown).await.unwrap(), InspectedGrant::Unknown);
}

#[tokio::test]
async fn an_audited_revocation_is_repeated() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let line = r#"{"event":"revoked","target":{"kind":"client","client":"web-app"}}"#;
    let revocation = AuditedRevocation::parse(line).unwrap().unwrap();
    fixture.issuer.repeat_revocation(&revocation).await.unwrap();
    assert!(!fixture.is_active(&session.access).await);
    let target = Target::Client("web-app".parse().unwrap());
    assert!(fixture.events.take().contains(&Event::Revoked { target }));
}

/// As the manual lists them, for the file that `restore` reads.
#[test]
fn each_line_by_hand_names_what_it_revokes() {
    let (alice, app, robot) = (alice(), client_id("web-app"), Subject::client("robot").unwrap());
    let grant = GrantId::from_bytes([7; 16]);
    for (line, target) in [
        ("subject alice", Target::Subject(alice.clone())),
        ("subject c:robot", Target::Subject(robot)),
        (" client  web-app ", Target::Client(app.clone())),
        ("subject-at-client alice web-app", Target::SubjectAtClient(alice, app)),
        (&format!("grant {grant}"), Target::Grant(grant)),
        ("jti j1", Target::Jti(Jti::new("j1").unwrap())),
        ("key k1", Target::Key(Kid::new("k1").unwrap())),
    ] {
        let read = AuditedRevocation::parse(line).unwrap().expect(line);
        assert_eq!(read.target(), &target, "{line}");
    }
}

#[test]
fn an_outage_that_has_no_cause_is_one() {
    assert!(is_outage(&TokenError::Unavailable("the replica is behind")));
}

fn failed(diagnosis: &Diagnosis) -> Vec<Check> {
    let failed = diagnosis.findings.iter().filter(|found| found.outcome == Outcome::Failed);
    failed.map(|found| found.check).collect()
}

/// The settings of the server are healthy, and each mistake is one finding.
#[tokio::test]
async fn a_store_is_diagnosed_without_being_changed() {
    let fixture = Fixture::new().await;
    let settings = || builder(&fixture.store, &fixture.clock);
    let now = START;
    assert_eq!(failed(&settings().diagnose().await), [Check::RevocationLog], "no heartbeat");
    fixture.store.heartbeat(now, now + HOUR).await.unwrap();
    let diagnosis = settings().diagnose().await;
    assert!(diagnosis.is_healthy(), "{diagnosis:#?}");
    assert!(!diagnosis.has_outage());

    let other = HandleKeys::new(&HandleSecret::new(1, [0xee; 32]));
    let diagnosis = settings().handle_keys(other).diagnose().await;
    assert_eq!(failed(&diagnosis), [Check::HandleSecrets], "{diagnosis:#?}");
    let other = Arc::new(AesGcmSealer::new(1, [0xee; 32]));
    let diagnosis = settings().sealer(other).diagnose().await;
    assert!(failed(&diagnosis).iter().all(|check| *check == Check::SealingKeys));
    assert!(!diagnosis.is_healthy());
    let diagnosis = settings().url("https://other.example").diagnose().await;
    assert!(failed(&diagnosis).contains(&Check::Issuer), "{diagnosis:#?}");
    let policy = cloakroom::KeyPolicy::default().publish_ahead(secs(1));
    let diagnosis = settings().key_policy(policy).diagnose().await;
    assert!(failed(&diagnosis).contains(&Check::Settings), "{diagnosis:#?}");

    // A month without a server: the keys and the log are overdue.
    fixture.clock.advance(40 * DAY);
    let diagnosis = settings().diagnose().await;
    assert_eq!(failed(&diagnosis), [Check::SigningKeys, Check::RevocationLog], "{diagnosis:#?}");
    // A heartbeat from the future.
    let ahead = fixture.issuer.clock().now() + HOUR;
    fixture.store.heartbeat(ahead, ahead + HOUR).await.unwrap();
    let diagnosis = settings().diagnose().await;
    assert!(failed(&diagnosis).contains(&Check::Clock), "{diagnosis:#?}");
    fixture.issuer.maintain().await.unwrap();
    assert_eq!(failed(&settings().diagnose().await), [Check::Clock]);

    // Nothing was written by a diagnosis: another issuer may still have an empty store.
    let empty = Arc::new(cloakroom::memory::MemoryStore::new());
    Issuer::builder(ISSUER).store(empty.clone()).diagnose().await;
    let keys: Arc<dyn cloakroom::core::keys::KeyStore> = empty.clone();
    assert!(keys.load().await.unwrap().is_empty());
    use cloakroom::core::store::CheckValues as _;
    assert!(empty.check_values().await.unwrap().is_empty());
    let scan = scan_rows(&*empty, fixture.issuer.clock().now(), |_| ()).await.unwrap();
    assert_eq!((scan.rows, scan.finding().outcome), (Some(0), Outcome::Passed));
}
