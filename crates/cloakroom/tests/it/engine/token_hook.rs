//! The app's word at every token.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::core::{Audience, ClientId, TokenSecret};
use cloakroom::serde_json::{Value, json};
use cloakroom::{
    ApprovedRequest, Caller, CodeRequest, Event, Grant, GrantRefusal, IssuerBuilder, NewToken,
    Occasion, RefreshRequest, TokenChanges, TokenError, TokenHookError,
};

use super::authorization_requests::sent;
use super::support::*;

/// What the hook does next, and what it was asked.
#[derive(Clone, Default)]
struct Hook {
    next: Arc<Mutex<Next>>,
    asked: Arc<Mutex<Vec<NewToken>>>,
}

#[derive(Clone, Default)]
enum Next {
    #[default]
    Nothing,
    Change(TokenChanges),
    Refuse,
    Fail,
    Panic,
    Hang,
}

impl Hook {
    fn set(&self, next: Next) {
        *self.next.lock().unwrap() = next;
    }

    fn claim(&self, value: impl Into<Value>) {
        self.set(Next::Change(TokenChanges::none().claim("role", value.into())));
    }

    fn occasions(&self) -> Vec<Occasion> {
        std::mem::take(&mut *self.asked.lock().unwrap()).iter().map(NewToken::occasion).collect()
    }

    fn into(self, builder: IssuerBuilder) -> IssuerBuilder {
        builder.on_token(move |token: NewToken| {
            self.asked.lock().unwrap().push(token);
            let next = self.next.lock().unwrap().clone();
            async move {
                match next {
                    Next::Nothing => Ok(TokenChanges::none()),
                    Next::Change(changes) => Ok(changes),
                    Next::Refuse => Err(TokenHookError::refuse("the user was banned")),
                    Next::Fail => Err(std::io::Error::other("the database is down"))?,
                    Next::Panic => panic!("a hook panics"),
                    Next::Hang => std::future::pending().await,
                }
            }
        })
    }
}

async fn fixture() -> (Fixture, Hook) {
    let hook = Hook::default();
    let fixture = Fixture::with(|builder| hook.clone().into(builder)).await;
    (fixture, hook)
}

impl Fixture {
    /// The claim `role` of a token.
    async fn role(&self, token: &TokenSecret) -> Option<Value> {
        let answer = self.issuer.introspect(token, Caller::Internal).await.unwrap();
        answer.active().unwrap().extra.get("role").cloned()
    }
}

#[tokio::test]
async fn the_hook_is_asked_at_every_token() {
    let (fixture, hook) = fixture().await;
    let session = fixture.session().await;
    assert_eq!(hook.occasions(), [Occasion::Issue]);
    let next = fixture.refresh(&session.refresh).await.unwrap();
    assert_eq!(hook.occasions(), [Occasion::Refresh]);
    fixture.refresh(&session.refresh).await.unwrap();
    assert_eq!(hook.occasions(), [Occasion::Retry]);
    fixture.issuer.issue(Grant::client("web-app").unwrap()).await.unwrap();
    assert_eq!(hook.occasions(), [Occasion::ClientCredentials]);
    let code = fixture.code().await;
    assert_eq!(hook.occasions(), [], "a code is no token");
    fixture.redeem(&code).await.unwrap();
    assert_eq!(hook.occasions(), [Occasion::Redeem]);
    let shared = Session::of(fixture.sign_in("workers").await);
    fixture
        .issuer
        .refresh(RefreshRequest::new(shared.refresh, client_id("workers")))
        .await
        .unwrap();
    assert_eq!(hook.occasions(), [Occasion::Issue, Occasion::Refresh]);
    fixture.is_active(&next.access_token).await;
    assert_eq!(hook.occasions(), []);
}

