//! What has begun to write is finished and reported, even if its caller goes away.

use std::pin::Pin;
use std::sync::Arc;

use cloakroom::core::*;
use cloakroom::{
    AdoptRequest, ApprovedRequest, Event, EventSink, Grant, Operation, RefreshRequest, Regression,
    TokenError,
};
use tokio::runtime::Handle;

use super::formats::with_formats_of_its_own;
use super::store::When;
use super::support::*;

/// Every operation of the engine that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Issue,
    Authorize,
    Adopt,
    Redeem,
    Refresh,
    Retry,
    RefreshWithoutRotation,
    ReuseOfCode,
    ReuseOfRefreshToken,
    Regression,
    RevokeToken,
    RevokeJwt,
    RevokeChain,
    RevokeSession,
    RevokeGrant,
    RevokeSubject,
    RevokeClient,
    RevokePair,
    /// Held in the sweep that follows the write.
    Sweep,
    RotateKeys,
    RetireKey,
    CompromiseKey,
    /// Held at the rule, after the key was marked.
    DenyKey,
    MaintainKeys,
}

impl Op {
    const ALL: [Self; 24] = [
        Self::Issue,
        Self::Authorize,
        Self::Adopt,
        Self::Redeem,
        Self::Refresh,
        Self::Retry,
        Self::RefreshWithoutRotation,
        Self::ReuseOfCode,
        Self::ReuseOfRefreshToken,
        Self::Regression,
        Self::RevokeToken,
        Self::RevokeJwt,
        Self::RevokeChain,
        Self::RevokeSession,
        Self::RevokeGrant,
        Self::RevokeSubject,
        Self::RevokeClient,
        Self::RevokePair,
        Self::Sweep,
        Self::RotateKeys,
        Self::RetireKey,
        Self::CompromiseKey,
        Self::DenyKey,
        Self::MaintainKeys,
    ];

    /// The call of the store at which it is held.
    const fn method(self) -> &'static str {
        match self {
            Self::Issue | Self::Authorize | Self::Adopt => "create",
            Self::Redeem | Self::Refresh | Self::Retry | Self::RefreshWithoutRotation => "advance",
            Self::Sweep => "maintain",
            Self::RotateKeys | Self::RetireKey | Self::CompromiseKey => "keys.update",
            Self::MaintainKeys => "keys.insert",
            _ => "revoke",
        }
    }

    /// What is reported, once each; of signing keys, what becomes of others besides.
    fn reported(self) -> Vec<&'static str> {
        vec![match self {
            Self::Issue | Self::Authorize | Self::Adopt => "issued",
            Self::Redeem => "redeemed",
            Self::Refresh | Self::RefreshWithoutRotation => "refreshed",
            Self::Retry => "retried",
            Self::ReuseOfCode | Self::ReuseOfRefreshToken => "reuse_detected",
            Self::Regression => "store_regressed",
            Self::RotateKeys | Self::RetireKey => "rotated",
            Self::CompromiseKey | Self::DenyKey => return vec!["compromised", "revoked"],
            Self::MaintainKeys => "published",
            _ => "revoked",
        }]
    }
}

type Caller = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Scene {
    fixture: Fixture,
    /// What was there before the operation, or belongs to it.
    token: TokenSecret,
    caller: Caller,
}

/// What one of the kinds of requests comes to is nothing to its caller, who will be gone.
macro_rules! caller {
    ($issuer:ident, $call:expr) => {{
        let $issuer = $issuer.clone();
        Box::pin(async move { drop($call.await) })
    }};
}

