use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom_core::time::Clock;
use cloakroom_core::{Subject, TokenSecret};
use cloakroom_resource::{
    BearerLayer, ClientCredentials, Freshness, IntrospectionClient, Introspector, MAX_BODY_BYTES,
    PhantomLayer, ReqwestClient, SetupError, UnavailableError,
};
use serde_json::json;

use crate::cache_support::{Guard, secs};
use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, Received, chain, json, manual_clock, respond, with_header,
};

const SECRET: &str = "gate+way/s3cret";

pub(crate) fn client(peer: &Peer) -> IntrospectionClient {
    IntrospectionClient::new(
        &format!("{}/introspect", peer.url),
        ClientCredentials::new("gateway", SECRET),
        ReqwestClient::new().unwrap(),
    )
    .unwrap()
}

fn handle() -> TokenSecret {
    TokenSecret::new("cr_at_do+not=print")
}

#[tokio::test]
async fn a_question_is_asked_as_rfc_7662_wants_it() {
    let peer = Peer::start(|_| {
        json(&json!({
            "active": true, "sub": "batch", "sub_kind": "client", "client_id": "batch",
            "scope": "orders:read", "exp": 1_700_000_000, "tenant": "acme",
        }))
    })
    .await;
    let answer = client(&peer).introspect(&handle()).await.unwrap();
    let token = answer.active().unwrap();
    assert_eq!(token.subject, Some(Subject::client("batch").unwrap()));
    assert_eq!(token.extra["tenant"], "acme");

    let asked = peer.last();
    assert_eq!((asked.method.as_str(), &*asked.path), ("POST", "/introspect"));
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.form(), [("token".to_owned(), handle().expose().to_owned())]);
    let basic = asked.header("authorization").unwrap().strip_prefix("Basic ").unwrap();
    assert_eq!(STANDARD.decode(basic).unwrap(), b"gateway:gate%2Bway%2Fs3cret");
}

#[tokio::test]
async fn a_swap_brings_a_jwt_or_nothing() {
    let jwt = Key::new().token().await;
    let body = jwt.clone();
    let peer = Peer::start(move |_| respond(200, "Application/JWT; charset=utf-8", &body)).await;
    let client = client(&peer);
    let swapped = client.swap(&handle(), "https://orders.example/a b").await.unwrap().unwrap();
    assert_eq!(swapped.jwt().expose(), jwt);
    let asked = peer.last();
    assert_eq!(asked.header("accept"), Some("application/jwt"));
    assert_eq!(
        asked.form(),
        [
            ("token".to_owned(), handle().expose().to_owned()),
            ("resource".to_owned(), "https://orders.example/a b".to_owned()),
        ]
    );
    peer.answer_with(|_| respond(204, "", ""));
    assert!(client.swap(&handle(), "x").await.unwrap().is_none());
}

