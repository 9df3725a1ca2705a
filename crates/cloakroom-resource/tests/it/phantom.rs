use std::convert::Infallible;

use axum::Router;
use bytes::Bytes;
use cloakroom_resource::{BearerLayer, HttpClient, PhantomLayer, ReqwestClient, VerifiedToken};
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};

use crate::introspection::client;
use crate::support::{AUDIENCE, Key, Peer, claims_with, manual_clock, respond, serve};

/// What went through to the service, or why nothing did.
pub(crate) async fn send(
    layer: &PhantomLayer,
    headers: &[(&str, &str)],
) -> Result<HeaderMap, Response<()>> {
    let (sender, mut through) = tokio::sync::mpsc::unbounded_channel();
    let gateway = layer.layer(service_fn(move |request: Request<()>| {
        sender.send(request.headers().clone()).unwrap();
        async { Ok::<_, Infallible>(Response::new(())) }
    }));
    let mut request = Request::new(());
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().append(name, value);
    }
    let response = gateway.oneshot(request).await.unwrap();
    through.try_recv().map_err(|_| response)
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

async fn authorization_server() -> (Peer, String) {
    let jwt = Key::new().token().await;
    let body = jwt.clone();
    (Peer::start(move |_| respond(200, "application/jwt", &body)).await, jwt)
}

pub(crate) fn status(result: &Result<HeaderMap, Response<()>>) -> u16 {
    result.as_ref().map_or_else(|refused| refused.status().as_u16(), |_| 200)
}

