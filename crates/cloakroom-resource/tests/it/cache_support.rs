//! An authorization server that counts, a log that is written by hand, and the requests of both
//! layers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, RevocationBatch, RevocationPage,
    Target,
};
use cloakroom_core::time::{Clock, ManualClock, UnixTime};
use cloakroom_core::{Introspection, TokenSecret};
use cloakroom_resource::{
    BearerLayer, Introspector, PhantomJwt, PhantomLayer, RevocationLog, RevocationReplica,
    UnavailableError, VerifiedToken,
};
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{AUDIENCE, ISSUER, START};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

type Answer = dyn Fn(&str) -> Result<Option<Value>, UnavailableError> + Send + Sync;

/// An authorization server in the same process. It makes up its answer when it is asked, and gives
/// it when the gate lets it: what happens in between crosses it.
#[derive(Clone)]
pub(crate) struct Authority(Arc<Inner>);

struct Inner {
    answer: Mutex<Arc<Answer>>,
    asked: Mutex<HashMap<String, usize>>,
    count: watch::Sender<usize>,
    gate: Semaphore,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// Calls every token active.
    pub(crate) fn new() -> Self {
        Self::answering(|token| Ok(Some(facts(token))))
    }

    pub(crate) fn answering(
        answer: impl Fn(&str) -> Result<Option<Value>, UnavailableError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            answer: Mutex::new(Arc::new(answer)),
            asked: Mutex::default(),
            count: watch::channel(0).0,
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
        }))
    }

    pub(crate) fn answer_with(
        &self,
        answer: impl Fn(&str) -> Result<Option<Value>, UnavailableError> + Send + Sync + 'static,
    ) {
        *self.0.answer.lock().unwrap() = Arc::new(answer);
    }

    pub(crate) fn revoke_all(&self) {
        self.answer_with(|_| Ok(None));
    }

    /// Questions so far.
    pub(crate) fn count(&self) -> usize {
        *self.0.count.borrow()
    }

    /// The most questions about any one token.
    pub(crate) fn most(&self) -> usize {
        self.0.asked.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    /// Waits until so many questions have arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut counts = self.0.count.subscribe();
        let arrived = counts.wait_for(|arrived| *arrived >= count);
        tokio::time::timeout(secs(30), arrived).await.expect("nobody asked").unwrap();
    }

    /// Questions arrive, and wait for `open`.
    pub(crate) fn close(&self) {
        self.0.gate.forget_permits(usize::MAX);
    }

    pub(crate) fn open(&self) {
        self.0.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn ask(&self, token: &TokenSecret) -> Result<Option<Value>, UnavailableError> {
        let answer = Arc::clone(&self.0.answer.lock().unwrap());
        let answer = answer(token.expose());
        *self.0.asked.lock().unwrap().entry(token.expose().to_owned()).or_default() += 1;
        self.0.count.send_modify(|count| *count += 1);
        self.0.gate.acquire().await.unwrap().forget();
        answer
    }
}

#[async_trait]
impl Introspector for Authority {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        let Some(mut answer) = self.ask(token).await? else { return Ok(Introspection::Inactive) };
        answer["active"] = json!(true);
        Ok(serde_json::from_value(answer).unwrap())
    }

    /// A JWT with the answer as its claims, signed by the key that it names `kid`.
    async fn swap(
        &self,
        token: &TokenSecret,
        _: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        let Some(mut claims) = self.ask(token).await? else { return Ok(None) };
        let kid = claims.as_object_mut().unwrap().remove("kid").unwrap_or(json!("key"));
        if claims.get("handle_hash").is_none() {
            claims["handle_hash"] = json!(URL_SAFE_NO_PAD.encode([7; 32]));
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }));
        PhantomJwt::parse(TokenSecret::new(format!("{header}.{}.c2ln", encode(&claims)))).map(Some)
    }
}

/// All that a good token says; it lives for an hour.
pub(crate) fn facts(token: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "web-app",
        "jti": token.chars().take(22).collect::<String>(),
        "iat": START.as_secs(), "exp": START.as_secs() + 3600, "scope": "orders:read",
        "grant_id": GRANT, "grant_epoch": 1000,
    })
}

/// Sixteen bytes of zero.
pub(crate) const GRANT: &str = "AAAAAAAAAAAAAAAAAAAAAA";

pub(crate) fn with(mut facts: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            facts.as_object_mut().unwrap().remove(name);
        } else {
            facts[name] = value.clone();
        }
    }
    facts
}

/// A revocation log that the test writes.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Pages>);

#[derive(Debug)]
struct Pages {
    entries: watch::Sender<Vec<LogEntry>>,
    /// Up to where the follower has taken over what it read.
    taken: watch::Sender<usize>,
    skew: Duration,
}

impl Log {
    /// A log of heartbeats each second; clocks differ by no more than `skew`.
    pub(crate) fn new(skew: Duration) -> Self {
        let (entries, taken) = (watch::channel(Vec::new()).0, watch::channel(0).0);
        Self(Arc::new(Pages { entries, taken, skew }))
    }

