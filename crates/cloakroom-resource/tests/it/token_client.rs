use std::sync::Arc;

use cloakroom_resource::{
    ClientCredentials, ManualClock, ReqwestClient, SetupError, TokenClient, TokenRequestError,
    UnavailableError,
};
use serde_json::{Value, json};

use crate::cache_support::secs;
use crate::support::{Peer, json, manual_clock, respond};

/// A server whose tokens are numbered, and live for a hundred seconds.
async fn server() -> Peer {
    let number = std::sync::atomic::AtomicU32::new(0);
    Peer::start(move |_| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        json(&answer(number))
    })
    .await
}

fn answer(number: u32) -> Value {
    json!({ "access_token": format!("token-{number}"), "token_type": "bearer", "expires_in": 100 })
}

fn client(peer: &Peer, clock: &Arc<ManualClock>) -> TokenClient {
    let credentials = ClientCredentials::new("nightly", "s3cret/+");
    let endpoint = format!("{}/token", peer.url);
    TokenClient::new(&endpoint, credentials, ReqwestClient::new().unwrap())
        .unwrap()
        .clock(clock.clone())
}

async fn token(client: &TokenClient) -> String {
    client.token().await.unwrap().expose().to_owned()
}

#[tokio::test]
async fn a_token_is_kept_for_nine_tenths_of_its_life() {
    let (peer, clock) = (server().await, manual_clock());
    let client =
        client(&peer, &clock).scope("orders:read a").resource("https://a").resource("https://b");
    assert_eq!(token(&client).await, "token-0");
    let asked = peer.last();
    assert_eq!((asked.method.as_str(), &*asked.path), ("POST", "/token"));
    assert!(asked.header("authorization").unwrap().starts_with("Basic "));
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "orders:read a"),
        ("resource", "https://a"),
        ("resource", "https://b"),
    ];
    assert_eq!(asked.form(), form.map(|(name, value)| (name.to_owned(), value.to_owned())));

    clock.advance(secs(90) - std::time::Duration::from_millis(1));
    assert_eq!(token(&client.clone()).await, "token-0");
    clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(token(&client).await, "token-1");
    assert_eq!(peer.count(), 2);
    assert_eq!(token(&client.clone().scope("other")).await, "token-2", "another request");
    assert_eq!(token(&client).await, "token-1");
    assert!(!format!("{client:?}").contains("token-1"));
}

#[tokio::test]
async fn a_token_that_cannot_be_replaced_serves_until_its_end() {
    let (peer, clock) = (server().await, manual_clock());
    let client = client(&peer, &clock);
    assert_eq!(token(&client).await, "token-0");
    let fails = |status| peer.answer_with(move |_| respond(status, "text/plain", ""));
    fails(503);
    clock.advance(secs(90));
    assert_eq!(token(&client).await, "token-0");
    assert_eq!(token(&client).await, "token-0");
    assert_eq!(peer.count(), 2, "one question for both");
    fails(401);
    clock.advance(secs(1));
    assert_eq!(token(&client).await, "token-0");
    assert_eq!(peer.count(), 3);
    let half = std::time::Duration::from_millis(500);
    clock.advance(secs(9) - half);
    assert_eq!(token(&client).await, "token-0", "the server was asked just before its end");
    clock.advance(half);
    assert!(client.token().await.is_err(), "it has ended");

    peer.answer_with(|_| json(&answer(7)));
    assert_eq!(token(&client).await, "token-7");
    fails(503);
    clock.advance(secs(95));
    assert_eq!(token(&client).await, "token-7");
    peer.answer_with(|_| json(&answer(8)));
    clock.advance(secs(1));
    assert_eq!(token(&client).await, "token-8", "the server is back");
    fails(503);
    clock.advance(secs(90));
    let held = client.token().await.unwrap();
    client.forget(&held);
    assert!(client.token().await.is_err(), "it was revoked");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let (peer, clock) = (server().await, manual_clock());
    let client = client(&peer, &clock);
    let first = client.token().await.unwrap();
    client.forget(&first);
    assert_eq!(token(&client).await, "token-1");
    client.forget(&first);
    assert_eq!(token(&client).await, "token-1", "it is another one by now");
    assert_eq!(peer.count(), 2);
}

