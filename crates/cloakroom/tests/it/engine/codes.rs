//! Authorization codes (RFC 6749 §4.1, RFC 7636).

use cloakroom::core::{Audience, Confirmation, TokenSecret, UserId};
use cloakroom::{
    ApprovedRequest, Caller, CodeRequest, Event, Grant, GrantRefusal, Issuer, Lifetimes, Pkce,
    TokenError,
};
use tokio::task::JoinSet;

use super::support::*;

#[tokio::test]
async fn a_code_brings_tokens() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    assert_eq!(fixture.events.names(), ["Issued"]);
    let response = fixture.redeem(&code).await.unwrap();
    assert_eq!(fixture.events.names(), ["Redeemed"]);
    assert_eq!(response.token_type, "Bearer");
    assert_eq!(response.expires_in, 600);
    assert_eq!(response.scope.as_str(), "orders:read orders:write");

    let answer = fixture.issuer.introspect(&response.access_token, Caller::Internal);
    let answer = answer.await.unwrap();
    let token = answer.active().unwrap();
    assert_eq!(token.client, Some(client_id("web-app")));
    assert_eq!(token.subject, Some(alice()));
    assert_eq!(token.grant, Some(grant_of(&code)), "one grant, from the code on");
    fixture.refresh(&response.refresh_token.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_wrong_redemption_changes_nothing() {
    let other_key = Some(Confirmation::JwkThumbprint([9; 32]));
    type Wrong = (&'static str, GrantRefusal, fn(CodeRequest, &TokenSecret) -> CodeRequest);
    let wrong: [Wrong; 7] = [
        ("wrong verifier", GrantRefusal::Verifier, |right, _| {
            right.verifier(TokenSecret::new(VERIFIER.to_uppercase()))
        }),
        ("no verifier", GrantRefusal::Verifier, |right, _| right.verifier(None)),
        ("short verifier", GrantRefusal::Verifier, |right, _| {
            right.verifier(TokenSecret::new("short"))
        }),
        ("the challenge itself", GrantRefusal::Verifier, |right, _| {
            right.verifier(TokenSecret::new(format!("{:?}", challenge())))
        }),
        ("wrong redirect URI", GrantRefusal::RedirectUri, |right, _| {
            right.redirect_uri(format!("{CALLBACK}/"))
        }),
        ("another client", GrantRefusal::OtherClient, |_, code| {
            redemption_by("other-app", code).confirmation(Confirmation::JwkThumbprint([4; 32]))
        }),
        ("no key", GrantRefusal::OtherKey, |right, _| right.confirmation(None)),
    ];
    let fixture = Fixture::new().await;
    let key = Confirmation::JwkThumbprint([4; 32]);
    let right = |code: &TokenSecret| redemption(code).confirmation(key.clone());
    let bound = || async {
        let grant = Grant::user("web-app", "alice").unwrap().confirmation(key.clone());
        let code =
            fixture.issuer.authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge()));
        code.await.unwrap()
    };

    let code = bound().await;
    let before = fixture.store.grant(grant_of(&code)).await;
    fixture.events.take();
    for (what, why, spoil) in wrong {
        let request = spoil(right(&code), &code);
        assert_eq!(refusal(fixture.issuer.redeem(request).await), why, "{what}");
    }
    let request = right(&code).confirmation(other_key);
    assert_eq!(refusal(fixture.issuer.redeem(request).await), GrantRefusal::OtherKey);
    let request = right(&code).resources(vec![BILLING.into()]);
    assert!(matches!(fixture.issuer.redeem(request).await, Err(TokenError::InvalidTarget(_))));
    assert_eq!(fixture.store.grant(grant_of(&code)).await, before);
    assert_eq!(fixture.events.names(), [""; 0]);

    // The right one still works; and after it, the wrong ones still end nothing.
    let tokens = fixture.issuer.redeem(right(&code)).await.unwrap();
    assert_eq!(tokens.token_type, "DPoP");
    for (what, why, spoil) in wrong.into_iter().filter(|(_, why, _)| *why != GrantRefusal::OtherKey)
    {
        let request = spoil(right(&code), &code);
        assert_eq!(refusal(fixture.issuer.redeem(request).await), why, "{what}");
    }
    assert!(fixture.is_active(&tokens.access_token).await);
    // But a replay is one, whatever it proves.
    let request = right(&code).confirmation(None);
    assert_eq!(refusal(fixture.issuer.redeem(request).await), GrantRefusal::Reused);
    assert!(!fixture.is_active(&tokens.access_token).await);
}

