//! The servers behind the gateway: an authorization server and an API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, put};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use cloakroom::http::Endpoints;
use cloakroom::resource::{BearerLayer, VerifiedToken, Verifier};
use cloakroom::{Audience, Client, Format, GrantType, Issuer, Role, Serves};
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use super::{ORDERS, SECRET};
use crate::Outcome;

/// Issues tokens to a web app, and lets the gateway swap handles and follow the revocation log.
pub(super) async fn authorization_server() -> Outcome<Issuer> {
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let orders = Audience::one(ORDERS)?;
    let issuer = Issuer::dev()
        .url(format!("http://{}", socket.local_addr()?))
        .static_clients([
            Client::public("web-app")
                .grant_types([GrantType::RefreshToken])
                .scope("orders:read orders:write")
                .audience(ORDERS, Format::Phantom),
            Client::resource_server("gateway", SECRET, Serves::Only(orders))
                .role(Role::RevocationLog)
                .role(Role::HandleKeys),
        ])?
        .build()
        .await?;
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    let endpoints = Endpoints::new(issuer.clone()).router();
    tokio::spawn(async move { axum::serve(socket, endpoints).await });
    Ok(issuer)
}

/// An API that knows nothing of handles: it verifies JWTs, and counts its connections.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) url: String,
    connections: Arc<AtomicUsize>,
    /// How much of the current upload has arrived.
    pub(super) arrived: watch::Receiver<usize>,
}

impl Api {
    pub(super) async fn start(issuer: &Issuer) -> Outcome<Self> {
        let verifier = Verifier::discover(issuer.url(), ORDERS).await?;
        let (arriving, arrived) = watch::channel(0);
        let router = Router::new()
            .route("/orders", any(report))
            .route("/photos", put(receive))
            .route("/photos/{mib}", get(send))
            .route("/live", get(echo))
            .with_state(arriving)
            .route_layer(BearerLayer::new(verifier).require_scope("orders:read")?);
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", socket.local_addr()?);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let socket = socket.tap_io(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(socket, router).await });
        Ok(Self { url, connections, arrived })
    }

    /// How many connections were opened to it.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What reached the API, in short.
async fn report(request: Parts, token: VerifiedToken) -> Json<Value> {
    let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    Json(json!({
        "bearer": text("authorization").map(super::short),
        "verified": { "sub": token.token().subject.as_ref().map(|it| it.id().to_owned()) },
        "forwarded": text("forwarded"),
        "x-user": text("x-user"),
        "x-forwarded-for": text("x-forwarded-for"),
        "x-request-id": text("x-request-id"),
    }))
}

async fn receive(
    State(arriving): State<watch::Sender<usize>>,
    mut body: Body,
) -> Result<String, StatusCode> {
    let mut digest = Sha256::new();
    arriving.send_replace(0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        if let Ok(data) = frame.into_data() {
            digest.update(&data);
            arriving.send_modify(|arrived| *arrived += data.len());
        }
    }
    Ok(format!("{} {}", *arriving.borrow(), super::hex(digest)))
}

async fn send(Path(mib): Path<usize>) -> Body {
    let (sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(super::pour(sender, mib));
    Body::new(body)
}

/// Accepts a WebSocket (RFC 6455 §4.2.2) and echoes everything.
async fn echo(mut request: Request) -> Result<Response, StatusCode> {
    let key = request.headers().get("sec-websocket-key").ok_or(StatusCode::BAD_REQUEST)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", accept.map_err(|_| StatusCode::BAD_REQUEST)?);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            say_back(upgraded).await;
        }
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

async fn say_back(upgraded: Upgraded) {
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Side::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}