#[tokio::test]
async fn many_tasks_send_one_request_and_share_its_failure() {
    let (peer, clock) = (server().await, manual_clock());
    let client = client(&peer, &clock);
    let all = |client: &TokenClient| {
        let task = |_| {
            let client = client.clone();
            tokio::spawn(async move { client.token().await })
        };
        (0..50).map(task).collect::<Vec<_>>()
    };
    peer.close();
    let tasks = all(&client);
    peer.wait_for(1).await;
    peer.open();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().expose(), "token-0");
    }
    assert_eq!(peer.count(), 1);

    clock.advance(secs(100));
    peer.answer_with(|_| respond(503, "text/plain", ""));
    peer.close();
    let tasks = all(&client);
    peer.wait_for(2).await;
    peer.open();
    for task in tasks {
        let error = task.await.unwrap().unwrap_err();
        assert!(matches!(error, TokenRequestError::Unavailable(UnavailableError::Status(_))));
    }
    assert!(peer.count() <= 3, "{} requests", peer.count());
    peer.answer_with(|_| json(&answer(7)));
    assert_eq!(token(&client).await, "token-7", "a failure is not remembered");
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_the_answer_to_the_next() {
    let (peer, clock) = (server().await, manual_clock());
    let client = client(&peer, &clock);
    peer.close();
    let gone = tokio::spawn({
        let client = client.clone();
        async move { client.token().await }
    });
    peer.wait_for(1).await;
    gone.abort();
    peer.open();
    assert_eq!(token(&client).await, "token-0");
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn a_refusal_says_what_the_server_says_and_an_outage_is_none() {
    let (peer, clock) = (server().await, manual_clock());
    let client = client(&peer, &clock);
    let error = async |status: u16, body: &str| {
        let body = body.to_owned();
        peer.answer_with(move |_| respond(status, "application/json", &body));
        client.token().await.unwrap_err()
    };
    let refused = error(400, r#"{"error":"invalid_scope","error_description":"no\nsuch"}"#).await;
    let expected = "the authorization server refuses to issue a token: invalid_scope (no\\nsuch)";
    assert_eq!(refused.to_string(), expected);
    let TokenRequestError::Refused { code, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(code, "invalid_scope");
    let long = "x".repeat(10_000);
    let refused = error(400, &format!(r#"{{"error":"{long}"}}"#)).await;
    assert!(refused.to_string().len() < 500);

    for (status, body, expected) in [
        (401, r#"{"error":"invalid_client"}"#, "Credentials"),
        (400, r#"{"error":"invalid_client"}"#, "Credentials"),
        (401, "", "Credentials"),
        (400, "<html>", "Status"),
        (429, r#"{"error":"slow_down"}"#, "Status"),
        (500, r#"{"error":"server_error"}"#, "Status"),
        (302, "", "Status"),
        (204, "", "Status"),
        (200, "", "Unreadable"),
        (200, "[]", "Unreadable"),
        (200, r#"{"access_token":"a"}"#, "Unreadable"),
        (200, r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#, "Unreadable"),
        (200, r#"{"access_token":"a","token_type":"DPoP"}"#, "Malformed"),
        (200, r#"{"access_token":"","token_type":"Bearer"}"#, "Malformed"),
        (200, r#"{"access_token":"a b","token_type":"Bearer"}"#, "Malformed"),
        (200, r#"{"access_token":"a\r\nb","token_type":"Bearer"}"#, "Malformed"),
        (200, r#"{"access_token":"é","token_type":"Bearer"}"#, "Malformed"),
        (200, r#"{"access_token":"a","token_type":"Bearer","expires_in":-1}"#, "Malformed"),
        (200, r#"{"access_token":"a","token_type":"Bearer","expires_in":1e300}"#, "Malformed"),
        (200, r#"{"access_token":"a","token_type":"Bearer","expires_in":"soon"}"#, "Malformed"),
        (200, r#"{"access_token":"a","token_type":"Bearer","expires_in":true}"#, "Unreadable"),
    ] {
        let TokenRequestError::Unavailable(error) = error(status, body).await else {
            panic!("{status} {body}");
        };
        assert!(format!("{error:?}").starts_with(expected), "{status} {body}: {error:?}");
    }
    // Lives as other servers write them.
    for (life, kept) in
        [(json!("100"), 90), (json!(100.9), 90), (json!(100), 90), (json!(null), 54)]
    {
        peer.answer_with(move |_| {
            json(&json!({ "access_token": "a", "token_type": "Bearer", "expires_in": life }))
        });
        let asked = peer.count();
        let given = client.token().await.unwrap();
        clock.advance(secs(kept) - std::time::Duration::from_millis(1));
        client.token().await.unwrap();
        assert_eq!(peer.count(), asked + 1);
        clock.advance(std::time::Duration::from_millis(1));
        client.token().await.unwrap();
        assert_eq!(peer.count(), asked + 2);
        client.forget(&given);
    }
    // A server that does not say how long a token lives.
    peer.answer_with(|_| json(&json!({ "access_token": "a", "token_type": "Bearer" })));
    assert_eq!(token(&client).await, "a");
    let asked = peer.count();
    clock.advance(secs(53));
    assert_eq!(token(&client).await, "a");
    clock.advance(secs(1));
    assert_eq!(token(&client).await, "a");
    assert_eq!(peer.count(), asked + 1);
    // One that ends at once, or never.
    peer.answer_with(|_| {
        json(&json!({ "access_token": "b", "token_type": "Bearer", "expires_in": 0 }))
    });
    client.forget(&client.token().await.unwrap());
    assert_eq!(token(&client).await, "b");
    peer.answer_with(|_| {
        json(&json!({ "access_token": "c", "token_type": "Bearer", "expires_in": u64::MAX }))
    });
    assert_eq!(token(&client).await, "c");
    clock.advance(secs(1_000_000_000));
    assert_eq!(token(&client).await, "c");
}

#[tokio::test]
async fn the_endpoint_is_found_in_the_metadata() {
    let peer = server().await;
    let url = peer.url.clone();
    let credentials = || ClientCredentials::new("nightly", "s3cret/+");
    peer.answer_with(move |asked| match &*asked.path {
        "/t/token" => json(&answer(5)),
        _ => json(
            &json!({ "issuer": format!("{url}/t"), "token_endpoint": format!("{url}/t/token") }),
        ),
    });
    let issuer = format!("{}/t", peer.url);
    let client = TokenClient::discover(&issuer, credentials()).await.unwrap();
    assert_eq!(token(&client).await, "token-5");
    let other = TokenClient::discover(&peer.url, credentials()).await;
    assert!(matches!(other, Err(SetupError::IssuerMismatch { .. })));
}
