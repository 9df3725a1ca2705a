//! The reason of every refusal reaches the trace, and no secret does.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::Once;
use std::time::Duration;

use cloakroom_resource::{
    BearerLayer, ClientCredentials, IntrospectionClient, IntrospectionLimits, PhantomLayer,
    ReqwestClient, Verifier,
};
use http::{Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt as _, service_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::cache_support::{Authority, Guard, clock as shared, settle};
use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, chain, claims_with, key_set, manual_clock, secret,
};

const SECRET: &str = "s3cret-of-the-api";
const HANDLE: &str = "cr_at_do-not-print";

thread_local! {
    /// What this test's thread has traced.
    static TRACES: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Traces;

impl Subscriber for Traces {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cloakroom")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        TRACES.with_borrow_mut(|traces| {
            traces.push_str(&line.0);
            traces.push('\n');
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        write!(self.0, " {field}={}", chain(value)).unwrap();
    }
}

/// What was traced since the last call.
fn traced() -> String {
    static ONCE: Once = Once::new();
    // For all threads, each of which has traces of its own: subscribers of single threads, one after
    // the other, get in each other's way.
    ONCE.call_once(|| tracing::subscriber::set_global_default(Traces).unwrap());
    TRACES.take()
}

#[track_caller]
fn assert_traced(expected: &str, what: &str) {
    let traces = traced();
    assert!(traces.contains(expected), "{what}: {expected} is missing in\n{traces}");
    for secret in [HANDLE, SECRET, "do-not-print", "Basic ", "eyJ"] {
        assert!(!traces.contains(secret), "{what}: {secret} stands in\n{traces}");
    }
}

/// Answers every request with these bytes, and closes.
async fn server(answer: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && !head.starts_with(&[0x16]) {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            let _ = stream.read_exact(&mut body).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            // Until the client has seen it all: what it has not read would be lost with a reset.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    port
}

fn response(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n{body}")
}

const JSON: &str = "content-type: application/json\r\n";

/// Three readers of the authorization server's answers, which cannot use this one.
async fn read_by_all(scheme: &str, answer: &str, expected: [&str; 3], what: &str) {
    let port = server(answer.to_owned()).await;
    let url = format!("{scheme}://127.0.0.1:{port}");
    let [keys, metadata, introspection] = expected;
    traced();

    let client = ReqwestClient::new().unwrap();
    let verifier = Verifier::fetching(ISSUER, AUDIENCE, &format!("{url}/keys"), client).unwrap();
    let token = Key::new().token().await;
    assert_eq!(bearer(&BearerLayer::new(verifier), &[&format!("Bearer {token}")]).await, 503);
    assert_traced(keys, &format!("{what}, as a JWK Set"));

    // The error is the app's to trace, with its sources.
    let error = Verifier::discover(&url, AUDIENCE).await.unwrap_err();
    assert!(chain(&error).contains(metadata), "{what}, as metadata: {}", chain(&error));

    let credentials = ClientCredentials::new("api", SECRET);
    let endpoint = format!("{url}/introspect");
    let client =
        IntrospectionClient::new(&endpoint, credentials, ReqwestClient::new().unwrap()).unwrap();
    traced();
    let layer = BearerLayer::introspecting(client.clone(), ISSUER, AUDIENCE);
    assert_eq!(bearer(&layer, &[&format!("Bearer {HANDLE}")]).await, 503);
    assert_traced(introspection, &format!("{what}, as an introspection"));
    let layer = PhantomLayer::new(client, AUDIENCE);
    assert_eq!(phantom(&layer, &[&format!("Bearer {HANDLE}")]).await, 503);
    assert_traced("token could not be checked", what);
}

async fn bearer(layer: &BearerLayer, authorization: &[&str]) -> u16 {
    let service = service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(String::new())) });
    status(layer.layer(service).oneshot(request(authorization)).await)
}

async fn phantom(layer: &PhantomLayer, authorization: &[&str]) -> u16 {
    let service = service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(String::new())) });
    status(layer.layer(service).oneshot(request(authorization)).await)
}

fn status(response: Result<Response<String>, ()>) -> u16 {
    response.unwrap().status().as_u16()
}

fn request(authorization: &[&str]) -> Request<()> {
    let request = authorization
        .iter()
        .fold(Request::get("/"), |request, value| request.header("authorization", *value));
    request.body(()).unwrap()
}

