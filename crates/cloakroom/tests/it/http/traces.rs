//! Every refusal says why in the trace, once, and never shows a secret. The caller may learn less.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cloakroom::core::Audience;
use cloakroom::core::handle::{HandleKeys, HandleSecret};
use cloakroom::http::serve;
use cloakroom::{Grant, Subject};
use http::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::filter::LevelFilter;

use super::request::{With as _, get, post};
use super::server::{BILLING, ORDERS, REDIRECT, SECRET, Server, VERIFIER};
use crate::engine::support::hear_everything;

/// What a thread traces.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Listens to this thread.
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        hear_everything();
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (lines, guard)
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

const WRONG: &str = "a-wrong-secret-that-no-trace-must-show";
const PUBLIC: &[(&str, &str)] = &[("client_id", "spa-app")];

const REFUSED: &str = "DEBUG cloakroom::http::respond: a request was refused error=";
const FAILED: &str = "ERROR cloakroom::http::respond: a request failed error=";
const INACTIVE: &str = "DEBUG cloakroom::introspection: a token is inactive reason=";

/// A request, what its trace line begins with, and the reason in it.
type Case = (Request<Bytes>, &'static str, &'static str);

/// Everything that a server can be asked in vain, and the secrets in it.
async fn cases(server: &Server) -> (Vec<Case>, Vec<String>) {
    let session = server.session("web-app").await;
    let elsewhere = Grant::user("web-app", "alice").unwrap();
    let elsewhere = server.session_of(elsewhere.audience(Audience::one(BILLING).unwrap())).await;
    let revoked = server.session("web-app").await;
    server.ask("web-app", "/revoke", &[("token", &revoked.refresh)]).await.ok();
    let barred = server.session("other-app").await;
    let subject = Subject::user("alice").unwrap();
    server
        .issuer()
        .revoke_subject_at_client(&subject, &"other-app".parse().unwrap())
        .await
        .unwrap();
    let jwt = server.client_token("batch-job", &[]).await;
    let lost = Server::new().await.session("web-app").await;
    let keys = HandleKeys::new(&HandleSecret::new(1, [9; 32]));
    let forged = Server::with(|issuer| issuer.handle_keys(keys)).await.session("web-app").await;
    let (code, bare) = (server.code("web-app").await, server.code_without_pkce().await);
    let spent = server.code("web-app").await;
    let right = [("redirect_uri", REDIRECT), ("code_verifier", VERIFIER)];
    let redeem = |client: &str, code: &str, more: &[(&str, &str)]| {
        let form = [&[("grant_type", "authorization_code"), ("code", code)], more].concat();
        post("/token", &form).basic(client, SECRET)
    };
    let first = server.send(redeem("web-app", &spent, &right)).await.ok();
    let refresh = |client: &str, token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        post("/token", &form).basic(client, SECRET)
    };
    let as_app = |form: &[(&str, &str)]| post("/token", form).basic("web-app", SECRET);
    let introspect =
        |caller: &str, form: &[(&str, &str)]| post("/introspect", form).basic(caller, SECRET);
    let swap = |caller: &str, token: &str, more: &[(&str, &str)]| {
        let form = [&[("token", token)], more].concat();
        introspect(caller, &form).with("accept", "application/jwt")
    };
    let credentials = ("grant_type", "client_credentials");
    let many: Vec<(String, &str)> = (0..65).map(|n| (format!("p{n}"), WRONG)).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
    let body = |body: &'static [u8]| post("/token", &[]).map(|_| Bytes::from_static(body));
    let plain = {
        let body = Bytes::from(format!("client_secret={WRONG}"));
        Request::post("/token").body(body).unwrap()
    };
    let compressed = as_app(&[credentials]).with("content-encoding", "gzip");
    let with_method = |method: Method, path: &str| {
        Request::builder().method(method).uri(path).body(Bytes::new()).unwrap()
    };
    let log = |query: &str| get(&format!("/revocations?{query}")).basic("follower", SECRET);
    let large = post("/token", &[]).map(|_| Bytes::from(vec![b'a'; 64 * 1024 + 1]));
    let preflight = Request::options("/token").body(Bytes::new()).unwrap();

    let cases: Vec<Case> = vec![
        // The request as a whole.
        (get("/nowhere"), REFUSED, "no endpoint has this path"),
        (with_method(Method::GET, "/token"), REFUSED, "the endpoint does not support this method"),
        (
            with_method(Method::PUT, "/handle-keys"),
            REFUSED,
            "the endpoint does not support this method",
        ),
        (large, REFUSED, "the body is too large"),
        (
            preflight.with("origin", "https://evil.example"),
            REFUSED,
            "scripts of this origin may not call this endpoint",
        ),
        (plain, REFUSED, "the content type must be application/x-www-form-urlencoded"),
        (compressed, REFUSED, "the body must have no content encoding"),
        (body(b"client_secret=%ff"), REFUSED, "a parameter is not UTF-8"),
        (post("/token", &many), REFUSED, "the request has too many parameters"),
        (
            as_app(&[("client_secret", WRONG), ("client_secret", WRONG)]),
            REFUSED,
            "a parameter is repeated",
        ),
        // Who calls.
        (post("/token", &[]), REFUSED, "the credentials are missing or malformed"),
        (
            post("/token", &[]).with("authorization", &format!("Bearer {WRONG}")),
            REFUSED,
            "the credentials are missing or malformed",
        ),
        (post("/token", &[]).basic("nobody", WRONG), REFUSED, "the client is unknown"),
        (post("/token", &[]).basic("web-app", WRONG), REFUSED, "the credentials are wrong"),
        (
            post("/token", &[("client_id", "web-app")]),
            REFUSED,
            "the client must send its credentials",
        ),
        (as_app(&[("client_secret", WRONG)]), REFUSED, "the client authenticates twice"),
        (as_app(&[("client_id", "other-app")]), REFUSED, "client_id differs from the header's"),
        (
            post("/introspect", &[PUBLIC, &[("token", &session.access)]].concat()),
            REFUSED,
            "the client is public",
        ),
        // /token
        (as_app(&[]), REFUSED, "grant_type is missing"),
        (as_app(&[("grant_type", "password")]), REFUSED, "unsupported grant type"),
        (as_app(&[("grant_type", "authorization_code")]), REFUSED, "code is missing"),
        (as_app(&[("grant_type", "refresh_token")]), REFUSED, "refresh_token is missing"),
        (as_app(&[credentials, ("scope", "\"")]), REFUSED, "the scope is malformed"),
        (
            as_app(&[credentials, ("scope", "admin")]),
            REFUSED,
            "the client may not have all of this scope",
        ),
        (
            as_app(&[credentials, ("resource", "orders")]),
            REFUSED,
            "a resource must be an absolute URI without a fragment",
        ),
        (
            as_app(&[credentials, ("resource", "https://a#b")]),
            REFUSED,
            "a resource must be an absolute URI without a fragment",
        ),
        (
            as_app(&[credentials, ("resource", "https://unknown.example")]),
            REFUSED,
            "the client may not have tokens for this resource",
        ),
        (
            as_app(&[credentials, ("resource", ORDERS), ("resource", BILLING)]),
            REFUSED,
            "the resources have tokens of different formats",
        ),
        (
            post("/token", &[PUBLIC, &[credentials]].concat()),
            REFUSED,
            "the client may not use client_credentials",
        ),
        (refresh("batch-job", &session.refresh), REFUSED, "the client may not refresh"),
        (redeem("batch-job", &code, &right), REFUSED, "the client may not use codes"),
        (redeem("web-app", WRONG, &right), REFUSED, "malformed or forged"),
        (redeem("other-app", &code, &right), REFUSED, "it belongs to another client"),
        (
            redeem("web-app", &code, &[("redirect_uri", "https://b"), right[1]]),
            REFUSED,
            "the redirect URI differs or is missing",
        ),
        (redeem("oidc-app", &bare, &[]), REFUSED, "the redirect URI differs or is missing"),
        (redeem("web-app", &code, &right[..1]), REFUSED, "the code verifier is missing or wrong"),
        (redeem("oidc-app", &bare, &right), REFUSED, "the code verifier is missing or wrong"),
        (
            redeem("web-app", &code, &[right[0], right[1], ("resource", BILLING)]),
            REFUSED,
            "the resource was not granted",
        ),
        (redeem("web-app", &spent, &right), REFUSED, "it was spent before"),
        (refresh("web-app", &first.member("refresh_token")), REFUSED, "revoked or expired"),
        (refresh("web-app", &lost.refresh), REFUSED, "its grant is unknown"),
        (refresh("web-app", &forged.refresh), REFUSED, "malformed or forged"),
        // /introspect
        (introspect("gateway", &[]), REFUSED, "token is missing"),
        (
            introspect("gateway", &[("token", WRONG)]),
            INACTIVE,
            "it is not an access token of this issuer",
        ),
        (
            introspect("gateway", &[("token", &forged.access)]),
            INACTIVE,
            "it is not an access token of this issuer",
        ),
        (introspect("gateway", &[("token", &lost.access)]), INACTIVE, "its grant is unknown"),
        (
            introspect("gateway", &[("token", &revoked.access)]),
            INACTIVE,
            "it has expired or was revoked",
        ),
        (
            introspect("gateway", &[("token", &barred.access)]),
            INACTIVE,
            "it has expired or was revoked",
        ),
        (
            introspect("billing-api", &[("token", &session.access)]),
            INACTIVE,
            "the caller may not see it",
        ),
        (
            introspect("gateway", &[("token", &session.refresh)]),
            INACTIVE,
            "a refresh token is shown only to its own client",
        ),
        (introspect("web-app", &[("token", &lost.refresh)]), INACTIVE, "its grant is unknown"),
        (
            introspect("web-app", &[("token", &revoked.refresh)]),
            INACTIVE,
            "it is not the current one, or has expired or been revoked",
        ),
        (
            introspect("gateway", &[("token", &session.access), ("resource", BILLING)]),
            REFUSED,
            "the token's audience does not contain all resources that the caller names",
        ),
        (
            swap("gateway", &session.access, &[("resource", ORDERS), ("resource", BILLING)]),
            REFUSED,
            "name one resource",
        ),
        (
            swap("gateway", &session.access, &[("resource", BILLING)]),
            INACTIVE,
            "its audience does not contain the resource",
        ),
        (swap("billing-api", &session.access, &[]), INACTIVE, "the caller may not see it"),
        (swap("web-app", &session.access, &[]), INACTIVE, "the caller does not serve the resource"),
        (
            swap("gateway", &elsewhere.access, &[]),
            INACTIVE,
            "its client has no tokens to swap for the resource",
        ),
        (swap("gateway", &jwt, &[]), INACTIVE, "it is a JWT, which is not swapped"),
        (swap("gateway", &revoked.access, &[]), INACTIVE, "it has expired or was revoked"),
        // /revoke
        (post("/revoke", &[]).basic("web-app", SECRET), REFUSED, "token is missing"),
        (
            post("/revoke", &[("token", &session.access)]).basic("other-app", SECRET),
            REFUSED,
            "the token was issued to another client",
        ),
        // /revocations and /handle-keys
        (
            get("/handle-keys").basic("follower", SECRET),
            REFUSED,
            "the client lacks the role for this",
        ),
        (get("/revocations").basic("edge", SECRET), REFUSED, "the client lacks the role for this"),
        (get("/revocations?client_id=spa-app"), REFUSED, "the client is public"),
        (log("after=j.nk"), REFUSED, "after is not a cursor"),
        (log("wait=1s"), REFUSED, "wait is not a number of seconds"),
        (log("limit=x"), REFUSED, "limit is not a number"),
        (log("limit=0"), REFUSED, "limit is zero"),
    ];
    let secrets = [
        WRONG,
        SECRET,
        VERIFIER,
        &code,
        &bare,
        &spent,
        &session.access,
        &session.refresh,
        &elsewhere.access,
        &revoked.access,
        &revoked.refresh,
        &barred.access,
        &lost.access,
        &lost.refresh,
        &forged.access,
        &forged.refresh,
        &jwt,
        &first.member("access_token"),
        &first.member("refresh_token"),
    ];
    (cases, secrets.map(str::to_owned).into())
}