impl Op {
    #[allow(clippy::too_many_lines, reason = "one table")]
    async fn begin(self) -> Scene {
        let fixture = match self {
            Self::Adopt => with_formats_of_its_own().await,
            _ => Fixture::new().await,
        };
        let issuer = &fixture.issuer;
        let client = client_id("web-app");
        let alice_at_app = || Grant::user("web-app", "alice").unwrap();
        let mut token = TokenSecret::new("3f0a8b1e-7c2d-4e5f-9a6b-0c1d2e3f4a5b");
        let caller: Caller = match self {
            Self::Issue => caller!(issuer, issuer.issue(alice_at_app())),
            Self::Authorize => {
                let grant = alice_at_app();
                caller!(
                    issuer,
                    issuer.authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge()))
                )
            }
            Self::Adopt => {
                let (token, grant) = (token.clone(), alice_at_app());
                caller!(
                    issuer,
                    issuer.adopt(AdoptRequest::new(token.clone(), grant, START..START + HOUR))
                )
            }
            Self::Redeem => {
                token = fixture.code().await;
                let request = redemption(&token);
                caller!(issuer, issuer.redeem(request))
            }
            Self::ReuseOfCode => {
                token = fixture.code().await;
                fixture.redeem(&token).await.unwrap();
                let request = redemption(&token);
                caller!(issuer, issuer.redeem(request))
            }
            Self::Refresh => {
                token = fixture.session().await.refresh;
                let request = refreshing(&token);
                caller!(issuer, issuer.refresh(request))
            }
            Self::RefreshWithoutRotation => {
                token = fixture.sign_in("workers").await.refresh_token.unwrap();
                let request = RefreshRequest::new(token.clone(), client_id("workers"));
                caller!(issuer, issuer.refresh(request))
            }
            Self::Retry | Self::ReuseOfRefreshToken => {
                token = fixture.session().await.refresh;
                fixture.refresh(&token).await.unwrap();
                if self == Self::ReuseOfRefreshToken {
                    fixture.clock.advance(HOUR);
                }
                let request = refreshing(&token);
                caller!(issuer, issuer.refresh(request))
            }
            Self::Regression => {
                let first = fixture.session().await.refresh;
                let old = fixture.store.grant(grant_of(&first)).await;
                token = fixture.refresh(&first).await.unwrap().refresh_token.unwrap();
                fixture.store.fail_over(old).await;
                let request = refreshing(&token);
                caller!(issuer, issuer.refresh(request))
            }
            Self::RevokeToken | Self::RevokeJwt | Self::RevokeChain => {
                token = match self {
                    Self::RevokeToken => fixture.session().await.access,
                    Self::RevokeJwt => fixture.token_for(JOBS).await.access_token,
                    _ => fixture.session().await.refresh,
                };
                let token = token.clone();
                caller!(issuer, issuer.revoke(&token, &client))
            }
            Self::RevokeSession => {
                token = fixture.session().await.access;
                let grant = grant_of(&token);
                caller!(issuer, issuer.revoke_session(&alice(), grant))
            }
            Self::RevokeGrant => {
                token = fixture.session().await.access;
                let grant = grant_of(&token);
                caller!(issuer, issuer.revoke_grant(grant))
            }
            Self::RevokeSubject | Self::Sweep => {
                token = fixture.session().await.access;
                if self == Self::Sweep {
                    fixture.store.sweep_later();
                }
                caller!(issuer, issuer.revoke_subject(&alice()))
            }
            Self::RevokeClient => {
                token = fixture.session().await.access;
                caller!(issuer, issuer.revoke_client(&client))
            }
            Self::RevokePair => {
                token = fixture.session().await.access;
                caller!(issuer, issuer.revoke_subject_at_client(&alice(), &client))
            }
            Self::RotateKeys => {
                token = fixture.token_for(JOBS).await.access_token;
                caller!(issuer, issuer.rotate_keys())
            }
            Self::RetireKey => {
                token = fixture.token_for(JOBS).await.access_token;
                let kid = issuer.keys().signer().await.unwrap().kid().clone();
                caller!(issuer, issuer.retire_key(&kid))
            }
            Self::CompromiseKey | Self::DenyKey => {
                token = fixture.token_for(JOBS).await.access_token;
                let kid = issuer.keys().signer().await.unwrap().kid().clone();
                caller!(issuer, issuer.compromise_key(&kid))
            }
            Self::MaintainKeys => {
                token = fixture.token_for(JOBS).await.access_token;
                issuer.maintain().await.unwrap();
                fixture.clock.advance(29 * DAY + HOUR);
                caller!(issuer, issuer.maintain())
            }
        };
        fixture.events.take();
        Scene { fixture, token, caller }
    }
}