#[tokio::test]
async fn why_an_answer_cannot_be_used_is_traced() {
    let keys = |count: usize| {
        let all: Vec<_> = (0..count).map(|kid| json!({ "kty": "x", "kid": kid })).collect();
        json!({ "keys": all }).to_string()
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (what, answer, expected) in [
        (
            "an over-long header",
            response("200 OK", &format!("x: {}\r\n", "y".repeat(600_000)), "{}"),
            ["message head is too large"; 3],
        ),
        (
            "many headers",
            response("200 OK", &"x: y\r\n".repeat(150), "{}"),
            ["message head is too large"; 3],
        ),
        (
            "a compressed body",
            response("200 OK", &format!("{JSON}content-encoding: gzip\r\n"), "\x1f"),
            ["its content coding is gzip"; 3],
        ),
        (
            "a redirect",
            response("302 Found", "location: file:///etc/passwd\r\n", ""),
            ["answered 302 Found"; 3],
        ),
        ("a failure", response("503 Service Unavailable", JSON, ""), ["answered 503"; 3]),
        (
            "a page",
            response("200 OK", "content-type: text/html\r\n", "<h1>Sign in</h1>"),
            [
                "it is not a JWK Set: expected value at line 1 column 1",
                "its content type is text/html",
                "its content type is text/html",
            ],
        ),
        (
            "no content type",
            response("200 OK", "", "nothing"),
            ["it is not a JWK Set", "it has no content type", "it has no content type"],
        ),
        (
            "a strange content type",
            response("200 OK", "content-type: a\tb\u{fc}\r\n", "nothing"),
            [
                "it is not a JWK Set",
                "its content type is a\\tb\\u{c3}\\u{bc}",
                "its content type is a\\tb\\u{c3}\\u{bc}",
            ],
        ),
        ("no JSON", response("200 OK", JSON, "<h1>"), ["expected value at line 1 column 1"; 3]),
        ("nothing", response("200 OK", JSON, ""), ["EOF while parsing"; 3]),
        (
            "an array",
            response("200 OK", JSON, r#"["https://as.example"]"#),
            ["invalid type: sequence, expected an object"; 3],
        ),
        (
            "a doubled member",
            response("200 OK", JSON, r#"{"active":true,"active":false,"keys":[],"keys":[]}"#),
            ["`active` occurs twice"; 3],
        ),
        (
            "a value of another type",
            response(
                "200 OK",
                JSON,
                &format!(r#"{{"active":true,"exp":"{HANDLE}","keys":"{HANDLE}","issuer":1}}"#),
            ),
            [
                "invalid type: string …, expected a sequence",
                "invalid type: integer `1`, expected a string",
                "`exp`: invalid type: string …, expected a time in seconds",
            ],
        ),
        (
            "a missing member",
            response("200 OK", JSON, "{}"),
            ["missing field `keys`", "missing field `issuer`", "missing field `active`"],
        ),
        (
            "too many keys",
            response("200 OK", JSON, &keys(121)),
            [
                "has 121 keys, but may have at most 100",
                "missing field `issuer`",
                "missing field `active`",
            ],
        ),
        (
            "no usable key",
            response("200 OK", JSON, &keys(3)),
            ["has no usable key", "missing field `issuer`", "missing field `active`"],
        ),
        (
            "deep nesting",
            response("200 OK", JSON, &format!(r#"{{"x":{deep}}}"#)),
            ["nested too deeply", "nested too deeply", "recursion limit exceeded"],
        ),
        (
            "too large a body",
            response("200 OK", JSON, &" ".repeat(256 * 1024 + 1)),
            ["has more than 262144 bytes"; 3],
        ),
        (
            "half a body",
            format!("HTTP/1.1 200 OK\r\n{JSON}content-length: 100\r\n\r\n{{"),
            ["end of file before message length reached"; 3],
        ),
        ("no HTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(), ["invalid HTTP version parsed"; 3]),
        ("no answer", String::new(), ["connection closed before message completed"; 3]),
    ] {
        read_by_all("http", &answer, expected, what).await;
    }
    // What answers there does not speak TLS.
    read_by_all("https", "HTTP/1.1 400 Bad Request\r\n\r\n", ["InvalidContentType"; 3], "no TLS")
        .await;
}

#[tokio::test]
async fn why_a_request_is_refused_is_traced() {
    let (key, clock) = (Key::new(), manual_clock());
    let layer = BearerLayer::new(key.verifier(&clock));
    let good = key.token().await;
    let signed = async |changes| format!("Bearer {}", key.sign(&claims_with(&changes)).await);
    let (header, rest) = good.split_once('.').unwrap();
    traced();
    for (authorization, status, expected) in [
        (&[][..], 401, "it has no token"),
        (&["Basic YTpi"], 401, "it has no token"),
        (&[&format!("Bearer {good}"), "Basic YTpi"], 400, "several `Authorization` fields"),
        (&["Bearer"], 400, "not have the form of a token"),
        (&["Bearer do-not-print do-not-print"], 400, "not have the form of a token"),
        (&[&format!("Bearer {}", "a".repeat(8193))], 401, "longer than any that is accepted"),
        (&[&format!("Bearer {HANDLE}")], 401, "not a JWT, and no introspection is configured"),
        (&[&format!("Bearer {header}.{header}.")], 401, "three segments"),
        (&[&format!("Bearer {header}.{header}.{header}")], 401, "wrong signature"),
        (&[&format!("Bearer x{header}.{rest}")], 401, "the header is n"),
        (&[&format!("Bearer {}", Key::new().token().await)], 401, "unknown key"),
        (&[&*signed(json!({ "exp": 2 })).await], 401, "expired"),
        (&[&*signed(json!({ "nbf": 3_000_000_000_u64 })).await], 401, "not yet valid"),
        (&[&*signed(json!({ "iss": "x" })).await], 401, "wrong issuer"),
        (&[&*signed(json!({ "aud": "x" })).await], 401, "wrong audience"),
        (&[&*signed(json!({ "jti": null })).await], 401, "`jti` is missing"),
        (&[&*signed(json!({ "exp": "soon" })).await], 401, "`exp`: invalid type"),
        (&[&*signed(json!({ "token_use": "id" })).await], 401, "another kind of token"),
        (&[&format!("DPoP {good}")], 401, "sent as DPoP"),
    ] {
        assert_eq!(bearer(&layer, authorization).await, status, "{expected}");
        assert_traced(expected, "a bearer token");
    }
    let scoped = layer.clone().require_scope("orders:write").unwrap();
    assert_eq!(bearer(&scoped, &[&format!("Bearer {good}")]).await, 403);
    assert_traced("lacks a scope", "a scope");

    // Several issuers: the token is read before its issuer is known.
    let other = Verifier::with_keys("https://b.example", AUDIENCE, &Default::default());
    let both = BearerLayer::new(key.verifier(&clock).or(other));
    for (token, expected) in [
        (format!("{header}.{header}.AAA"), "another authorization server"),
        (format!("{header}.AAAA.AAAA"), "it is not a JWT"),
        (key.sign(&claims_with(&json!({ "iss": "x" }))).await, "another authorization server"),
    ] {
        assert_eq!(bearer(&both, &[&format!("Bearer {token}")]).await, 401, "{expected}");
        assert_traced(expected, "a token of several issuers");
    }

    let client = IntrospectionClient::new(
        "https://as.example/introspect",
        ClientCredentials::new("api", SECRET),
        ReqwestClient::new().unwrap(),
    );
    let gateway = PhantomLayer::new(client.unwrap(), AUDIENCE).cookie("token");
    for (fields, expected) in [
        (&[("connection", "authorization")][..], "its `Connection` names `Authorization`"),
        (&[("cookie", "token=a; token=b")], "the token's cookie twice"),
        (&[("cookie", "token=a"), ("authorization", "Bearer b")], "and in the cookie"),
        (&[("cookie", "token=do-not-print=x")], "not have the form of a token"),
    ] {
        let service =
            service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(String::new())) });
        let request = fields
            .iter()
            .fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
        let answer = gateway.layer(service).oneshot(request.body(()).unwrap()).await;
        assert_eq!(status(answer), 400, "{expected}");
        assert_traced(expected, "a handle");
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_reported_twice_a_minute() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let verifier = crate::jwks::verifier(&peer, &clock);
    traced();
    for (passed, reports) in [(0, 1), (29_999, 0), (1, 1)] {
        clock.advance(Duration::from_millis(passed));
        for _ in 0..10 {
            let token = Key::new().token().await;
            verifier.verify(&secret(&token)).await.unwrap_err();
        }
        assert_eq!(traced().matches("many tokens name keys").count(), reports, "{passed}");
    }
}

#[tokio::test]
async fn a_flood_that_is_refused_is_traced_once_a_second() {
    let (authority, time) = (Authority::new(), manual_clock());
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(shared(&time))
        .limits(IntrospectionLimits::default().at_once(1).waiting(1));
    let guard = Guard::Phantom(layer);
    authority.close();
    let sent = guard.begin("sent");
    authority.wait_for(1).await;
    let waiting = guard.begin("waits");
    settle().await;
    traced();
    for (milliseconds, lines) in [(0, 1), (0, 0), (999, 0), (1, 1), (0, 0)] {
        time.advance(Duration::from_millis(milliseconds));
        assert_eq!(guard.ask(HANDLE).await, 503);
        let traces = traced();
        let complaints = traces.matches("WARN message=too many introspection requests").count();
        assert_eq!(complaints, lines, "{traces}");
        assert!(!traces.contains(HANDLE), "{traces}");
    }
    authority.open();
    assert_eq!((sent.await.unwrap(), waiting.await.unwrap()), (200, 200));
}