#[tokio::test]
async fn it_learns_what_the_token_is_for() {
    let (fixture, hook) = fixture().await;
    let grant = Grant::user("web-app", "alice").unwrap().auth_time(START).acr("mfa").unwrap();
    let grant = grant.session("sid-1").claim("tenant", json!("acme")).unwrap();
    let request = ApprovedRequest::new(grant, CALLBACK).pkce(challenge());
    let code = fixture.issuer.authorize(request).await.unwrap();
    let tokens = fixture.redeem(&code).await.unwrap();
    let token = hook.asked.lock().unwrap().pop().unwrap();
    assert_eq!((token.client(), token.subject()), (&client_id("web-app"), &alice()));
    assert_eq!(token.user(), Some("alice"));
    assert_eq!((token.grant(), token.granted_at()), (tokens.grant, START));
    assert_eq!((token.auth_time(), token.acr()), (Some(START), Some("mfa")));
    assert_eq!((token.session(), token.nonce()), (Some("sid-1"), None));
    assert_eq!(token.scope(), &tokens.scope);
    assert_eq!(token.audience(), &Audience::one(ORDERS).unwrap());
    assert_eq!(token.claims().get("tenant"), Some(&json!("acme")));

    fixture.issuer.issue(Grant::client("web-app").unwrap()).await.unwrap();
    let token = hook.asked.lock().unwrap().pop().unwrap();
    assert_eq!((token.user(), token.subject().id()), (None, "web-app"));
}

#[tokio::test]
async fn it_learns_the_nonce_of_the_request_at_every_token() {
    let (fixture, hook) = fixture().await;
    let query = b"response_type=code&client_id=oidc-app&nonce=n-1";
    let request = fixture.issuer.authorization_request(query).await.unwrap();
    let grant = request.grant("alice").unwrap();
    let redirect = request.approve(grant).await.unwrap();
    let code = TokenSecret::new(sent(&redirect, "code").unwrap());
    let redemption = CodeRequest::new(code, client_id("oidc-app"));
    let tokens = fixture.issuer.redeem(redemption).await.unwrap();
    let token = tokens.refresh_token.unwrap();
    fixture.issuer.refresh(RefreshRequest::new(token, client_id("oidc-app"))).await.unwrap();
    let asked = hook.asked.lock().unwrap();
    assert_eq!(asked.iter().map(NewToken::nonce).collect::<Vec<_>>(), [Some("n-1"); 2]);
}

#[tokio::test]
async fn it_is_not_asked_about_a_refresh_token_that_has_timed_out() {
    let (fixture, hook) = fixture().await;
    let session = fixture.session().await;
    fixture.clock.advance(14 * DAY);
    assert_eq!(hook.occasions(), [Occasion::Issue]);
    assert_eq!(refusal(fixture.refresh(&session.refresh).await), GrantRefusal::Dead);
    assert_eq!(hook.occasions(), []);
}

