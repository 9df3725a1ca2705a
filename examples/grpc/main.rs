//! A gRPC service that accepts the tokens of an issuer in the same process, and a client that calls it.
//!
//! The service is gRPC's standard health check, so that no `protoc` is needed. A service of your own
//! finds the token with `request.extensions().get::<VerifiedToken>()`.
//!
//! ```toml
//! [dependencies]
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["resource"] }
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread"] }
//! tokio-stream = { version = "0.1", features = ["net"] }
//! tonic = "0.14"
//! tonic-health = "0.14"
//! ```

use std::error::Error;

use cloakroom::{Client, Format, Grant, Issuer, TokenSecret};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const API: &str = "https://health.example";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await?;
    println!("grpc: ok");
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let app = Client::public("app").scope("health:read orders:read").audience(API, Format::Opaque);
    let issuer = Issuer::dev().static_clients([app])?.build().await?;

    // The server.
    let bearer = issuer.protect(API).require_scope("health:read")?.grpc();
    let (_, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = Server::builder().layer(bearer).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    // The client.
    let channel = Endpoint::from_shared(url)?.connect().await?;
    let grant = |scope| Grant::user("app", "alice")?.scope(scope);
    let good = issuer.issue(grant("health:read")?).await?;
    let weak = issuer.issue(grant("orders:read")?).await?;
    expect("without a token", call(&channel, None).await, Code::Unauthenticated)?;
    expect(
        "without the scope",
        call(&channel, Some(&weak.access_token)).await,
        Code::PermissionDenied,
    )?;
    expect("with a token", call(&channel, Some(&good.access_token)).await, Code::Ok)?;
    issuer.revoke_grant(good.grant).await?;
    let after = call(&channel, Some(&good.access_token)).await;
    expect("after the revocation", after, Code::Unauthenticated)
}

/// Calls the service with this token.
async fn call(channel: &Channel, token: Option<&TokenSecret>) -> Result<(), Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {}", token.expose()));
        let value = value.map_err(|error| Status::internal(error.to_string()))?;
        request.metadata_mut().insert("authorization", value);
    }
    HealthClient::new(channel.clone()).check(request).await.map(drop)
}

fn expect(what: &str, answer: Result<(), Status>, code: Code) -> Result<(), Box<dyn Error>> {
    let found = answer.err().map_or(Code::Ok, |status| status.code());
    println!("{what}: {found:?}");
    if found == code { Ok(()) } else { Err(format!("{what}: {code:?} was expected").into()) }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_example_runs() -> Result<(), Box<dyn std::error::Error>> {
        super::run().await
    }
}