#[tokio::test]
async fn a_handle_comes_in_and_a_jwt_goes_on() {
    let (peer, jwt) = authorization_server().await;
    let layer = PhantomLayer::new(client(&peer), AUDIENCE);
    let through = send(
        &layer,
        &[("authorization", "bearer cr_at_x"), ("cookie", "session=a"), ("x-request-id", "7")],
    )
    .await
    .unwrap();
    assert_eq!(all(&through, "authorization"), [format!("Bearer {jwt}")]);
    assert!(through["authorization"].is_sensitive());
    assert!(!format!("{through:?}").contains(&jwt));
    assert_eq!(all(&through, "x-request-id"), ["7"]);
    assert_eq!(all(&through, "cookie"), ["session=a"], "cookies are not its business here");
    assert_eq!(
        peer.last().form(),
        [("token".to_owned(), "cr_at_x".to_owned()), ("resource".to_owned(), AUDIENCE.to_owned())]
    );
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn what_a_client_forges_does_not_go_on() {
    let (peer, jwt) = authorization_server().await;
    let layer = PhantomLayer::new(client(&peer), AUDIENCE);
    let forged = Key::new().token().await;
    let through = send(&layer, &[("authorization", &format!("Bearer {forged}"))]).await.unwrap();
    assert_eq!(all(&through, "authorization"), [format!("Bearer {jwt}")]);

    peer.answer_with(|_| respond(204, "", ""));
    let bearer = format!("Bearer {forged}");
    let refused = send(&layer, &[("authorization", &bearer)]).await;
    assert_eq!(status(&refused), 401);

    let count = peer.count();
    for (expected, headers) in [
        (400, &[("authorization", "Bearer cr_at_x"), ("authorization", &*bearer)][..]),
        (400, &[("authorization", "Basic eDp5"), ("authorization", &*bearer)]),
        (400, &[("authorization", "Bearer a b")]),
        (401, &[("authorization", "Basic eDp5")]),
        (401, &[("authorization", &*format!("DPoP {forged}"))]),
        (401, &[("cookie", "__Host-at=cr_at_x")]),
        (401, &[]),
    ] {
        assert_eq!(status(&send(&layer, headers).await), expected, "{headers:?}");
    }
    assert_eq!(peer.count(), count);
}

#[tokio::test]
async fn a_handle_may_come_in_a_cookie() {
    let (peer, jwt) = authorization_server().await;
    let layer = PhantomLayer::new(client(&peer), AUDIENCE).cookie("__Host-at");
    for (cookies, kept) in [
        (&["__Host-at=cr_at_x"][..], &[][..]),
        (&["a=1; __Host-at=cr_at_x; b=\"2 3\""], &["a=1; b=\"2 3\""]),
        (&["__Host-at=cr_at_x;a=1", "b=2", "c=3"], &["a=1", "b=2", "c=3"]),
        (&["a=1", " __Host-at = cr_at_x "], &["a=1"]),
        (
            &["__Host-at2=y; x__Host-at=z; __host-at=w; __Host-at=cr_at_x"],
            &["__Host-at2=y; x__Host-at=z; __host-at=w"],
        ),
    ] {
        let headers: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
        let through = send(&layer, &headers).await.unwrap();
        assert_eq!(all(&through, "authorization"), [format!("Bearer {jwt}")]);
        assert_eq!(all(&through, "cookie"), kept, "{cookies:?}");
        assert_eq!(peer.last().form()[0].1, "cr_at_x");
    }
    // Credentials of another scheme, which a browser adds by itself, are in nobody's way.
    let basic = [("authorization", "Basic eDp5"), ("cookie", "__Host-at=cr_at_x")];
    let through = send(&layer, &basic).await.unwrap();
    assert_eq!(all(&through, "authorization"), [format!("Bearer {jwt}")]);

    let through = send(&layer, &[("authorization", "Bearer cr_at_h"), ("cookie", "a=1")]).await;
    assert_eq!(all(&through.unwrap(), "cookie"), ["a=1"]);
    assert_eq!(peer.last().form()[0].1, "cr_at_h");

    let count = peer.count();
    for (expected, headers) in [
        (400, &[("authorization", "Bearer cr_at_h"), ("cookie", "__Host-at=cr_at_x")][..]),
        (400, &[("cookie", "__Host-at=cr_at_x; __Host-at=cr_at_y")]),
        (400, &[("cookie", "__Host-at=cr_at_x"), ("cookie", "__Host-at=cr_at_x")]),
        (400, &[("cookie", "__Host-at=")]),
        (400, &[("cookie", "__Host-at=a b")]),
        (401, &[("cookie", "__Host-at")]),
        (401, &[("cookie", "other=cr_at_x")]),
    ] {
        assert_eq!(status(&send(&layer, headers).await), expected, "{headers:?}");
    }
    assert_eq!(peer.count(), count);
}

#[tokio::test]
async fn inactive_is_401_and_an_outage_503() {
    let (peer, jwt) = authorization_server().await;
    let layer = PhantomLayer::new(client(&peer), AUDIENCE);
    let bound = Key::new().sign(&claims_with(&json!({ "cnf": { "jkt": "A".repeat(43) } }))).await;
    for (code, content_type, body, expected) in [
        (204, "", "", 401),
        (200, "application/jwt", &*bound, 401),
        (200, "application/json", r#"{"active":false}"#, 503),
        (200, "application/json", r#"{"active":true}"#, 503),
        (200, "application/json", &*jwt, 503),
        (200, "application/jwt", r#"{"active":false}"#, 503),
        (200, "application/jwt", "", 503),
        (302, "application/jwt", &*jwt, 503),
        (401, "application/json", r#"{"active":false}"#, 503),
        (500, "application/jwt", &*jwt, 503),
        (503, "", "", 503),
    ] {
        let (kind, text) = (content_type.to_owned(), body.to_owned());
        peer.answer_with(move |_| respond(code, &kind, &text));
        let refused = send(&layer, &[("authorization", "Bearer cr_at_x")]).await.unwrap_err();
        assert_eq!(refused.status(), expected, "{code} {content_type} {body}");
        let challenge = refused.headers().get("www-authenticate");
        if expected == 401 {
            let text = r#"Bearer realm="https://orders.example", error="invalid_token""#;
            assert_eq!(challenge.unwrap(), text);
        } else {
            assert!(challenge.is_none());
            assert_eq!(refused.headers()["retry-after"], "1");
        }
    }
    drop(peer);
    assert_eq!(status(&send(&layer, &[("authorization", "Bearer cr_at_x")]).await), 503);
}

#[tokio::test]
async fn gateway_and_api_over_real_http() {
    let key = Key::new();
    let jwt = key.token().await;
    let peer = Peer::start(move |_| respond(200, "application/jwt", &jwt)).await;
    let api = Router::new()
        .route(
            "/orders",
            axum::routing::get(|token: VerifiedToken| async move {
                format!("{} {}", token.subject().unwrap().id(), token.claim("tenant").unwrap())
            }),
        )
        .route_layer(BearerLayer::new(key.verifier(&manual_clock())));
    // One router stands for the proxy and the service behind it.
    let gateway = Router::new()
        .fallback_service(api.clone())
        .layer(PhantomLayer::new(client(&peer), AUDIENCE));
    let (api, api_server) = serve(api).await;
    let (gateway, gateway_server) = serve(gateway).await;
    let http = ReqwestClient::new().unwrap();
    let get = |url: &str| {
        let request =
            Request::get(format!("{url}/orders")).header("authorization", "Bearer cr_at_x");
        http.send(request.body(Bytes::new()).unwrap())
    };
    let response = get(&gateway).await.unwrap();
    assert_eq!((response.status().as_u16(), &**response.body()), (200, &b"alice \"acme\""[..]));
    assert_eq!(get(&api).await.unwrap().status(), 401, "the handle itself is nothing to the API");
    peer.answer_with(|_| respond(204, "", ""));
    let response = get(&gateway).await.unwrap();
    assert_eq!(response.status(), 401, "the very next request");
    assert_eq!(response.headers()["content-length"], "0");
    api_server.abort();
    gateway_server.abort();
}

#[tokio::test]
async fn the_jwt_cannot_be_made_to_disappear_behind_the_gateway() {
    let (peer, _) = authorization_server().await;
    let layer = PhantomLayer::new(client(&peer), AUDIENCE);
    for connection in
        ["authorization", "close, Authorization", "x,AUTHORIZATION ,y", "ä, authorization"]
    {
        let headers = [("authorization", "Bearer cr_at_x"), ("connection", connection)];
        assert_eq!(status(&send(&layer, &headers).await), 400, "{connection}");
    }
    assert_eq!(peer.count(), 0, "nobody is asked");
    let headers =
        [("authorization", "Bearer cr_at_x"), ("connection", "keep-alive, x-authorization")];
    assert_eq!(status(&send(&layer, &headers).await), 200);
}