#[tokio::test]
async fn fresh_claims_belong_to_the_one_token_in_every_format() {
    let (fixture, hook) = fixture().await;
    for resource in [ORDERS, REPORTS, JOBS] {
        let grant = || {
            let grant = Grant::user("web-app", "alice").unwrap();
            let grant = grant.audience(Audience::one(resource).unwrap());
            grant.claim("role", json!("guest")).unwrap().claim("tenant", json!("acme")).unwrap()
        };
        hook.claim("admin");
        let session = Session::of(fixture.issuer.issue(grant()).await.unwrap());
        assert_eq!(fixture.role(&session.access).await, Some(json!("admin")), "{resource}");
        hook.claim("editor");
        let second = fixture.refresh(&session.refresh).await.unwrap();
        // Within the window: a further token, with the claims of its own time.
        hook.claim("reader");
        let third = fixture.refresh(&session.refresh).await.unwrap();
        hook.set(Next::Nothing);
        let fourth = fixture.refresh(&third.refresh_token.unwrap()).await.unwrap();
        for (token, role) in [
            (&session.access, "admin"),
            (&second.access_token, "editor"),
            (&third.access_token, "reader"),
            (&fourth.access_token, "guest"),
        ] {
            assert_eq!(fixture.role(token).await, Some(json!(role)), "{resource}");
        }
        assert_eq!(fixture.events.names(), ["Issued", "Refreshed", "Retried", "Refreshed"]);
        if resource == ORDERS {
            let swapped = fixture.issuer.swap(&second.access_token, None, Caller::Internal).await;
            let claims = claims(&swapped.unwrap().unwrap().jwt);
            assert_eq!((&claims["role"], &claims["tenant"]), (&json!("editor"), &json!("acme")));
        }
        hook.set(Next::Change(TokenChanges::none().without_grant_claims()));
        let bare = fixture.issuer.issue(grant()).await.unwrap();
        assert_eq!(fixture.role(&bare.access_token).await, None);
        fixture.events.take();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_refuses_fails_panics_or_hangs_costs_nothing() {
    let (fixture, hook) = fixture().await;
    let is_outage =
        |error: &TokenError| matches!(error, TokenError::Hook(_)) && error.code().is_none();
    for next in [Next::Refuse, Next::Fail, Next::Panic, Next::Hang] {
        let refuses = matches!(next, Next::Refuse);
        let check = |error: TokenError, code| {
            assert!(
                if refuses { error.code() == Some(code) } else { is_outage(&error) },
                "{error}"
            );
            assert_eq!(error.description(), None);
        };
        hook.set(Next::Nothing);
        let (session, code) = (fixture.session().await, fixture.code().await);
        let shared = Session::of(fixture.sign_in("workers").await);
        let shared = || RefreshRequest::new(shared.refresh.clone(), client_id("workers"));
        fixture.events.take();

        hook.set(next.clone());
        check(fixture.refresh(&session.refresh).await.unwrap_err(), "invalid_grant");
        check(fixture.issuer.refresh(shared()).await.unwrap_err(), "invalid_grant");
        check(fixture.redeem(&code).await.unwrap_err(), "invalid_grant");
        let client = fixture.issuer.issue(Grant::client("web-app").unwrap());
        check(client.await.unwrap_err(), "unauthorized_client");
        let user = fixture.issuer.issue(Grant::user("web-app", "alice").unwrap());
        check(user.await.unwrap_err(), "invalid_grant");
        assert_eq!(fixture.events.names(), [""; 0]);

        // Nothing was spent.
        hook.set(Next::Nothing);
        fixture.redeem(&code).await.unwrap();
        fixture.issuer.refresh(shared()).await.unwrap();
        let second = fixture.refresh(&session.refresh).await.unwrap();
        // And a retry that is refused leaves the successor to the next one.
        hook.set(next);
        check(fixture.refresh(&session.refresh).await.unwrap_err(), "invalid_grant");
        hook.set(Next::Nothing);
        let retried = fixture.refresh(&session.refresh).await.unwrap();
        assert_eq!(retried.refresh_token.unwrap().expose(), second.refresh_token.unwrap().expose());
        fixture.events.take();
        // Counted, as every refusal is, and without the reason.
        let refused = fixture.events.refused();
        let denied = |event: &Event| {
            matches!(event, Event::GrantRefused { reason: GrantRefusal::Denied, .. })
        };
        assert_eq!(refused.iter().any(denied), refuses);
        let occasions = refused.iter().filter_map(|event| match event {
            Event::TokenRefused { client, occasion, count: 1, .. } => {
                Some((client.clone().unwrap(), *occasion))
            }
            _ => None,
        });
        let expected = [Occasion::ClientCredentials, Occasion::Issue]
            .map(|occasion| (client_id("web-app"), occasion));
        assert_eq!(occasions.collect::<Vec<_>>(), &expected[..2 * usize::from(refuses)]);
    }
}

#[tokio::test]
async fn a_flood_of_refused_tokens_is_one_event_at_once_and_one_a_minute() {
    let (fixture, hook) = fixture().await;
    hook.set(Next::Refuse);
    for _ in 0..1_000 {
        fixture.issuer.issue(Grant::client("web-app").unwrap()).await.unwrap_err();
    }
    let counted = |events: Vec<Event>| serde_json::to_value(events).unwrap();
    let event = |count: u64| {
        json!([{
            "event": "token_refused",
            "client": "web-app",
            "occasion": "client_credentials",
            "count": count,
            "since": START.as_millis(),
        }])
    };
    assert_eq!(counted(fixture.events.refused()), event(1));
    fixture.clock.advance(MINUTE);
    fixture.issuer.maintain().await.unwrap();
    assert_eq!(counted(fixture.events.refused()), event(999));
    // A request that is wrong in itself is none of the app's refusals.
    let wrong = Grant::client("web-app").unwrap().scope("everything").unwrap();
    assert_eq!(fixture.issuer.issue(wrong).await.unwrap_err().code(), Some("invalid_scope"));
    assert_eq!(fixture.events.refused(), []);
}

#[tokio::test]
async fn a_swap_is_asked_about_if_the_app_says_so() {
    let hook = Hook::default();
    let fixture = Fixture::with(|builder| hook.clone().into(builder).on_token_at_swap()).await;
    hook.claim("admin");
    let handle = fixture.token_for(ORDERS).await.access_token;
    let swap = async || fixture.issuer.swap(&handle, None, Caller::Internal).await;
    let role = async || claims(&swap().await.unwrap().unwrap().jwt)["role"].clone();
    assert_eq!(role().await, json!("admin"));
    hook.claim("editor");
    assert_eq!(role().await, json!("editor"));
    hook.set(Next::Nothing);
    assert_eq!(role().await, json!("admin"), "those of the handle");
    hook.set(Next::Refuse);
    assert!(swap().await.unwrap().is_none(), "inactive for a gateway");
    let refused = fixture.events.refused();
    let [Event::TokenRefused { client, occasion: Occasion::Swap, .. }] = &*refused else {
        panic!("{refused:?}")
    };
    assert_eq!(client.as_ref().map(ClientId::as_str), Some("web-app"));
    for next in [Next::Fail, Next::Panic] {
        hook.set(next);
        assert!(matches!(swap().await, Err(TokenError::Hook(_))));
    }
    assert_eq!(hook.occasions()[1..], [Occasion::Swap; 6]);
    assert_eq!(fixture.role(&handle).await, Some(json!("admin")), "the handle stays as it is");
}

#[tokio::test]
async fn what_a_hook_must_not_set_is_a_failure_and_not_a_token() {
    let (fixture, hook) = fixture().await;
    let none = TokenChanges::none;
    // `{"big":"…"}` may have 16 KiB.
    let big = |bytes: usize| none().member("big", json!("x".repeat(bytes - 10)));
    for changes in [
        none().claim("sub", json!("mallory")),
        none().claim("exp", json!(1)),
        none().claim("big", json!("x".repeat(5_000))),
        none().member("access_token", json!("stolen")),
        none().member("refresh_token", json!("stolen")),
        none().member("scope", json!("admin")),
        none().member("error", json!("none")),
        big(16 * 1024 + 1),
    ] {
        hook.set(Next::Change(changes.clone()));
        let answer = fixture.issuer.issue(Grant::user("web-app", "alice").unwrap()).await;
        assert!(matches!(answer, Err(TokenError::Hook(_))), "{changes:?}");
    }
    hook.set(Next::Change(big(16 * 1024)));
    fixture.sign_in("web-app").await;
    hook.set(Next::Change(none().member("id_token", json!("eyJ.secret"))));
    let tokens = fixture.sign_in("web-app").await;
    assert!(!format!("{tokens:?}").contains("eyJ.secret"));
    let body = serde_json::to_value(&tokens).unwrap();
    assert_eq!(body["id_token"], json!("eyJ.secret"));
    assert_eq!(body["token_type"], json!("Bearer"));
}

#[tokio::test]
async fn a_time_limit_has_to_be_one() {
    for (limit, good) in [(0, false), (1, true), (30_000, true), (30_001, false)] {
        let limit = Duration::from_millis(limit);
        let built = builder(
            &super::store::ProbeStore::new(Arc::new(cloakroom::core::time::ManualClock::at(START))),
            &Arc::new(cloakroom::core::time::ManualClock::at(START)),
        )
        .on_token_timeout(limit)
        .build()
        .await;
        assert_eq!(built.is_ok(), good, "{limit:?}");
    }
}