/// How `oidc-app`, which may do without PKCE, requests and redeems a code.
struct Exchange {
    /// Whether the authorization request named the redirect URI.
    named: bool,
    pkce: bool,
    /// What the redemption sends.
    uri: Option<&'static str>,
    verifier: bool,
}

impl Exchange {
    async fn run(&self, fixture: &Fixture) -> Result<TokenSecret, TokenError> {
        let grant = Grant::user("oidc-app", "alice").unwrap();
        let request = match self.named {
            true => ApprovedRequest::new(grant, CALLBACK),
            false => ApprovedRequest::without_redirect_uri(grant),
        };
        let request = request.pkce(self.pkce.then(challenge));
        let code = fixture.issuer.authorize(request).await.unwrap();
        let redemption = CodeRequest::new(code, client_id("oidc-app"))
            .redirect_uri(self.uri.map(str::to_owned))
            .verifier(self.verifier.then(|| TokenSecret::new(VERIFIER)));
        fixture.issuer.redeem(redemption).await.map(|tokens| tokens.access_token)
    }
}

#[tokio::test]
async fn a_redirect_uri_may_be_left_out_where_nothing_depends_on_it() {
    let fixture = Fixture::new().await;
    for named in [true, false] {
        for pkce in [true, false] {
            for uri in [Some(CALLBACK), None, Some("https://app.example/other"), Some("")] {
                let answer = Exchange { named, pkce, uri, verifier: pkce }.run(&fixture).await;
                // RFC 6749 §4.1.3; with PKCE, OAuth 2.1 §4.1.3.
                let good = uri.map_or(!named || pkce, |uri| uri == CALLBACK);
                if good {
                    assert!(fixture.is_active(&answer.unwrap()).await, "{named} {pkce} {uri:?}");
                } else {
                    assert_eq!(refusal(answer), GrantRefusal::RedirectUri);
                }
            }
        }
    }
}

#[tokio::test]
async fn pkce_cannot_be_left_out_or_made_up_halfway() {
    let fixture = Fixture::new().await;
    for named in [true, false] {
        let uri = Some(CALLBACK);
        for (pkce, verifier) in [(true, false), (false, true)] {
            let answer = Exchange { named, pkce, uri, verifier }.run(&fixture).await;
            assert_eq!(refusal(answer), GrantRefusal::Verifier);
        }
    }
}

