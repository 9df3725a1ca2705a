//! Peers over real HTTP, and tokens to show them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use cloakroom_core::time::{Clock, ManualClock, UnixTime};
use cloakroom_jwt::{ACCESS_TOKEN_TYP, Algorithm, JwkSet, SigningKey, sign_jwt};
use cloakroom_resource::{TokenError, TokenSecret, Verifier};
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const AUDIENCE: &str = "https://orders.example";
pub(crate) const START: UnixTime = UnixTime::from_secs(1_700_000_000);

pub(crate) fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START))
}

/// A token as a verifier takes it.
pub(crate) fn secret(token: impl AsRef<str>) -> TokenSecret {
    TokenSecret::new(token.as_ref())
}

/// A key, and the tokens it signs.
pub(crate) struct Key(pub(crate) SigningKey);

impl Key {
    pub(crate) fn new() -> Self {
        Self(SigningKey::generate(Algorithm::Es256).unwrap())
    }

    pub(crate) async fn sign(&self, claims: &Value) -> String {
        let jwt = sign_jwt(&self.0, ACCESS_TOKEN_TYP, claims).await.unwrap();
        jwt.expose().to_owned()
    }

    /// A good token that lives for a week, whatever the test does to the clock.
    pub(crate) async fn token(&self) -> String {
        self.sign(&claims()).await
    }

    pub(crate) fn verifier(&self, clock: &Arc<ManualClock>) -> Verifier {
        let keys = JwkSet::new(vec![self.0.public_jwk().clone()]);
        Verifier::with_keys(ISSUER, AUDIENCE, &keys).clock(Arc::clone(clock) as Arc<dyn Clock>)
    }
}

pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "web-app", "jti": "1",
        "iat": START.as_secs(), "exp": START.as_secs() + 7 * 24 * 3600,
        "scope": "orders:read profile", "tenant": "acme",
    })
}

/// `claims()` with some members replaced; `null` takes one out.
pub(crate) fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub(crate) fn key_set(keys: &[&Key]) -> String {
    let set = JwkSet::new(keys.iter().map(|key| key.0.public_jwk().clone()).collect());
    serde_json::to_string(&set).unwrap()
}

/// What a server received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

type Answer = dyn Fn(&Received) -> Response + Send + Sync;

/// A server that answers as the test says, and remembers what it was asked.
pub(crate) struct Peer {
    pub(crate) url: String,
    answer: Arc<Mutex<Arc<Answer>>>,
    received: Arc<Mutex<Vec<Received>>>,
    count: watch::Receiver<usize>,
    /// Requests that may be answered.
    gate: Arc<Semaphore>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Peer {
    pub(crate) async fn start(
        answer: impl Fn(&Received) -> Response + Send + Sync + 'static,
    ) -> Self {
        let answer: Arc<Mutex<Arc<Answer>>> = Arc::new(Mutex::new(Arc::new(answer)));
        let received = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let gate = Arc::new(Semaphore::new(1_000_000));
        let app = {
            let (answer, received) = (Arc::clone(&answer), Arc::clone(&received));
            let gate = Arc::clone(&gate);
            let counter = Arc::new(counter);
            Router::new().fallback(move |request: Request| {
                let (answer, received) = (Arc::clone(&answer), Arc::clone(&received));
                let (gate, counter) = (Arc::clone(&gate), Arc::clone(&counter));
                async move {
                    let (parts, body) = request.into_parts();
                    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                    let request = Received {
                        method: parts.method,
                        path: parts.uri.path().to_owned(),
                        headers: parts.headers,
                        body,
                    };
                    received.lock().unwrap().push(request.clone());
                    counter.send_modify(|count| *count += 1);
                    gate.acquire().await.unwrap().forget();
                    let answer = Arc::clone(&answer.lock().unwrap());
                    answer(&request)
                }
            })
        };
        let (url, server) = serve(app).await;
        Self { url, answer, received, count, gate, server }
    }

    /// A server of one JWK Set.
    pub(crate) async fn jwks(body: String) -> Self {
        Self::start(move |_| respond(200, "application/jwk-set+json", &body)).await
    }

    pub(crate) fn answer_with(
        &self,
        answer: impl Fn(&Received) -> Response + Send + Sync + 'static,
    ) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    pub(crate) fn publish(&self, body: String) {
        self.answer_with(move |_| respond(200, "application/jwk-set+json", &body));
    }

    pub(crate) fn fail(&self) {
        self.answer_with(|_| respond(500, "text/plain", "boom"));
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn last(&self) -> Received {
        self.received.lock().unwrap().last().unwrap().clone()
    }

    /// Waits for a request that something in the background sends.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut counts = self.count.clone();
        let arrived = counts.wait_for(|arrived| *arrived >= count);
        tokio::time::timeout(Duration::from_secs(20), arrived)
            .await
            .expect("nobody asked")
            .unwrap();
    }

    /// Requests arrive, but wait for `open`.
    pub(crate) fn close(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(crate) fn open(&self) {
        self.gate.add_permits(1_000_000);
    }
}

pub(crate) async fn serve(app: Router) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, server)
}

pub(crate) fn respond(status: u16, content_type: &str, body: &str) -> Response {
    let mut response = Response::builder().status(status);
    if !content_type.is_empty() {
        response = response.header("content-type", content_type);
    }
    response.body(Body::from(body.to_owned())).unwrap()
}

pub(crate) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

pub(crate) fn json(body: &Value) -> Response {
    respond(200, "application/json", &body.to_string())
}

pub(crate) fn is_outage<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Unavailable(_)))
}

pub(crate) fn is_invalid<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Invalid(_)))
}

/// An error and all its sources, as a log would show them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
