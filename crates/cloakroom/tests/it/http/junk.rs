//! Whatever a hostile client sends: no panic, nothing granted, and never a failure of the server.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;
use url::form_urlencoded::Serializer;

use super::request::{Reply, With, get};
use super::server::{ORDERS, REDIRECT, SECRET, Server};

const ENDPOINTS: [&str; 3] = ["/token", "/introspect", "/revoke"];

/// Asks the one server of all cases.
fn send(request: Request<Bytes>) -> Reply {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    static SERVER: LazyLock<Server> = LazyLock::new(|| RUNTIME.block_on(Server::new()));
    let server = &*SERVER;
    RUNTIME.block_on(server.send(request))
}

/// Headers that are read, with values that are not expected.
fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let name = prop::sample::select(vec![
        "authorization",
        "accept",
        "content-type",
        "origin",
        "if-none-match",
        "content-length",
    ]);
    let value = prop_oneof![
        vec(any::<u8>(), 0..60),
        "(Basic|bearer|application/jwt;q=|\"|W/|,|;| ){0,4}[ -~]{0,20}"
            .prop_map(String::into_bytes),
    ];
    let header = (name, value).prop_filter_map("a header value", |(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
    });
    vec(header, 0..5)
}

/// Forms of known names and of values that nearly fit.
fn form() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "grant_type",
            "client_id",
            "client_secret",
            "code",
            "code_verifier",
            "redirect_uri",
            "refresh_token",
            "token",
            "token_type_hint",
            "scope",
            "resource",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec![
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "web-app",
            "spa-app",
            "orders:read",
            ORDERS,
            REDIRECT,
        ])
        .prop_map(str::to_owned),
        "cr_(at|rt|ac)_[A-Za-z0-9_-]{60,100}",
        "eyJ[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,90}",
        "\\PC{0,40}",
    ];
    vec((name, value), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bytes_without_credentials_get_nothing(
        path in prop::sample::select(&ENDPOINTS),
        headers in headers(),
        body in vec(any::<u8>(), 0..300),
        is_form in any::<bool>(),
    ) {
        let mut request = Request::post(path).body(Bytes::from(body)).unwrap();
        request.headers_mut().extend(headers);
        if is_form {
            request = request.with("content-type", "application/x-www-form-urlencoded");
        }
        let reply = send(request);
        prop_assert!((400..500).contains(&reply.status), "{reply:?}");
        prop_assert!(!reply.member("error").is_empty());
    }

    #[test]
    fn forms_of_a_client_get_what_they_ask_for_or_an_error(
        path in prop::sample::select(&ENDPOINTS),
        headers in headers(),
        form in form(),
    ) {
        let grants = form.iter().any(|(_, value)| value == "client_credentials");
        let body = Serializer::new(String::new()).extend_pairs(&form).finish();
        let mut request = Request::post(path).body(Bytes::from(body)).unwrap();
        request.headers_mut().extend(headers);
        request.headers_mut().remove("content-type");
        request.headers_mut().remove("authorization");
        let request = request.with("content-type", "application/x-www-form-urlencoded");
        let request = request.basic("web-app", SECRET);
        let reply = send(request);
        prop_assert!(reply.status < 500, "{reply:?}");
        match path {
            "/token" => prop_assert!(reply.status == 400 || grants, "{reply:?}"),
            "/introspect" => prop_assert!(nothing_learned(&reply), "{reply:?}"),
            _ => prop_assert!(matches!(reply.status, 200 | 400), "{reply:?}"),
        }
    }

    #[test]
    fn the_public_documents_shrug_headers_off(headers in headers()) {
        let mut request = get("/.well-known/jwks.json");
        request.headers_mut().extend(headers);
        let reply = send(request);
        prop_assert!(matches!(reply.status, 200 | 304), "{reply:?}");
    }
}

/// An error, or one of the ways to say "inactive".
fn nothing_learned(reply: &Reply) -> bool {
    match (reply.status, reply.header("content-type")) {
        (200, "application/json") => reply.text() == r#"{"active":false}"#,
        (200, content_type) => content_type == "application/token-introspection+jwt",
        (status, _) => status == 204 || (400..500).contains(&status),
    }
}