#[tokio::test]
async fn every_client_needs_pkce_that_is_not_registered_without() {
    let fixture = Fixture::new().await;
    for (client, required) in
        [("web-app", true), ("spa-app", true), ("workers", true), ("oidc-app", false)]
    {
        assert_eq!(fixture.client(client).await.requires_pkce(), required, "{client}");
        let request = || {
            let grant = Grant::user(client, "alice").unwrap();
            ApprovedRequest::new(grant, CALLBACK)
        };
        let bare = fixture.issuer.authorize(request()).await;
        assert_eq!(matches!(bare, Err(TokenError::InvalidRequest(_))), required, "{client}");
        assert_eq!(bare.is_ok(), !required, "{client}");
        fixture.issuer.authorize(request().pkce(challenge())).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_now_needs_pkce_redeems_no_code_without_it() {
    let fixture = Fixture::new().await;
    let grant = Grant::user("oidc-app", "alice").unwrap();
    let code = fixture.issuer.authorize(ApprovedRequest::new(grant, CALLBACK)).await.unwrap();
    let strict = |builder: cloakroom::IssuerBuilder| {
        let client = cloakroom::Client::confidential("oidc-app", CLIENT_SECRET)
            .grant_types([cloakroom::GrantType::AuthorizationCode])
            .redirect_uri(CALLBACK)
            .audience(ORDERS, cloakroom::Format::Phantom);
        builder.static_clients([client]).unwrap()
    };
    let node = strict(builder(&fixture.store, &fixture.clock)).build().await.unwrap();
    let request = || redemption_by("oidc-app", &code).verifier(None);
    assert_eq!(refusal(node.redeem(request()).await), GrantRefusal::Verifier);
    fixture.issuer.redeem(request()).await.unwrap();
}

#[tokio::test]
async fn a_client_with_several_redirect_uris_must_name_one() {
    let several = |client: &str, uris: &[&str]| {
        let client = cloakroom::Client::public(client)
            .grant_types([cloakroom::GrantType::AuthorizationCode])
            .audience(ORDERS, cloakroom::Format::Opaque);
        uris.iter().fold(client, |client, uri| client.redirect_uri(*uri)).build().unwrap()
    };
    let clients =
        [several("one", &[CALLBACK]), several("two", &[CALLBACK, "https://app.example/other"])];
    assert_eq!(clients[0].only_redirect_uri(), Some(CALLBACK));
    assert_eq!(clients[1].only_redirect_uri(), None);
    let fixture = Fixture::with(|builder| builder.static_clients(clients).unwrap()).await;
    let request = |client| {
        let grant = Grant::user(client, "alice").unwrap();
        ApprovedRequest::without_redirect_uri(grant).pkce(challenge())
    };
    fixture.issuer.authorize(request("one")).await.unwrap();
    let answer = fixture.issuer.authorize(request("two")).await;
    assert!(matches!(answer, Err(TokenError::RedirectUri)), "{answer:?}");
}

#[tokio::test]
async fn the_user_is_sent_back_with_the_issuer_and_everything_that_was_there() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    for (uri, begins) in [
        ("https://app.example/cb", "https://app.example/cb?code="),
        ("https://app.example/cb?", "https://app.example/cb?code="),
        ("https://app.example/cb?a=1", "https://app.example/cb?a=1&code="),
        ("https://app.example/cb?a=1&", "https://app.example/cb?a=1&code="),
        ("com.example.app:/cb", "com.example.app:/cb?code="),
        ("myapp:cb", "myapp:cb?code="),
    ] {
        let response = fixture.issuer.authorization_response(uri, Some("x&y=#1 \u{e9}"));
        let url = response.code(&code);
        assert!(url.starts_with(begins), "{url:?}");
        let parsed = url::Url::parse(&url).unwrap();
        assert!(parsed.fragment().is_none());
        let pairs: Vec<_> = parsed.query_pairs().into_owned().collect();
        let of = |name: &str| {
            let mut values = pairs.iter().filter(|(own, _)| own == name);
            let value = values.next().map(|(_, value)| value.as_str());
            assert!(values.next().is_none(), "{name} twice: {url:?}");
            value
        };
        assert_eq!(of("code"), Some(code.expose()));
        assert_eq!(of("state"), Some("x&y=#1 \u{e9}"));
        assert_eq!(of("iss"), Some(ISSUER));
    }
    let response = fixture.issuer.authorization_response(CALLBACK, None);
    let iss = "&iss=https%3A%2F%2Fas.example";
    assert_eq!(response.error("access_denied", ""), format!("{CALLBACK}?error=access_denied{iss}"));
    // RFC 6749 §4.1.2.1 allows no other characters.
    assert_eq!(
        response.error("invalid_scope", "\"RFC\u{a0}6749\" \\ \u{a7}3.3\n~!"),
        format!("{CALLBACK}?error=invalid_scope&error_description=RFC6749++3.3%7E%21{iss}")
    );
    let request = TokenError::InvalidRequest("the client must send a PKCE challenge");
    for (error, expected) in [
        (TokenError::RedirectUri, None),
        (cloakroom::AuthenticationFailure::UnknownClient.into(), None),
        (TokenError::Barred, Some("access_denied")),
        (request, Some("invalid_request&error_description=the+client+must+send+a+PKCE+challenge")),
        (TokenError::InvalidTarget("x"), Some("invalid_target&error_description=x")),
        (TokenError::Unavailable("x"), Some("temporarily_unavailable")),
    ] {
        let expected = expected.map(|error| format!("{CALLBACK}?error={error}{iss}"));
        assert_eq!(response.refusal(&error), expected);
    }
}

#[tokio::test]
async fn who_may_have_no_code_gets_none() {
    let fixture = Fixture::new().await;
    let issuer = &fixture.issuer;
    let grant = |client| Grant::user(client, "alice").unwrap();
    let foreign = issuer.authorize(
        ApprovedRequest::new(grant("web-app"), "https://evil.example/").pkce(challenge()),
    );
    assert!(matches!(foreign.await, Err(TokenError::RedirectUri)));
    // RFC 9700 §2.1.1: public clients must use PKCE.
    let bare = issuer.authorize(ApprovedRequest::new(grant("spa-app"), CALLBACK)).await;
    assert!(matches!(bare, Err(TokenError::InvalidRequest(_))));
    let api =
        issuer.authorize(ApprovedRequest::new(grant("orders-api"), CALLBACK).pkce(challenge()));
    assert!(api.await.is_err());
    let unknown =
        issuer.authorize(ApprovedRequest::new(grant("nobody"), CALLBACK).pkce(challenge()));
    assert!(matches!(unknown.await, Err(TokenError::InvalidClient(_))));
    let wide = grant("web-app").scope("admin").unwrap();
    let wide = issuer.authorize(ApprovedRequest::new(wide, CALLBACK).pkce(challenge())).await;
    assert!(matches!(wide, Err(TokenError::InvalidScope(_))));
    let elsewhere = grant("web-app").audience(Audience::one("https://x.example").unwrap());
    let elsewhere = issuer.authorize(ApprovedRequest::new(elsewhere, CALLBACK).pkce(challenge()));
    assert!(matches!(elsewhere.await, Err(TokenError::InvalidTarget(_))));
    assert!(Pkce::s256("too-short").is_err() && Pkce::s256("=".repeat(43)).is_err());
    assert_eq!(fixture.events.names(), [""; 0]);
}

#[tokio::test]
async fn a_code_redeemed_twice_ends_its_grant() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    let first = Session::of(fixture.redeem(&code).await.unwrap());
    let next = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    fixture.events.take();
    // Codes have no retry window: at once is late enough.
    assert_eq!(refusal(fixture.redeem(&code).await), GrantRefusal::Reused);
    assert!(matches!(
        &fixture.events.take()[..],
        [Event::ReuseDetected { presented: 0, current: 2, .. }]
    ));
    for token in [&first.access, &next.access] {
        assert!(!fixture.is_active(token).await);
    }
    for token in [&first.refresh, &next.refresh] {
        assert_eq!(refusal(fixture.refresh(token).await), GrantRefusal::Dead);
    }
    assert_eq!(fixture.sessions().await, 0);
}

