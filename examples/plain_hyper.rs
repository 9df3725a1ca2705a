//! An API on hyper alone, without a framework, that accepts the tokens of an issuer in the same process.
//!
//! ```toml
//! [dependencies]
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["resource"] }
//! http-body-util = "0.1"
//! hyper = { version = "1", features = ["http1", "server"] }
//! hyper-util = { version = "0.1", features = ["tokio"] }
//! reqwest = { version = "0.13", default-features = false }
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread"] }
//! tower = { version = "0.5", features = ["util"] }
//! ```

use std::convert::Infallible;
use std::error::Error;

use cloakroom::resource::{BearerLayer, VerifiedToken};
use cloakroom::{Client, Format, Grant, Issuer, Subject};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _};

const ORDERS: &str = "https://orders.example";

async fn orders(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // The layer has put it there.
    let token = request.extensions().get::<VerifiedToken>();
    let who = token.and_then(VerifiedToken::subject).map_or("nobody", Subject::id);
    Ok(Response::new(Full::from(format!("orders of {who}"))))
}

/// Serves the API until the listener fails.
async fn serve(listener: TcpListener, bearer: BearerLayer) -> std::io::Result<()> {
    let api = bearer.layer(tower::service_fn(orders));
    loop {
        let (stream, _) = listener.accept().await?;
        let api = api.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| api.clone().oneshot(request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Client::public("app").scope("orders:read").audience(ORDERS, Format::Opaque);
    let issuer = Issuer::dev().static_clients([app])?.build().await?;
    let bearer = issuer.protect(ORDERS).require_scope("orders:read")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(serve(listener, bearer));

    let client = reqwest::Client::new();
    println!("without a token: {}", client.get(&url).send().await?.status());
    let tokens = issuer.issue(Grant::user("app", "alice")?).await?;
    let request = client.get(&url).bearer_auth(tokens.access_token.expose());
    println!("with a token: {}", request.send().await?.error_for_status()?.text().await?);
    issuer.revoke_grant(tokens.grant).await?;
    let request = client.get(&url).bearer_auth(tokens.access_token.expose());
    let status = request.send().await?.status();
    println!("after the revocation: {status}");
    assert_eq!(status, 401);
    println!("plain hyper: ok");
    Ok(())
}