#[tokio::test]
async fn garbage_is_an_outage_and_never_a_verdict() {
    let jwt = Key::new().token().await;
    let active = r#"{"active":true}"#;
    let (json, form) = ("application/json", "application/jwt");
    let peer = Peer::start(|_| respond(200, "", "")).await;
    let client = client(&peer);
    // Status, content type, body; whether it is usable as an answer to introspect, and to swap.
    for (status, content_type, body, introspects, swaps) in [
        (200, json, r#"{"active":false}"#, true, false),
        (200, json, active, true, false),
        (200, "APPLICATION/JSON;charset=UTF-8", active, true, false),
        (200, form, &*jwt, false, true),
        (204, "", "", false, true),
        (200, "", active, false, false),
        (200, "text/html", active, false, false),
        (200, "application/jsonp", active, false, false),
        (200, "text/plain", &*jwt, false, false),
        (200, json, &*jwt, false, false),
        (200, "application/token-introspection+jwt", &*jwt, false, false),
        (200, form, active, false, false),
        (200, form, "", false, false),
        (200, form, &*format!("{jwt}\n"), false, false),
        (200, form, &*format!("Bearer {jwt}"), false, false),
        (200, form, &*format!("{jwt}.x"), false, false),
        (200, json, "", false, false),
        (200, json, "{", false, false),
        (200, json, "{}", false, false),
        (200, json, "[true]", false, false),
        (200, json, r#"{"active":"true"}"#, false, false),
        (200, json, r#"{"active":true,"active":false}"#, false, false),
        (200, json, r#"{"active":true,"exp":"soon"}"#, false, false),
        (200, json, r#"{"active":true,"cnf":{"new-kind":"x"}}"#, false, false),
        (201, json, active, false, false),
        (301, json, active, false, false),
        (400, json, r#"{"active":false}"#, false, false),
        (401, json, r#"{"active":false}"#, false, false),
        (403, json, r#"{"active":false}"#, false, false),
        (404, json, r#"{"active":false}"#, false, false),
        (429, json, r#"{"active":false}"#, false, false),
        (500, json, r#"{"active":false}"#, false, false),
        (503, form, &*jwt, false, false),
    ] {
        let (kind, text) = (content_type.to_owned(), body.to_owned());
        peer.answer_with(move |_| {
            with_header(respond(status, &kind, &text), "location", "/elsewhere")
        });
        let introspected = client.introspect(&handle()).await;
        assert_eq!(introspected.is_ok(), introspects, "{status} {content_type} {body}");
        let swapped = client.swap(&handle(), "https://orders.example").await;
        assert_eq!(swapped.is_ok(), swaps, "{status} {content_type} {body}");
        for error in [introspected.err(), swapped.err()].into_iter().flatten() {
            let text = format!("{error:?} {}", chain(&error));
            assert!(!text.contains("do+not") && !text.contains("s3cret"), "{text}");
            let credentials = matches!(error, UnavailableError::Credentials(_));
            assert_eq!(credentials, matches!(status, 401 | 403));
        }
    }
    assert_eq!(peer.last().path, "/introspect", "no redirect was followed");
}

/// What a stranger may choose: the name of a member, where only few names are known.
#[tokio::test]
async fn an_error_quotes_no_more_than_a_short_name() {
    let peer = Peer::start(|_| respond(404, "", "")).await;
    let (short, long) = ("x".repeat(40), "x".repeat(41));
    for (name, expected) in [
        (&*short, format!("unknown variant `{short}`")),
        (&long, "unknown variant `…`".to_owned()),
        (r#"x5t"S256"#, r#"unknown variant `x5t\"S256`"#.to_owned()),
    ] {
        let answer = json!({ "active": true, "cnf": { name: "x" } });
        peer.answer_with(move |_| json(&answer));
        let error = chain(&client(&peer).introspect(&handle()).await.unwrap_err());
        assert!(error.contains(&expected) && !error.contains(&long), "{error}");
    }
}

#[tokio::test]
async fn nobody_listening_is_an_outage() {
    let peer = Peer::start(|_| respond(200, "", "")).await;
    let client = client(&peer);
    drop(peer);
    let error = client.introspect(&handle()).await.unwrap_err();
    assert!(matches!(error, UnavailableError::NoAnswer(_)), "{error}");
    assert!(!format!("{error:?} {}", chain(&error)).contains("do+not"));
    assert!(client.swap(&handle(), "x").await.is_err());
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let peer = Peer::start(|_| respond(200, "", "")).await;
    let client = client(&peer);
    let layer = PhantomLayer::new(client.clone(), "https://orders.example");
    let bearer = BearerLayer::introspecting(client.clone(), "i", "a");
    let swapped = cloakroom_resource::PhantomJwt::parse(TokenSecret::new(Key::new().token().await));
    let debug = format!("{client:?} {client:#?} {layer:?} {bearer:?} {swapped:?}");
    assert!(debug.contains("gateway"));
    for secret in [SECRET, "s3cret", "eyJ", &STANDARD.encode("gateway:gate%2Bway%2Fs3cret")] {
        assert!(!debug.contains(secret), "{debug}");
    }
}

#[test]
fn secrets_do_not_travel_in_the_clear() {
    for bad in ["http://as.example/introspect", "as.example", "https://u:p@as.example/"] {
        let credentials = ClientCredentials::new("gateway", SECRET);
        let client = IntrospectionClient::new(bad, credentials, ReqwestClient::new().unwrap());
        assert!(matches!(client, Err(SetupError::Url { .. })), "{bad}");
    }
}

/// One token about which the server says nothing that can be understood does not ask with each request.
#[tokio::test]
async fn an_answer_without_sense_stands_for_its_token_for_a_second() {
    let jwt = Key::new().token().await;
    let good = json!({ "active": true, "aud": AUDIENCE, "sub": "alice" }).to_string();
    for (what, status, content_type, body) in [
        ("a wrong type", 200, "application/json", r#"{"active":"yes"}"#.to_owned()),
        ("a page", 200, "text/html", "<h1>".to_owned()),
        ("a redirect", 302, "", String::new()),
        ("a refused request", 400, "application/json", "{}".to_owned()),
        ("too much", 200, "application/json", " ".repeat(MAX_BODY_BYTES + 1)),
    ] {
        let clock = manual_clock();
        let time = || Arc::clone(&clock) as Arc<dyn Clock>;
        let peer = Peer::start(|_| respond(500, "", "")).await;
        let garbage = move |_: &Received| respond(status, content_type, &body);
        peer.answer_with(garbage.clone());
        let bearer = BearerLayer::introspecting(client(&peer), ISSUER, AUDIENCE).clock(time());
        let cached = bearer.clone().cache(10).freshness(Freshness::within(secs(60))).unwrap();
        let phantom = PhantomLayer::new(client(&peer), AUDIENCE).clock(time());
        for (guard, good_type, good) in [
            (Guard::Bearer(bearer), "application/json", &good),
            (Guard::Bearer(cached), "application/json", &good),
            (Guard::Phantom(phantom), "application/jwt", &jwt),
        ] {
            peer.answer_with(garbage.clone());
            let before = peer.count();
            for _ in 0..3 {
                assert_eq!(guard.ask("cr_at_a").await, 503, "{what}");
            }
            assert_eq!(peer.count(), before + 1, "{what}");
            // It says nothing of any other token.
            let good = good.clone();
            peer.answer_with(move |_| respond(200, good_type, &good));
            assert_eq!(guard.ask("cr_at_b").await, 200, "{what}");
            clock.advance(Duration::from_millis(999));
            assert_eq!(guard.ask("cr_at_a").await, 503, "{what}");
            clock.advance(Duration::from_millis(1));
            assert_eq!(guard.ask("cr_at_a").await, 200, "{what}");
            assert_eq!(peer.count(), before + 3, "{what}");
        }
    }
    // A server that is down is asked each time: it may answer.
    let peer = Peer::start(|_| respond(503, "", "")).await;
    let guard = Guard::Bearer(BearerLayer::introspecting(client(&peer), ISSUER, AUDIENCE));
    for number in 1..=3 {
        assert_eq!((guard.ask("cr_at_a").await, peer.count()), (503, number));
    }
}