#[tokio::test]
async fn a_year_old_code_without_its_verifier_changes_nothing() {
    let years = Lifetimes::default().refresh_idle(500 * DAY).grant(1000 * DAY);
    let fixture = Fixture::with(|builder| builder.lifetimes(years)).await;
    let code = fixture.code().await;
    let session = Session::of(fixture.redeem(&code).await.unwrap());
    fixture.clock.advance(365 * DAY);
    let found_in_a_log = redemption(&code).verifier(None);
    assert_eq!(refusal(fixture.issuer.redeem(found_in_a_log).await), GrantRefusal::Verifier);
    let session = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    assert!(fixture.is_active(&session.access).await);
    // In the hands of someone who knows the verifier it is reuse, however old it is.
    assert_eq!(refusal(fixture.redeem(&code).await), GrantRefusal::Reused);
    assert!(!fixture.is_active(&session.access).await);
}

#[tokio::test]
async fn a_code_lives_for_its_minute() {
    let fixture = Fixture::new().await;
    let (good, late) = (fixture.code().await, fixture.code().await);
    fixture.clock.advance(MINUTE - std::time::Duration::from_millis(1));
    fixture.redeem(&good).await.unwrap();
    fixture.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(refusal(fixture.redeem(&late).await), GrantRefusal::Dead);
}

#[tokio::test]
async fn an_unredeemed_code_is_no_session() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    assert_eq!(fixture.sessions().await, 0);
    fixture.redeem(&code).await.unwrap();
    assert_eq!(fixture.sessions().await, 1);
}

