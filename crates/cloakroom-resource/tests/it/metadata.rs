//! Protected resource metadata (RFC 9728): what is served, where, and which refusals name it.

use std::convert::Infallible;

use bytes::Bytes;
use cloakroom_core::Scope;
use cloakroom_resource::{
    BearerLayer, JwkSet, PhantomLayer, ResourceMetadata, VerifiedToken, Verifier,
};
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::cache_support::Authority;
use crate::phantom;
use crate::support::{AUDIENCE, ISSUER, Key, claims_with, manual_clock};

const NOTES: &str = "https://api.example/notes";
const AT: &str = "/.well-known/oauth-protected-resource/notes";
const ROOT: &str = "/.well-known/oauth-protected-resource";

fn layer(resource: &str) -> BearerLayer {
    BearerLayer::new(Verifier::with_keys(ISSUER, resource, &JwkSet::new(vec![])))
}

/// Asks a server with this metadata; the service inside answers with its path.
async fn ask(metadata: &ResourceMetadata, method: Method, path: &str) -> Response<Bytes> {
    let inside = service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(Bytes::from(format!("inside {}", request.uri().path()))))
    });
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    metadata.layer(inside).oneshot(request).await.unwrap()
}

fn document(response: &Response<Bytes>) -> Value {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

fn challenge(headers: &HeaderMap) -> &str {
    headers["www-authenticate"].to_str().unwrap()
}

#[tokio::test]
async fn the_document_says_what_the_layer_knows() {
    let metadata = layer(NOTES).resource_metadata().unwrap();
    let metadata = metadata.scopes("notes:write notes:read").unwrap().name("Notes");
    let metadata = metadata
        .member("resource_documentation", "https://api.example/docs".into())
        .member("resource", "https://evil.example".into())
        .member("bearer_methods_supported", Value::Null);
    let response = ask(&metadata, Method::GET, AT).await;
    let expected = json!({
        "resource": NOTES,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["notes:read", "notes:write"],
        "resource_name": "Notes",
        "resource_documentation": "https://api.example/docs",
    });
    assert_eq!(document(&response), expected);
    assert_eq!(response.headers()["cache-control"], "public, max-age=3600");
}

#[tokio::test]
async fn every_issuer_whose_tokens_are_accepted_is_named() {
    let verifier = |issuer| Verifier::with_keys(issuer, NOTES, &JwkSet::new(vec![]));
    let both = verifier(ISSUER).or(verifier("https://other.example")).or(verifier(ISSUER));
    let metadata = BearerLayer::new(both).resource_metadata().unwrap();
    assert_eq!(
        metadata.document()["authorization_servers"],
        json!([ISSUER, "https://other.example"])
    );
}

#[tokio::test]
async fn the_document_is_where_clients_look() {
    for (resource, path) in [
        ("https://api.example", ROOT),
        ("https://api.example/", ROOT),
        (NOTES, AT),
        ("https://api.example/notes/", &format!("{AT}/")),
        ("https://api.example:8443/notes?tenant=a", &format!("{AT}?tenant=a")),
        ("http://127.0.0.1:9000/notes", AT),
    ] {
        let metadata = layer(resource).resource_metadata().unwrap();
        let origin = &resource[..resource[8..].find('/').map_or(resource.len(), |at| at + 8)];
        assert_eq!(metadata.url(), format!("{origin}{path}"));
        for path in [path, ROOT] {
            let response = ask(&metadata, Method::GET, path).await;
            // RFC 9728 §3.3: clients compare it byte for byte.
            assert_eq!(document(&response)["resource"], resource, "{path}");
        }
        let only = metadata.only_at_its_path();
        let at_root = ask(&only, Method::GET, ROOT).await;
        assert_eq!(at_root.body().starts_with(b"inside"), path != ROOT, "{resource}");
    }
}

#[tokio::test]
async fn everything_else_goes_on_to_the_service() {
    let metadata = layer(NOTES).resource_metadata().unwrap();
    for path in [
        "/notes",
        "/",
        "/.well-known/oauth-protected-resource/other",
        "/.well-known/oauth-protected-resource/notes/x",
        "/.well-known/oauth-protected-resource/notes?x",
        "/.well-known/oauth-protected-resources",
        "/.well-known/oauth-authorization-server",
        "/x/.well-known/oauth-protected-resource",
    ] {
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let response = ask(&metadata, method, path).await;
            assert!(response.body().starts_with(b"inside"), "{path}");
            assert!(response.headers().is_empty());
        }
    }
}

#[tokio::test]
async fn scripts_may_read_the_document_and_nobody_may_write_it() {
    let metadata = layer(NOTES).resource_metadata().unwrap();
    for path in [AT, ROOT] {
        let preflight = ask(&metadata, Method::OPTIONS, path).await;
        assert_eq!((preflight.status().as_u16(), &**preflight.body()), (204, &b""[..]));
        assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
        // Scripts send `mcp-protocol-version`, for one.
        assert_eq!(preflight.headers()["access-control-allow-headers"], "*");
        assert_eq!(preflight.headers()["access-control-allow-methods"], "GET, HEAD");

        let get = ask(&metadata, Method::GET, path).await;
        assert_eq!(get.headers()["access-control-allow-origin"], "*");
        let head = ask(&metadata, Method::HEAD, path).await;
        assert_eq!((head.status().as_u16(), &**head.body()), (200, &b""[..]));
        assert_eq!(head.headers()["content-length"], get.body().len().to_string());
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let refused = ask(&metadata, method, path).await;
            assert_eq!((refused.status().as_u16(), &**refused.body()), (405, &b""[..]));
            assert_eq!(refused.headers()["allow"], "GET, HEAD");
        }
    }
}

