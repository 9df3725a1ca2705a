//! Gateways and the API, each with its own wires to the authorization server, and with a checkpoint
//! before and behind the layer that is on trial.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use cloakroom::core::time::Clock;
use cloakroom::resource::{
    BearerLayer, ClientCredentials, Freshness, GatewayKeys, HttpLog, HttpTimeouts,
    IntrospectionClient, PhantomLayer, ReplicaBuilder, ReqwestClient, RevocationLog,
    RevocationReplica, TokenService, Verifier,
};
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use tower::{Layer, Service, ServiceExt as _};

use crate::HANGS;
use crate::authority::{Authority, ISSUER, ORDERS, SECRET};
use crate::people::kid;
use crate::tape::{Answer, Entry, Instant, Place, Tape};
use crate::web::{Served, TOKEN, Web};
use crate::wire::Wire;

/// The two ways from an edge to the authorization server.
#[derive(Debug)]
pub(crate) struct Wires {
    name: &'static str,
    clock: Arc<dyn Clock>,
    /// How long the edge waits for an answer.
    patience: Duration,
    /// For introspection, and for keys.
    pub(crate) questions: Wire,
    /// For the revocation log.
    pub(crate) log: Wire,
}

impl Wires {
    /// The wires of the edge that the authorization server knows by this name. It waits for an
    /// answer, however slow the machine is.
    pub(crate) async fn new(name: &'static str, authority: &Authority) -> Self {
        let (clock, patience) = (authority.clock(), HANGS);
        let wire = || Wire::new(authority.address());
        Self { name, clock, patience, questions: wire().await, log: wire().await }
    }

    /// Has the edge wait no longer than this for an answer.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn client(&self) -> ReqwestClient {
        ReqwestClient::with_timeouts(
            HttpTimeouts::default().connect(self.patience).total(self.patience),
        )
        .unwrap()
    }

    fn credentials(&self) -> ClientCredentials {
        ClientCredentials::new(self.name, SECRET)
    }

    pub(crate) fn introspection(&self) -> IntrospectionClient {
        let endpoint = self.questions.url("/introspect");
        IntrospectionClient::new(&endpoint, self.credentials(), self.client()).unwrap()
    }

    pub(crate) fn handle_keys(&self) -> GatewayKeys {
        let endpoint = self.questions.url("/handle-keys");
        GatewayKeys::new(&endpoint, self.credentials(), self.client()).unwrap()
    }

    pub(crate) fn http_log(&self) -> HttpLog {
        HttpLog::new(&self.log.url("/revocations"), self.credentials(), self.client()).unwrap()
    }

    /// A replica that follows this log, by the one clock.
    pub(crate) fn replica(&self, log: impl RevocationLog) -> ReplicaBuilder {
        RevocationReplica::builder(log)
            .clock(Arc::clone(&self.clock))
            .wait(Duration::from_secs(1))
            .first_back_off(Duration::from_millis(20))
            .max_back_off(Duration::from_millis(200))
    }

    /// A layer that asks the authorization server.
    pub(crate) fn gateway(&self) -> PhantomLayer {
        PhantomLayer::new(self.introspection(), ORDERS).clock(Arc::clone(&self.clock))
    }

    /// A layer that verifies JWTs, with a cache, and introspects.
    pub(crate) fn api(&self, replica: RevocationReplica, freshness: Freshness) -> BearerLayer {
        let jwks = self.questions.url("/.well-known/jwks.json");
        let verifier = Verifier::fetching(ISSUER, ORDERS, &jwks, self.client()).unwrap();
        let verifier = verifier.clock(Arc::clone(&self.clock)).replica(replica).cache(100_000);
        BearerLayer::new(verifier)
            .or_introspect(self.introspection())
            .cache(100_000)
            .freshness(freshness)
            .unwrap()
    }
}

/// What is known of a request that an edge is at.
#[derive(Debug, Clone)]
struct Visit {
    token: u32,
    begun: Instant,
    kid: Option<Arc<str>>,
    is_in: Arc<OnceLock<()>>,
}

/// A server with a layer on trial. What the layer answers is written down here; what it lets in,
/// behind it.
#[derive(Debug, Clone)]
struct Checkpoint<S> {
    place: Place,
    tape: Arc<Tape>,
    layered: S,
}

async fn check<S>(State(edge): State<Checkpoint<S>>, mut request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let begun = edge.tape.begin();
    let token = request.headers()[TOKEN].to_str().unwrap().parse().unwrap();
    let visit = Visit { token, begun, kid: presented(&request), is_in: Arc::default() };
    request.extensions_mut().insert(visit.clone());
    let response = match edge.layered.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if visit.is_in.get().is_none() {
        let (place, ended, status) = (edge.place, edge.tape.now(), response.status().as_u16());
        edge.tape.answer(Answer { place, token, begun, ended, status, kid: visit.kid });
    }
    response
}

/// The key of the JWT that a request presents, if it is one.
fn presented(request: &Request) -> Option<Arc<str>> {
    kid(request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?)
}

/// What lies behind a layer: writes down what comes, and sends it on to a service if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    place: Place,
    tape: Arc<Tape>,
    service: Option<(Web, Arc<str>)>,
}

impl Service<Request> for Inside {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let visit = request.extensions().get::<Visit>().unwrap();
        let (token, begun, kid) = (visit.token, visit.begun, presented(&request));
        visit.is_in.set(()).unwrap();
        self.tape.enter(Entry { place: self.place, token, begun, kid });
        let service = self.service.clone();
        Box::pin(async move {
            let status = match service {
                Some((web, url)) => web
                    .get(&url, &request.headers()[AUTHORIZATION], token)
                    .await
                    .expect("the service answers"),
                None => 200,
            };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        })
    }
}

async fn serve<S>(place: Place, tape: Arc<Tape>, layered: S) -> Served
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let checkpoint = Checkpoint { place, tape, layered };
    Served::new(Router::new().fallback(check::<S>).with_state(checkpoint)).await
}

/// A gateway, before a service at this URL or before nothing.
pub(crate) async fn gateway(
    place: Place,
    tape: &Arc<Tape>,
    layer: &PhantomLayer,
    service: Option<&str>,
) -> Served {
    let service = service.map(|url| (Web::new(), Arc::from(url)));
    let inside = Inside { place, tape: Arc::clone(tape), service };
    let layered: TokenService<Inside> = layer.layer(inside);
    serve(place, Arc::clone(tape), layered).await
}

/// An API.
pub(crate) async fn api(place: Place, tape: &Arc<Tape>, layer: &BearerLayer) -> Served {
    let inside = Inside { place, tape: Arc::clone(tape), service: None };
    let layered: TokenService<Inside> = layer.layer(inside);
    serve(place, Arc::clone(tape), layered).await
}