impl Scene {
    /// Whether the store holds what the operation does.
    async fn is_done(&self, op: Op) -> bool {
        let Self { fixture, token, .. } = self;
        let chain = || async {
            let grant = fixture.store.grant(grant_of(token)).await;
            (grant.revoked_at.is_some(), grant.chain.unwrap().generation)
        };
        match op {
            Op::Issue => fixture.sessions().await == 1,
            // The grant itself is nobody's to see before its code is redeemed.
            Op::Authorize | Op::Retry | Op::RefreshWithoutRotation => true,
            Op::Adopt => fixture.is_active(token).await,
            Op::Redeem | Op::Refresh => chain().await == (false, 1),
            Op::ReuseOfCode | Op::ReuseOfRefreshToken | Op::Regression | Op::RevokeChain => {
                chain().await.0
            }
            Op::RotateKeys | Op::RetireKey => {
                let signed = fixture.token_for(JOBS).await.access_token;
                header(&signed) != header(token)
            }
            Op::MaintainKeys => {
                let published = fixture.issuer.jwks().await.unwrap().json.clone();
                published.matches("\"kid\"").count() == 3
            }
            _ => !fixture.is_active(token).await,
        }
    }
}

fn header(jwt: &TokenSecret) -> String {
    jwt.expose().split('.').next().unwrap().to_owned()
}

