//! The authorization server: as one process, which may end and start again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom::core::Audience;
use cloakroom::core::handle::{HandleKeys, HandleSecret};
use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::time::Clock;
use cloakroom::http::Endpoints;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::{Client, Format, GrantType, Issuer, Lifetimes, Role, Serves};
use hyper::header::AUTHORIZATION;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::fixture::Fixture;

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const ORDERS: &str = "https://orders.example";
pub(crate) const SECRET: &str = "a-secret-of-the-tests-0123456789";
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);
/// There is one clock, and it counts milliseconds.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_millis(50);

/// Apps whose tokens are handles that gateways swap, and apps that get JWTs; by their numbers, even
/// and odd.
pub(crate) const APPS: u32 = 40;

pub(crate) fn app(number: u32) -> String {
    format!("app-{number}")
}

/// Gateways, the API, and whoever revokes his own tokens in a loop.
pub(crate) const EDGES: [&str; 4] = ["every-request", "introspects", "refuses", "spare"];
pub(crate) const API: &str = "api";
pub(crate) const LOOPER: &str = "looper";

fn clients() -> Vec<Client> {
    let apps = (0..APPS).map(|number| {
        let format = if number % 2 == 0 { Format::Phantom } else { Format::Jwt };
        Client::confidential(app(number), SECRET)
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri("https://app.example/callback")
            .scope("orders:read")
            .audience(ORDERS, format)
    });
    let edge = |name, serves| {
        let client = Client::resource_server(name, SECRET, serves);
        client.role(Role::RevocationLog).role(Role::HandleKeys)
    };
    let looper = Client::confidential(LOOPER, SECRET)
        .grant_types([GrantType::ClientCredentials])
        .scope("orders:read")
        .audience(ORDERS, Format::Phantom);
    let edges = EDGES.map(|name| edge(name, Serves::Everything));
    let api = edge(API, Serves::Only(Audience::one(ORDERS).unwrap()));
    let clients = apps.chain(edges).chain([api, looper]);
    clients.map(|client| client.build().unwrap()).collect()
}

/// Under what introspections are counted that were looked at.
pub(crate) const LOOKED_AT: &str = "looked at";

/// What was asked of the server, through all its lives.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// By path and client.
    counts: Mutex<HashMap<(String, String), usize>>,
    total: watch::Sender<usize>,
    /// Which introspections wait.
    holds: watch::Sender<Hold>,
}

/// Where introspections are held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Hold {
    #[default]
    None,
    /// They are counted, and not yet looked at.
    Questions,
    /// They are looked at, and not yet answered.
    Answers,
}

impl Asked {
    pub(crate) fn count(&self, path: &str, client: &str) -> usize {
        let which = (path.to_owned(), client.to_owned());
        self.counts.lock().unwrap().get(&which).copied().unwrap_or_default()
    }

    /// Waits until this client has asked this so often.
    pub(crate) async fn until(&self, path: &str, client: &str, count: usize) {
        let mut total = self.total.subscribe();
        while self.count(path, client) < count {
            total.changed().await.unwrap();
        }
    }

    /// From now on.
    pub(crate) fn hold(&self, hold: Hold) {
        self.holds.send_replace(hold);
    }

    async fn let_go(&self, of: Hold) {
        drop(self.holds.subscribe().wait_for(|held| *held != of).await);
    }
}

async fn ask(State(asked): State<Arc<Asked>>, request: Request, next: Next) -> Response {
    let basic = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let pair = basic.and_then(|value| STANDARD.decode(value.strip_prefix("Basic ")?).ok());
    let pair = String::from_utf8(pair.unwrap_or_default()).unwrap();
    let client = pair.split(':').next().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let is_question = path == "/introspect";
    let count = |path| {
        *asked.counts.lock().unwrap().entry((path, client.clone())).or_default() += 1;
        asked.total.send_modify(|total| *total += 1);
    };
    count(path);
    if !is_question {
        return next.run(request).await;
    }
    asked.let_go(Hold::Questions).await;
    let response = next.run(request).await;
    count(LOOKED_AT.to_owned());
    asked.let_go(Hold::Answers).await;
    response
}

/// The server.
#[derive(Debug)]
pub(crate) struct Authority {
    fixture: Arc<dyn Fixture>,
    clock: Arc<dyn Clock>,
    process: Mutex<Option<Process>>,
    /// Where it listens while it lives.
    address: watch::Sender<Option<SocketAddr>>,
    pub(crate) asked: Arc<Asked>,
}

/// A runtime of its own, which takes everything with it: tasks, connections, requests half done.
#[derive(Debug)]
struct Process {
    runtime: Option<Runtime>,
    issuer: Issuer,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Authority {
    pub(crate) async fn start(fixture: Arc<dyn Fixture>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let authority = Arc::new(Self {
            fixture,
            clock,
            process: Mutex::default(),
            address: watch::Sender::new(None),
            asked: Arc::default(),
        });
        authority.restart().await;
        authority
    }

    /// Ends it, wherever it was.
    pub(crate) fn kill(&self) {
        self.address.send_replace(None);
        self.process.lock().unwrap().take();
    }

    /// Starts it over what the store holds, on another port.
    pub(crate) async fn restart(&self) {
        self.kill();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (fixture, clock) = (Arc::clone(&self.fixture), Arc::clone(&self.clock));
        let asked = Arc::clone(&self.asked);
        let started = runtime.spawn(async move {
            let issuer = issuer(&*fixture, clock).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let endpoints = Endpoints::new(issuer.clone()).router();
            let router = endpoints.layer(from_fn_with_state(asked, ask));
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            let maintained = issuer.clone();
            tokio::spawn(async move { maintained.run_maintenance().await });
            (issuer, address)
        });
        let (issuer, address) = started.await.unwrap();
        *self.process.lock().unwrap() = Some(Process { runtime: Some(runtime), issuer });
        self.address.send_replace(Some(address));
    }

    /// Where it listens, now and later.
    pub(crate) fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// Waits until it is there.
    pub(crate) async fn is_up(&self) {
        self.address.subscribe().wait_for(Option::is_some).await.unwrap();
    }

    /// Has the server do something; `None` if it is not there, or ended over it.
    pub(crate) async fn does<T, F>(&self, what: impl FnOnce(Issuer) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (handle, issuer) = self.process()?;
        handle.spawn(what(issuer)).await.ok()
    }

    fn process(&self) -> Option<(Handle, Issuer)> {
        let process = self.process.lock().unwrap();
        let process = process.as_ref()?;
        Some((process.runtime.as_ref()?.handle().clone(), process.issuer.clone()))
    }

    pub(crate) fn url(&self, path: &str) -> Option<String> {
        self.address.borrow().map(|address| format!("http://{address}{path}"))
    }

    pub(crate) fn fixture(&self) -> &dyn Fixture {
        &*self.fixture
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

async fn issuer(fixture: &dyn Fixture, clock: Arc<dyn Clock>) -> Issuer {
    let (store, hour) = (fixture.open().await, Duration::from_secs(3600));
    Issuer::builder(ISSUER)
        .token_store(store.tokens)
        .key_store(store.keys)
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .static_clients(clients())
        .unwrap()
        .clock(clock)
        .lifetimes(Lifetimes::default().access_token(hour))
        .key_policy(KeyPolicy::default().clock_skew(CLOCK_SKEW))
        .heartbeat_interval(HEARTBEAT)
        .housekeeping_interval(Duration::from_secs(5))
        .build()
        .await
        .unwrap()
}
