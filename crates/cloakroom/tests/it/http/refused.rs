//! Failed client authentication is reported: counted, and without a secret.

use std::sync::Arc;

use cloakroom::{AuthenticationFailure, Event};
use serde_json::json;

use super::request::{With as _, get, post};
use super::server::{SECRET, START, Server};
use crate::engine::support::Recorder;

const WRONG: &str = "a-wrong-secret-that-no-log-must-show";

async fn server() -> (Server, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let server = Server::with(|issuer| issuer.events(recorder.clone())).await;
    (server, recorder)
}

#[tokio::test]
async fn each_way_to_fail_is_told() {
    use AuthenticationFailure::*;
    let (server, recorder) = server().await;
    let token = |form: &[(&str, &str)]| post("/token", form);
    let known = |client: &'static str| (Some(client), Some(client.to_owned()));
    let stranger = |claimed: &str| (None, Some(claimed.to_owned()));
    for (request, (client, claimed), method, reason) in [
        (
            token(&[]).basic("web-app", WRONG),
            known("web-app"),
            "client_secret_basic",
            WrongCredentials,
        ),
        (
            token(&[("client_id", "web-app"), ("client_secret", WRONG)]),
            known("web-app"),
            "client_secret_post",
            WrongCredentials,
        ),
        (token(&[("client_id", "web-app")]), known("web-app"), "none", MissingCredentials),
        (
            token(&[]).basic("nobody", WRONG),
            stranger("nobody"),
            "client_secret_basic",
            UnknownClient,
        ),
        (token(&[("client_id", "nobody")]), stranger("nobody"), "none", UnknownClient),
        (token(&[]), (None, None), "none", Malformed),
        (
            post("/introspect", &[("client_id", "spa-app"), ("token", "x")]),
            known("spa-app"),
            "none",
            PublicClient,
        ),
        (
            get("/revocations").basic("follower", WRONG),
            known("follower"),
            "client_secret_basic",
            WrongCredentials,
        ),
    ] {
        server.send(request).await.refused(401, "invalid_client");
        let events = recorder.refused();
        let [
            Event::AuthenticationFailed {
                client: own,
                claimed: named,
                method: how,
                reason: why,
                count: 1,
                since: START,
            },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(own.as_ref().map(AsRef::as_ref), client);
        assert_eq!((named, *how, *why), (&claimed, method, reason));
        assert!(!serde_json::to_string(&events).unwrap().contains(WRONG));
        assert!(!format!("{events:?}").contains(WRONG));
    }
    // Who is right is not told of.
    server.send(token(&[]).basic("web-app", SECRET)).await;
    assert_eq!(recorder.refused(), []);
}

#[tokio::test]
async fn as_many_names_as_an_attacker_likes_are_one_counter() {
    let (server, recorder) = server().await;
    for number in 0..2_000 {
        let request = post("/token", &[]).basic(&format!("nobody-{number}"), WRONG);
        server.send(request).await.refused(401, "invalid_client");
    }
    let hostile = format!("a\n\u{202e}\"{}", "x".repeat(200));
    server.send(post("/token", &[]).basic(&hostile, WRONG)).await.refused(401, "invalid_client");
    server.advance(60);
    server.issuer().maintain().await.unwrap();
    let events = recorder.refused();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(
        serde_json::to_value(&events[1]).unwrap(),
        json!({
            "event": "authentication_failed",
            "client": null,
            "claimed": format!("a\\n\\u{{202e}}\\\"{}", "x".repeat(60)),
            "method": "client_secret_basic",
            "reason": "unknown_client",
            "count": 2_000,
            "since": START.as_millis(),
        })
    );
}