#[test]
fn a_resource_that_clients_cannot_look_up_is_refused() {
    for bad in ["orders", "urn:example:notes", "http://api.example/notes", "https://api.example/#n"]
    {
        assert!(layer(bad).resource_metadata().is_err(), "{bad}");
        assert!(ResourceMetadata::new(bad, ISSUER).is_err(), "{bad}");
    }
    let metadata = layer(NOTES).resource_metadata().unwrap();
    assert!(metadata.scopes("a  b").is_err());
}

/// Sends a request with this token.
async fn send(layer: &BearerLayer, token: Option<&str>) -> Response<String> {
    let inside = layer.clone();
    let api = layer.layer(service_fn(move |request: Request<()>| {
        let bearer = inside.clone();
        async move {
            let token = request.extensions().get::<VerifiedToken>().unwrap();
            // This request turns out to need more.
            let needed = Scope::parse("notes:delete").unwrap();
            Ok::<_, Infallible>(if needed.is_subset(token.scope()) {
                Response::new("deleted".to_owned())
            } else {
                bearer.insufficient_scope(token, &needed)
            })
        }
    }));
    let mut request = Request::new(());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    api.oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_refusal_says_where_and_for_what_to_ask() {
    let (key, clock) = (Key::new(), manual_clock());
    let bearer = BearerLayer::new(key.verifier(&clock));
    let metadata = bearer.resource_metadata().unwrap();
    let bearer = bearer.announce(&metadata).require_scope("notes:read notes:list").unwrap();
    let realm = r#"Bearer realm="https://orders.example""#;
    let at = format!(r#"resource_metadata="{}""#, metadata.url());
    assert!(at.contains("https://orders.example/.well-known/oauth-protected-resource\""));

    let refused = send(&bearer, None).await;
    assert_eq!(refused.status(), 401);
    let expected = format!(r#"{realm}, scope="notes:list notes:read", {at}"#);
    assert_eq!(challenge(refused.headers()), expected);

    let refused = send(&bearer, Some("junk")).await;
    assert_eq!(refused.status(), 401);
    let expected =
        format!(r#"{realm}, error="invalid_token", scope="notes:list notes:read", {at}"#);
    assert_eq!(challenge(refused.headers()), expected);

    let refused = send(&bearer, Some(" ")).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(challenge(refused.headers()), format!(r#"{realm}, error="invalid_request", {at}"#));

    // By the layer, and by the handler: what the request needs, and not what the token has.
    let token = |scope: &str| {
        let claims = claims_with(&json!({ "scope": scope }));
        let key = &key;
        async move { key.sign(&claims).await }
    };
    let refused = send(&bearer, Some(&token("notes:read profile").await)).await;
    assert_eq!(refused.status(), 403);
    let expected =
        format!(r#"{realm}, error="insufficient_scope", scope="notes:list notes:read", {at}"#);
    assert_eq!(challenge(refused.headers()), expected);

    let refused = send(&bearer, Some(&token("notes:read notes:list profile").await)).await;
    assert_eq!(refused.status(), 403);
    let all = "notes:delete notes:list notes:read";
    let expected = format!(r#"{realm}, error="insufficient_scope", scope="{all}", {at}"#);
    assert_eq!(challenge(refused.headers()), expected);
    assert_eq!(refused.body(), "");

    // One step-up is enough.
    let passed = send(&bearer, Some(&token(all).await)).await;
    assert_eq!((passed.status().as_u16(), &**passed.body()), (200, "deleted"));
}

#[tokio::test]
async fn a_refusal_of_a_gateway_says_where_to_ask() {
    let metadata = layer(NOTES).resource_metadata().unwrap();
    let gateway = PhantomLayer::new(Authority::new(), AUDIENCE).announce(&metadata);
    let refused = phantom::send(&gateway, &[]).await.unwrap_err();
    assert_eq!(refused.status(), 401);
    let at = format!(r#"resource_metadata="{}""#, metadata.url());
    let expected = format!(r#"Bearer realm="https://orders.example", {at}"#);
    assert_eq!(challenge(refused.headers()), expected);
}

#[tokio::test]
async fn a_layer_that_announces_nothing_says_no_more_than_before() {
    let (key, clock) = (Key::new(), manual_clock());
    let bearer = BearerLayer::new(key.verifier(&clock)).require_scope("notes:read").unwrap();
    let refused = send(&bearer, None).await;
    assert_eq!(challenge(refused.headers()), r#"Bearer realm="https://orders.example""#);
}

#[tokio::test]
async fn a_token_for_another_resource_is_refused() {
    let (key, clock) = (Key::new(), manual_clock());
    let bearer = BearerLayer::new(key.verifier(&clock));
    let metadata = bearer.resource_metadata().unwrap();
    let bearer = bearer.announce(&metadata);
    // Of another resource on the same host, of the host itself under another name, and of what a token
    // that is passed through was meant for.
    for audience in [
        json!("https://orders.example/mcp"),
        json!("https://orders.example.evil.example"),
        json!("https://mail.example"),
        json!(["https://mail.example", "https://orders.example/mcp"]),
        json!(ISSUER),
        Value::Null,
    ] {
        let token =
            key.sign(&claims_with(&json!({ "aud": audience, "scope": "notes:delete" }))).await;
        let refused = send(&bearer, Some(&token)).await;
        assert_eq!(refused.status(), 401, "{audience}");
        assert!(challenge(refused.headers()).contains(r#"error="invalid_token""#));
    }
    let good = key.sign(&claims_with(&json!({ "scope": "notes:delete" }))).await;
    assert_eq!(send(&bearer, Some(&good)).await.status(), 200);
}