/// The lines of a trace that say why, and no secret in any line.
#[track_caller]
fn assert_told(trace: &str, secrets: &[String], level: &str, reason: &str) {
    let kinds = ["a request was refused", "a request failed", "a token is inactive"];
    let told: Vec<&str> = trace
        .lines()
        .map(str::trim_start)
        .filter(|line| kinds.iter().any(|kind| line.contains(kind)))
        .collect();
    let [line] = told[..] else { panic!("{reason}: not one line, but {told:?} in {trace}") };
    assert!(line.starts_with(level), "{reason}: {line}");
    assert!(line.contains(reason), "{reason}: {line}");
    for secret in secrets {
        // What follows the prefix of a handle is enough of it.
        let body = secret.get(6..).filter(|_| secret.starts_with("cr_")).unwrap_or(secret);
        assert!(!trace.contains(body), "{reason}: {secret} in {trace}");
    }
}

#[tokio::test]
async fn every_refusal_says_why() {
    let (lines, _guard) = Lines::listen();
    let server = Server::new().await.mounted(|endpoints| {
        endpoints.allow_origin("https://app.example").unwrap().max_followers(0)
    });
    let (cases, secrets) = cases(&server).await;
    for (request, level, reason) in cases {
        lines.take();
        let reply = server.send(request).await;
        assert!(reply.status >= 400 || !reply.text().contains("true"), "{reason}: {reply:?}");
        assert_told(&lines.take(), &secrets, level, reason);
    }
    let head = server.head().await;
    let follow = get(&format!("/revocations?wait=5&after={head}")).basic("follower", SECRET);
    lines.take();
    server.send(follow).await.refused(503, "temporarily_unavailable");
    assert_told(&lines.take(), &secrets, FAILED, "too many followers of the revocation log");
    // An outage is told with its cause.
    let session = server.session("web-app").await;
    server.store.tokens_down(true);
    lines.take();
    server.introspect("gateway", &session.access).await.refused(503, "temporarily_unavailable");
    assert_told(&lines.take(), &[session.access], FAILED, "connection refused");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_is_told_as_well() {
    let (lines, _guard) = Lines::listen();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoints = Server::new().await.endpoints.clone();
    tokio::spawn(async move { serve(listener, endpoints).await });
    let head = "POST /token HTTP/1.1\r\nhost: as\r\n";
    for (rest, status, reason) in [
        (
            format!("content-length: 70000\r\n\r\nclient_secret={WRONG}"),
            413,
            "the body is too large",
        ),
        (
            format!("transfer-encoding: chunked\r\n\r\n20000\r\n{}", "x".repeat(0x10001)),
            413,
            "the body is too large",
        ),
        (
            format!("transfer-encoding: chunked\r\n\r\nzz\r\n{WRONG}"),
            400,
            "the body cannot be read",
        ),
        (
            format!("content-length: 500\r\n\r\nclient_secret={WRONG}"),
            408,
            "the body took too long",
        ),
    ] {
        lines.take();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let end = Duration::from_secs(60);
        let _ = tokio::time::timeout(end, stream.read_to_end(&mut text)).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {text}");
        assert_told(&lines.take(), &[WRONG.into()], REFUSED, reason);
    }
}
