//! An API that accepts only requests with a valid JWT access token.
//!
//! It finds the authorization server's keys through its metadata, and from then on verifies every
//! token locally. Start the authorization server, then this, then call it:
//!
//! ```text
//! cargo run --example authorization_server -- --listen 127.0.0.1:9000
//! cargo run --release --example protect_api -- --issuer http://127.0.0.1:9000
//!
//! token=$(curl -s -u batch-job:batch-job-demo-secret-0123456789 \
//!     -d grant_type=client_credentials http://127.0.0.1:9000/token | sed 's/.*access_token":"//; s/".*//')
//! curl -si -H "Authorization: Bearer $token" http://127.0.0.1:9100/orders
//! ```
//!
//! axum's server has no time limits for clients: put a proxy with time limits in front, such as the
//! `gateway` of these examples.
//!
//! The traces, not the response, say why a token was refused: set
//! `RUST_LOG=cloakroom_resource=debug`. A package of your own needs:
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! clap = { version = "4", features = ["derive"] }
//! cloakroom-resource = { path = "../cloakroom/crates/cloakroom-resource" }
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread", "signal"] }
//! tracing-subscriber = { version = "0.3", features = ["env-filter"] }
//! ```

use std::error::Error;
use std::process::ExitCode;

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use cloakroom_resource::{BearerLayer, VerifiedToken, Verifier};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// An API behind bearer tokens.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: String,
    /// The authorization server, exactly as in the tokens' `iss`.
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    issuer: String,
    /// The name of this API in the tokens' `aud`. It need not be where it listens.
    #[arg(long, default_value = "https://orders.example")]
    audience: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
    ExitCode::FAILURE
}

async fn run() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();

    let verifier = Verifier::discover(&args.issuer, &args.audience).await?;
    let socket = TcpListener::bind(&args.listen).await?;
    println!("ready http://{}", socket.local_addr()?);
    axum::serve(socket, api(BearerLayer::new(verifier))?).with_graceful_shutdown(stopped()).await?;
    Ok(())
}

/// One layer for each group of routes, with the scope that the group requires.
fn api(bearer: BearerLayer) -> Result<Router, Box<dyn Error>> {
    let reading = Router::new()
        .route("/orders", get(read_orders))
        .route_layer(bearer.clone().require_scope("orders:read")?);
    let writing = Router::new()
        .route("/orders", post(place_order))
        .route_layer(bearer.require_scope("orders:write")?);
    Ok(reading.merge(writing))
}

/// The handler of a protected route takes the token, which names the caller.
async fn read_orders(token: VerifiedToken) -> Json<Value> {
    Json(json!({ "orders": [], "claims": token.token() }))
}

async fn place_order(token: VerifiedToken) -> (StatusCode, Json<Value>) {
    let by = token.subject().map(|subject| subject.id().to_owned());
    (StatusCode::CREATED, Json(json!({ "ordered_by": by })))
}

/// Returns at Ctrl-C or SIGTERM.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