/// Waits until nothing of the runtime is under way any more.
async fn all_is_quiet() {
    while Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

/// What was reported, by name; of keys, what became of them.
fn names(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| {
        let json = serde_json::to_value(event).unwrap();
        assert_eq!(json["event"], event.name());
        let name = json.get("change").unwrap_or(&json["event"]);
        name.as_str().unwrap().to_owned()
    };
    let mut names: Vec<_> = events.iter().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_has_begun_to_write_is_finished_and_reported_once() {
    for op in Op::ALL {
        for when in [When::Before, When::After] {
            let mut scene = op.begin().await;
            let gate = scene.fixture.store.hold(op.method(), when);
            let caller = std::mem::replace(&mut scene.caller, Box::pin(async {}));
            let caller = tokio::spawn(caller);
            gate.holds(1).await;
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled(), "{op:?}");
            gate.open();
            all_is_quiet().await;
            let events = scene.fixture.events.take();
            let mut told = names(&events);
            for name in op.reported() {
                let at = told.iter().position(|told| told == name);
                told.remove(at.unwrap_or_else(|| panic!("{op:?}, held {when:?}: {events:?}")));
            }
            if op.method().starts_with("keys") || op == Op::DenyKey {
                told.retain(|name| !["published", "scheduled"].contains(&&**name));
                let doubles = events.iter().enumerate().any(|(at, one)| events[..at].contains(one));
                assert!(!doubles, "{op:?}, held {when:?}: {events:?}");
            }
            assert_eq!(told, [""; 0], "{op:?}, held {when:?}: {events:?}");
            assert!(scene.is_done(op).await, "{op:?}, held {when:?}");
        }
    }
}

#[tokio::test]
async fn what_has_not_begun_to_write_is_dropped_without_a_trace() {
    for op in [Op::Redeem, Op::Refresh, Op::ReuseOfRefreshToken, Op::RevokeToken, Op::RevokeChain] {
        let mut scene = op.begin().await;
        scene.fixture.store.seen();
        let gate = scene.fixture.store.hold("find", When::After);
        let caller = std::mem::replace(&mut scene.caller, Box::pin(async {}));
        let caller = tokio::spawn(caller);
        gate.holds(1).await;
        caller.abort();
        gate.open();
        all_is_quiet().await;
        assert_eq!(scene.fixture.store.calls(), ["find"], "{op:?}");
        assert_eq!(scene.fixture.events.names(), [""; 0], "{op:?}");
    }
}

#[tokio::test]
async fn a_store_that_fails_leaves_no_write_unreported() {
    for op in Op::ALL {
        // The housekeeping that follows, and the schedule of the keys, are tried again by maintenance.
        if matches!(op, Op::Sweep | Op::MaintainKeys) {
            continue;
        }
        for when in [When::Before, When::After] {
            let mut scene = op.begin().await;
            scene.fixture.store.fail_next(op.method(), when);
            (&mut scene.caller).await;
            let events = scene.fixture.events.take();
            match (op, &events[..]) {
                (
                    Op::ReuseOfCode | Op::ReuseOfRefreshToken,
                    [Event::ReuseDetected { revoked: false, .. }],
                )
                | (
                    Op::Regression,
                    [
                        Event::StoreRegressed {
                            noticed: Regression::Credential { revoked: false, .. },
                        },
                    ],
                )
                | (Op::DenyKey, [Event::Key(_), .., Event::Unconfirmed { .. }]) => {}
                (_, [Event::Unconfirmed { operation, target }]) => {
                    assert_eq!(target.is_none(), op == Op::RotateKeys);
                    let expected = match op {
                        Op::Issue | Op::Authorize => Operation::Issue,
                        Op::Adopt => Operation::Adopt,
                        Op::Redeem => Operation::Redeem,
                        Op::Refresh | Op::Retry | Op::RefreshWithoutRotation => Operation::Refresh,
                        Op::RotateKeys => Operation::RotateKeys,
                        Op::RetireKey => Operation::RetireKey,
                        Op::CompromiseKey => Operation::CompromiseKey,
                        _ => Operation::Revoke,
                    };
                    assert_eq!(*operation, expected, "{op:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn when_the_runtime_ends_in_the_middle_the_doubt_is_reported() {
    for op in Op::ALL {
        if matches!(op, Op::Sweep | Op::MaintainKeys) {
            continue;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let events = runtime.block_on(async {
            let mut scene = op.begin().await;
            let gate = scene.fixture.store.hold(op.method(), When::After);
            tokio::spawn(std::mem::replace(&mut scene.caller, Box::pin(async {})));
            gate.holds(1).await;
            scene.fixture.events.clone()
        });
        drop(runtime);
        let events = events.take();
        assert!(events.last().unwrap().is_alarm(), "{op:?}: {events:?}");
        assert_eq!(events.iter().filter(|event| !matches!(event, Event::Key(_))).count(), 1);
    }
}

#[tokio::test]
async fn a_sweep_that_fails_does_not_take_the_report_with_it() {
    let mut scene = Op::Sweep.begin().await;
    scene.fixture.store.fail_next("maintain", When::Before);
    (&mut scene.caller).await;
    assert_eq!(names(&scene.fixture.events.take()), ["revoked"]);
}

#[tokio::test]
async fn keys_that_were_made_are_reported_even_if_the_rest_of_the_round_fails() {
    let fixture = Fixture::new().await;
    fixture.clock.advance(29 * DAY + HOUR);
    fixture.store.fail_next("keys.update", When::Before);
    fixture.issuer.maintain().await.unwrap_err();
    assert_eq!(names(&fixture.events.take()), ["published"]);
}

#[tokio::test]
async fn a_store_that_panics_leaves_doubt_and_the_panic() {
    let mut scene = Op::Issue.begin().await;
    scene.fixture.store.before_next("create", async { panic!("for the test") });
    let caller = std::mem::replace(&mut scene.caller, Box::pin(async {}));
    assert!(tokio::spawn(caller).await.unwrap_err().is_panic());
    all_is_quiet().await;
    assert_eq!(names(&scene.fixture.events.take()), ["unconfirmed"]);
}

#[tokio::test]
async fn a_sink_that_panics_over_a_doubt_does_not_hide_the_failure() {
    #[derive(Debug)]
    struct Nervous;
    impl EventSink for Nervous {
        fn record(&self, event: &Event) {
            assert!(!event.is_alarm(), "for the test");
        }
    }
    let fixture = Fixture::with(|builder| builder.events(Arc::new(Nervous))).await;
    fixture.store.fail_next("create", When::After);
    let failed = fixture.issuer.issue(Grant::user("web-app", "alice").unwrap()).await;
    assert!(matches!(failed, Err(TokenError::Store(_))));
}