    /// A replica that has seen a heartbeat at this very moment.
    pub(crate) async fn replica(&self, clock: &Arc<ManualClock>) -> RevocationReplica {
        self.write(LogEvent::Heartbeat {}, clock.now());
        let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
        RevocationReplica::builder(self.clone()).clock(clock).follow().await.unwrap()
    }

    /// Writes a heartbeat, and waits until it is seen.
    pub(crate) async fn beat(&self, clock: &ManualClock) {
        // The question that brings it was sent before it; the next one is sent at its own time.
        self.write(LogEvent::Heartbeat {}, clock.now());
        self.taken().await;
        self.write(LogEvent::Heartbeat {}, clock.now());
        self.taken().await;
    }

    /// Writes a heartbeat.
    pub(crate) fn beat_without_waiting(&self, clock: &ManualClock) {
        self.write(LogEvent::Heartbeat {}, clock.now());
    }

    /// Writes a revocation, and waits until it is known.
    pub(crate) async fn revoke(&self, target: Target, bound: Option<u64>) {
        self.write_revocation(target, bound, None);
        self.taken().await;
    }

    pub(crate) fn write_revocation(
        &self,
        target: Target,
        bound: Option<u64>,
        client: Option<&str>,
    ) {
        let bound = bound.map(Epoch::new);
        let client = client.map(|client| client.parse().unwrap());
        self.write(LogEvent::Revoked { target, bound, client, grant: None }, START);
    }

    /// Writes a revocation whose rule ends at `until`, and waits until it is known.
    pub(crate) async fn revoke_until(&self, target: Target, until: UnixTime) {
        let event = LogEvent::Revoked { target, bound: None, client: None, grant: None };
        self.write_until(event, START, until);
        self.taken().await;
    }

    fn write(&self, event: LogEvent, at: UnixTime) {
        self.write_until(event, at, START + Duration::from_secs(1_000_000));
    }

    fn write_until(&self, event: LogEvent, at: UnixTime, until: UnixTime) {
        self.0.entries.send_modify(|entries| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(entries.len() as u64).to_be_bytes());
            entries.push(LogEntry { id: EntryId::from_bytes(id), event, at, until });
        });
    }

    pub(crate) async fn taken(&self) {
        let length = self.0.entries.borrow().len();
        let mut taken = self.0.taken.subscribe();
        let all = taken.wait_for(|taken| *taken >= length);
        tokio::time::timeout(secs(30), all).await.expect("nobody follows").unwrap();
    }
}

#[async_trait]
impl RevocationLog for Log {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let from =
            CursorPlace::of(&after).map_or(0, |place| usize::try_from(place.position).unwrap());
        self.0.taken.send_replace(from);
        let mut entries = self.0.entries.subscribe();
        let grown = entries.wait_for(|entries| entries.len() > from);
        let _ = tokio::time::timeout(wait, grown).await;
        let entries = self.0.entries.borrow()[from..].to_vec();
        let next = entries.last().map_or(after, |last| {
            let position = (from + entries.len()) as u64;
            let (incarnation, entry) = ([1; 16], last.id);
            Cursor::after(&CursorPlace { incarnation, position, entry, revocation: None })
        });
        let batch =
            RevocationBatch::Entries { entries, next, more: false, newest_bound: Epoch::default() };
        Ok(RevocationPage { batch, heartbeat: secs(1), clock_skew: self.0.skew })
    }
}

/// Either layer.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    Bearer(BearerLayer),
    Phantom(PhantomLayer),
}

impl Guard {
    /// The status of a request with this token.
    pub(crate) async fn ask(&self, token: &str) -> u16 {
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let request = request.body(()).unwrap();
        let service = service_fn(|request: Request<()>| async move {
            let admitted = request.extensions().get::<VerifiedToken>().is_some();
            let swapped = request.headers()["authorization"].to_str().unwrap().contains('.');
            assert!(admitted || swapped);
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let response = async {
            match self {
                Self::Bearer(layer) => layer.layer(service).oneshot(request).await.unwrap(),
                Self::Phantom(layer) => layer.layer(service).oneshot(request).await.unwrap(),
            }
        };
        let response = tokio::time::timeout(secs(60), response).await.expect("no answer");
        let status = response.status().as_u16();
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        status
    }

    /// Begins a request in a task of its own, and waits until it waits for an answer.
    pub(crate) fn begin(&self, token: &str) -> tokio::task::JoinHandle<u16> {
        let (guard, token) = (self.clone(), token.to_owned());
        tokio::spawn(async move { guard.ask(&token).await })
    }
}

pub(crate) fn clock(clock: &Arc<ManualClock>) -> Arc<dyn Clock> {
    Arc::clone(clock) as _
}

/// Lets everything else run until it waits. For tests on one thread.
pub(crate) async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}
