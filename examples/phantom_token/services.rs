//! The parts: the authorization server, the gateways and the orders service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::Response;
use axum::routing::any;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::Audience;
use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::time::{Clock, SystemClock, UnixTime};
use cloakroom::resource::{
    BearerLayer, ClientCredentials, HttpLog, IntrospectionClient, PhantomLayer, RevocationReplica,
    VerifiedToken, Verifier,
};
use cloakroom::{Client, Format, GrantType, Issuer, Lifetimes, Role, Serves};
use hyper_util::client::legacy::Client as ProxyClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::counting::CountingStore;
use crate::exchange::short;
use crate::store::Store;
use crate::{CALLBACK, GATEWAY, ORDERS, ORDERS_API, Outcome, REMEMBERS, RETRY_WINDOW, WEB_APP};

/// The authorization server: the endpoints of an [`Issuer`].
pub(crate) async fn authorization_server(
    url: &str,
    store: &Store,
    clock: Arc<Ahead>,
) -> Outcome<(Issuer, Arc<CountingStore>)> {
    let orders = Serves::Only(Audience::one(ORDERS)?);
    let clients = [
        Client::confidential(WEB_APP[0], WEB_APP[1])
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri(CALLBACK)
            .scope("orders:read orders:write")
            .audience(ORDERS, Format::Phantom),
        Client::resource_server(ORDERS_API[0], ORDERS_API[1], orders),
        // May also read the revocation log, so that it can remember tokens.
        Client::resource_server(GATEWAY[0], GATEWAY[1], Serves::Everything)
            .role(Role::RevocationLog),
    ];
    let (issuer, tokens) = store.open(url).await?;
    let counting = Arc::new(CountingStore::new(tokens));
    let issuer = issuer
        .token_store(counting.clone())
        .static_clients(clients)?
        .lifetimes(Lifetimes::default().retry_window(RETRY_WINDOW))
        // Short times, for the demonstration. Leave them out: the keys then rotate by themselves
        // after weeks.
        .key_policy(
            KeyPolicy::default()
                .jwks_max_age(Duration::from_secs(2))
                .reload(Duration::from_secs(1))
                .clock_skew(Duration::from_secs(1)),
        )
        .clock(clock)
        .build()
        .await?;
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    Ok((issuer, counting))
}

/// The system's clock, moved ahead so that the demonstration need not wait.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    system: SystemClock,
    millis: AtomicU64,
}

impl Ahead {
    pub(crate) fn skip(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

impl Clock for Ahead {
    fn now(&self) -> UnixTime {
        self.system.now() + self.by()
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + self.by()
    }
}

/// An API gateway: a reverse proxy behind [`PhantomLayer`], which asks for every request.
pub(crate) async fn gateway(issuer: &str, orders: &str) -> Outcome<Router> {
    let introspection = IntrospectionClient::discover(issuer, gateway_credentials()).await?;
    Ok(proxy(PhantomLayer::new(introspection, ORDERS), orders))
}

/// Another gateway, which remembers the JWTs and follows the revocation log.
pub(crate) async fn edge(issuer: &str, orders: &str) -> Outcome<Router> {
    let introspection = IntrospectionClient::discover(issuer, gateway_credentials()).await?;
    let log = HttpLog::discover(issuer, gateway_credentials()).await?;
    let phantom = PhantomLayer::new(introspection, ORDERS)
        .cache(REMEMBERS)
        .replica(RevocationReplica::follow(log).await?);
    Ok(proxy(phantom, orders))
}

fn gateway_credentials() -> ClientCredentials {
    ClientCredentials::new(GATEWAY[0], GATEWAY[1])
}

fn proxy(phantom: PhantomLayer, orders: &str) -> Router {
    let client = ProxyClient::builder(TokioExecutor::new()).build_http();
    Router::new().fallback(forward).layer(phantom).with_state((client, orders.to_owned()))
}

/// Forwards a request and its response. Bodies are streamed.
async fn forward(
    State((client, upstream)): State<(ProxyClient<HttpConnector, Body>, String)>,
    mut request: Request,
) -> Result<Response, StatusCode> {
    let path = request.uri().path_and_query();
    let uri = format!("{upstream}{}", path.map_or("/", |path| path.as_str()));
    *request.uri_mut() = uri.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    *request.version_mut() = Version::HTTP_11;
    // The proxy's client sets it from the URI.
    request.headers_mut().remove(header::HOST);
    remove_hop_by_hop(request.headers_mut());
    let mut response = client.request(request).await.map_err(|error| {
        eprintln!("gateway: no answer from {upstream}: {error}");
        StatusCode::BAD_GATEWAY
    })?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(Body::new))
}

/// RFC 9110 §7.6.1: fields about one connection, and those that `Connection` names, end here.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter();
    let named: Vec<&str> = named.filter_map(|value| value.to_str().ok()).collect();
    let named = named.join(",");
    let always = "connection,keep-alive,proxy-authenticate,proxy-authorization,proxy-connection,\
                  te,trailer,transfer-encoding,upgrade";
    for name in named.split(',').chain(always.split(',')) {
        headers.remove(name.trim());
    }
}

/// The orders service: verifies JWTs offline, with the keys of the JWK Set.
pub(crate) async fn orders_service(issuer: &str) -> Outcome<Router> {
    let verifier = Verifier::discover(issuer, ORDERS).await?;
    let bearer = BearerLayer::new(verifier).require_scope("orders:read")?;
    Ok(Router::new().route("/orders", any(report)).route_layer(bearer))
}

/// Reports what reached the service: the request, the JWT's header, and the verified claims.
async fn report(request: Parts, token: VerifiedToken, body: String) -> Json<Value> {
    let bearer = request.headers.get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok());
    let jwt = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap_or_default());
    let header: Value = serde_json::from_slice(&header.unwrap_or_default()).unwrap_or_default();
    Json(json!({
        "request": format!("{} {}", request.method, request.uri),
        "body": body,
        "token": format!("{} ({} characters)", short(jwt), jwt.len()),
        "header": header,
        "claims": token.token(),
    }))
}

pub(crate) async fn listen() -> Outcome<(TcpListener, String)> {
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", socket.local_addr()?);
    Ok((socket, url))
}

pub(crate) fn serve(socket: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(socket, router).await });
}
