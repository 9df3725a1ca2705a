//! The gateway of the examples, with and without the swap, and the servers around it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use cloakroom::core::Audience;
use cloakroom::http::Endpoints;
use cloakroom::resource::{
    ClientCredentials, HttpLog, IntrospectionClient, PhantomLayer, RevocationReplica,
};
use cloakroom::{Client, Format, Grant, Issuer, Role, Serves};
use tokio::net::TcpListener;
use tower::util::{BoxCloneSyncService, option_layer};
use tower::{ServiceBuilder, service_fn};

use super::{Prepared, api};
use crate::Failure;
use crate::allowed::Allowed;
use crate::case::{API, APP, RESOURCE, SCOPE};
use crate::entry::{Rules, enter};
use crate::prometheus::Prometheus;
use crate::proxy::{self, Proxy, Timeouts};
use crate::server::Limits;
use crate::tunnel::Tunnels;

/// The authorization server, and an API behind the gateway that accepts every request.
pub(super) async fn surroundings(address: SocketAddr, tokens: usize) -> Result<Prepared, Failure> {
    let issuer = Issuer::dev()
        .url(format!("http://{address}"))
        .static_clients([
            Client::public(APP).scope(SCOPE).audience(RESOURCE, Format::Phantom),
            Client::resource_server(API.id, API.secret, Serves::Only(Audience::one(RESOURCE)?))
                .role(Role::RevocationLog),
        ])?
        .build()
        .await?;
    let mut issued = Vec::with_capacity(tokens);
    for user in 0..tokens {
        let grant = Grant::user(APP, format!("user-{user}"))?.scope(SCOPE)?;
        issued.push(issuer.issue(grant).await?.access_token.expose().to_owned());
    }
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    let router = Endpoints::new(issuer).router().merge(api::orders());
    Ok(Prepared { router, tokens: issued })
}

/// Serves as the example does, with its defaults. `origin` is where the surroundings are.
pub(super) async fn serve(listener: TcpListener, origin: &str, swaps: bool) -> Result<(), Failure> {
    let metrics = Prometheus::default();
    metrics::set_global_recorder(metrics)?;
    let seconds = Duration::from_secs;
    let timeouts =
        Timeouts { connect: seconds(2), head: seconds(30), idle: seconds(60), keep: seconds(4) };
    let tunnels = Tunnels::new(timeouts.idle, seconds(600));
    let service: Uri = origin.parse()?;
    let (connector, allowed) = (proxy::tcp(timeouts.connect), Allowed::and([])?);
    let proxy = Proxy::new(connector, &service, allowed, timeouts, tunnels.clone())?;
    let forward = service_fn(move |request: Request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.forward(request).await) }
    });
    let phantom = if swaps { Some(phantom(origin).await?) } else { None };
    let stack = ServiceBuilder::new()
        .layer(from_fn_with_state(Arc::new(Rules::default()), enter))
        .layer(option_layer(phantom))
        .service(forward);
    let limits = Limits {
        connections: 10_000,
        first: seconds(10),
        next: seconds(75),
        stuck: timeouts.idle,
        head: 32 * 1024,
        grace: seconds(25),
    };
    let app = BoxCloneSyncService::new(stack);
    crate::server::serve(listener, app, limits, tunnels, std::future::pending()).await;
    Ok(())
}

async fn phantom(origin: &str) -> Result<PhantomLayer, Failure> {
    let credentials = ClientCredentials::new(API.id, API.secret);
    let client = IntrospectionClient::discover(origin, credentials.clone()).await?;
    let log = HttpLog::discover(origin, credentials).await?;
    let layer = PhantomLayer::new(client, RESOURCE).cache(100_000);
    Ok(layer.replica(RevocationReplica::follow(log).await?))
}
