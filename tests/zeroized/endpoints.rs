//! Tokens and client secrets on their way through the endpoints. The requests and the names of
//! tokens belong to the test; each response wipes itself when it is dropped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use cloakroom::core::futures_core::Stream;
use cloakroom::http::Endpoints;
use cloakroom::{ApprovedRequest, Format, Grant};
use http::header::ACCEPT;
use http::{HeaderValue, Request};
use tower::ServiceExt as _;

use crate::issuer::{APP_SECRET, CALLBACK, GATEWAY_SECRET, VERIFIER, issuer, pkce};
use crate::requests::{basic, post};
use crate::secrets::{assert_wiped, in_a_task};

#[test]
fn what_goes_over_the_wire_is_wiped() {
    for format in [Format::Opaque, Format::Phantom, Format::Jwt] {
        assert_wiped(|secrets| {
            secrets.add("a client secret", APP_SECRET);
            secrets.add("a client secret", GATEWAY_SECRET);
            secrets.add("a verifier", VERIFIER);
            let bodies = in_a_task(session(format));
            for body in &bodies {
                for token in tokens(body) {
                    secrets.add_token("a token", token);
                }
            }
        });
    }
}

#[test]
fn a_body_that_comes_in_parts_is_wiped() {
    assert_wiped(|secrets| {
        secrets.add("a client secret", APP_SECRET);
        secrets.add("another client secret", GATEWAY_SECRET);
        for (secret, status) in [(APP_SECRET, 200), (GATEWAY_SECRET, 401)] {
            in_a_task(in_parts(secret, status));
        }
    });
}

/// Sends a secret in the middle of a body, part by part.
async fn in_parts(secret: &'static str, status: u16) {
    let padding = "y".repeat(3_000);
    let form = [
        ("grant_type", "client_credentials"),
        ("x", &*padding),
        ("client_id", "app"),
        ("client_secret", secret),
        ("z", &*padding),
    ];
    let (parts, body) = post("/token", None, &form).into_parts();
    let ends = (0..body.len()).step_by(100).map(|at| at..body.len().min(at + 100));
    let stream = Body::from_stream(Pieces(ends.map(|piece| body.slice(piece)).collect()));
    drop(body);
    let router = Endpoints::new(issuer(Format::Opaque).await).router();
    let response = router.oneshot(Request::from_parts(parts, stream)).await.expect("a response");
    assert_eq!(response.status(), status);
}

/// A body as a stream.
struct Pieces(VecDeque<Bytes>);

impl Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// One session, from the code to the revocation: every body that brought a token.
async fn session(format: Format) -> Vec<Bytes> {
    let issuer = issuer(format.clone()).await;
    let grant = Grant::user("app", "alice").expect("identifiers");
    let code =
        issuer.authorize(ApprovedRequest::new(grant, CALLBACK).pkce(pkce())).await.expect("a code");
    let endpoints = Endpoints::new(issuer);
    let ask = async |request: Request<Bytes>, status: u16| {
        let response = endpoints.handle(request).await;
        assert_eq!(response.status(), status, "{:?}", response.body());
        response.into_body()
    };
    let app = || Some(basic("app", APP_SECRET));
    let posted = [("client_id", "app"), ("client_secret", APP_SECRET)];

    let first = post(
        "/token",
        app(),
        &[
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ],
    );
    let first = ask(first, 200).await;
    let refresh_token = member(&first, "refresh_token");
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    let second = ask(post("/token", app(), &refresh), 200).await;
    let retried = ask(post("/token", None, &[&refresh[..], &posted].concat()), 200).await;
    let own = ask(post("/token", app(), &[("grant_type", "client_credentials")]), 200).await;

    let token = member(&second, "access_token");
    let introspect = |accept: &'static str, token: &str| {
        let gateway = Some(basic("gateway", GATEWAY_SECRET));
        let mut request = post("/introspect", gateway, &[("token", token)]);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        request
    };
    ask(introspect("application/json", token), 200).await;
    ask(introspect("application/json", refresh_token), 200).await;
    ask(introspect("application/token-introspection+jwt", token), 200).await;
    let swapped = match format {
        Format::Phantom => ask(introspect("application/jwt", token), 200).await,
        _ => ask(introspect("application/jwt", token), 204).await,
    };
    ask(post("/revoke", app(), &[("token", token)]), 200).await;
    ask(post("/revoke", app(), &[("token", member(&second, "refresh_token"))]), 200).await;
    ask(post("/token", Some(basic("app", GATEWAY_SECRET)), &refresh), 401).await;
    ask(post("/token", app(), &refresh), 400).await;
    vec![first, second, retried, own, swapped]
}

/// The tokens of a body: a JWT alone, or the members of a response.
fn tokens(body: &Bytes) -> Vec<&str> {
    let text = std::str::from_utf8(body).expect("a text");
    if text.starts_with('{') {
        text.split('"').filter(|part| part.len() > 60).collect()
    } else {
        text.split_whitespace().collect()
    }
}

fn member<'a>(body: &'a Bytes, name: &str) -> &'a str {
    let text = std::str::from_utf8(body).expect("a text");
    let mut parts = text.split('"');
    parts.find(|part| *part == name).expect("it is there");
    parts.nth(1).expect("it has a value")
}