#[tokio::test]
async fn a_client_without_refresh_tokens_gets_an_access_token_alone() {
    let clients = || {
        let client = cloakroom::Client::confidential("web-app", CLIENT_SECRET)
            .grant_types([cloakroom::GrantType::AuthorizationCode])
            .redirect_uri(CALLBACK)
            .scope("orders:read")
            .audience(ORDERS, cloakroom::Format::Opaque);
        [client.build().unwrap()]
    };
    let fixture = Fixture::with(|builder| builder.static_clients(clients()).unwrap()).await;
    let code = fixture.code().await;
    let tokens = fixture.redeem(&code).await.unwrap();
    assert!(tokens.refresh_token.is_none());
    assert!(fixture.is_active(&tokens.access_token).await);
    assert_eq!(refusal(fixture.redeem(&code).await), GrantRefusal::Reused);
    assert!(!fixture.is_active(&tokens.access_token).await);
}

/// Redeems from many tasks at once, all of which see the code unspent.
async fn redeem_at_once(fixture: &Fixture, number: usize) -> Vec<Result<Session, TokenError>> {
    let code = fixture.code().await;
    fixture.store.meet_after("find", number);
    let mut tasks = JoinSet::new();
    for _ in 0..number {
        let (issuer, request): (Issuer, _) = (fixture.issuer.clone(), redemption(&code));
        tasks.spawn(async move { issuer.redeem(request).await.map(Session::of) });
    }
    let answers = tasks.join_all().await;
    fixture.store.no_meeting();
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_redemptions_at_once_one_wins_and_its_session_lives() {
    let fixture = Fixture::new().await;
    for _ in 0..20 {
        fixture.events.take();
        let (won, lost): (Vec<_>, Vec<_>) =
            redeem_at_once(&fixture, 32).await.into_iter().partition(Result::is_ok);
        let [winner] = won.try_into().ok().unwrap();
        let winner: Session = winner.ok().unwrap();
        for loser in lost {
            // A double click, not a thief.
            assert_eq!(refusal(loser.map(|_| ())), GrantRefusal::Spent);
        }
        assert!(fixture.is_active(&winner.access).await);
        let next = Session::of(fixture.refresh(&winner.refresh).await.unwrap());
        assert_ne!(next.refresh.expose(), winner.refresh.expose());
        assert_eq!(fixture.events.names(), ["Issued", "Redeemed", "Refreshed"]);
    }
}

#[tokio::test]
async fn a_code_keeps_what_was_granted() {
    let fixture = Fixture::new().await;
    let user = UserId::new("alice").unwrap();
    let grant = Grant::new(client_id("web-app"), cloakroom::core::Subject::User(user))
        .scope("orders:read")
        .unwrap()
        .audience(Audience::new([ORDERS, BILLING]).unwrap())
        .username("Alice Liddell")
        .unwrap()
        .auth_time(START)
        .session("sid-1")
        .claim("tenant", serde_json::json!("acme"))
        .unwrap();
    let code = fixture.issuer.authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge()));
    let request = redemption(&code.await.unwrap()).resources(vec![BILLING.into()]);
    let tokens = fixture.issuer.redeem(request).await.unwrap();
    let answer = fixture.issuer.introspect(&tokens.access_token, Caller::Internal);
    let answer = answer.await.unwrap();
    let token = answer.active().unwrap();
    assert_eq!(token.scope.as_str(), "orders:read");
    assert_eq!(token.audience.as_ref().unwrap().single(), Some(BILLING));
    assert_eq!(token.username.as_deref(), Some("Alice Liddell"));
    assert_eq!(token.auth_time, Some(START));
    assert_eq!(token.session.as_deref(), Some("sid-1"));
    assert_eq!(token.extra.get("tenant"), Some(&serde_json::json!("acme")));
    // The refresh token still brings the other one.
    let wide = fixture.refresh(&tokens.refresh_token.unwrap()).await.unwrap();
    let answer = fixture.issuer.introspect(&wide.access_token, Caller::Internal);
    let audience = answer.await.unwrap().active().unwrap().audience.clone();
    assert_eq!(audience.unwrap().iter().len(), 2);
}
