//! A complete gateway: a streaming reverse proxy that swaps opaque tokens for JWTs.
//!
//! ```text
//!              handle                        JWT
//!    clients ──────────▶  this gateway  ───────────▶  your API
//!                              │                         │
//!                              │ swap                    │ JWK Set
//!                              └──▶ authorization server ◀┘
//! ```
//!
//! `cargo run --release --example gateway -- --demo` starts everything on this machine, runs a
//! session, and prints what happens. In production it needs four settings, as flags or from the
//! environment, and the secret, from the environment only; `--help` lists the others:
//!
//! ```text
//! export GATEWAY_CLIENT_SECRET=…            # as the authorization server knows this gateway
//! cargo run --release --example gateway -- --listen 127.0.0.1:8080 \
//!     --issuer https://as.example --audience https://orders.example \
//!     --service http://127.0.0.1:9100
//! ```
//!
//! `/live`, `/ready` and `/metrics` are on a separate port (`--admin`). SIGTERM or Ctrl-C shuts it
//! down gracefully. A proxy in front of it terminates TLS: name that proxy with `--proxy`, and the
//! gateway takes the caller's address and scheme from the last value that the proxy adds to
//! `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! Its limits: it serves one service (for more, put more `Proxy`s behind a router), has no rate
//! limits, answers no CORS preflights, and checks no `DPoP` proofs, so handles bound to a key are
//! refused. A `WebSocket` may outlive its token, by at most `--tunnel-lifetime`.
//!
//! It forwards only the header fields that `allowed.rs` lists and that you name (`--forward`): with
//! any other field, a client might impersonate somebody else. **Do not name a field from which your
//! service reads the caller's identity.**
//!
//! To make it yours, copy this directory without `demo` and `tests`, remove the lines with `demo` from
//! this file, and add:
//!
//! ```toml
//! [dependencies]
//! axum = { version = "0.8", default-features = false, features = ["http1", "tokio"] }
//! clap = { version = "4", features = ["derive", "env"] }
//! cloakroom-resource = { path = "../cloakroom/crates/cloakroom-resource", features = ["metrics"] }
//! getrandom = "0.4"
//! hyper = { version = "1", features = ["client", "http1", "http2", "server"] }
//! hyper-util = { version = "0.1", features = ["client-legacy", "server-auto", "tokio"] }
//! metrics = "0.24"
//! thiserror = "2"
//! tokio = { version = "1", features = ["io-util", "macros", "net", "rt-multi-thread", "signal", "sync", "time"] }
//! tower = { version = "0.5", features = ["timeout", "util"] }
//! tracing = "0.1"
//! tracing-subscriber = { version = "0.3", features = ["env-filter"] }
//! ```

mod allowed;
mod body;
mod demo;
mod entry;
mod headers;
mod prometheus;
mod proxy;
mod server;
mod streams;
#[cfg(test)]
mod tests;
mod tunnel;

use std::convert::Infallible;
use std::error::Error;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use clap::Parser;
use cloakroom_resource::{
    ClientCredentials, GatewayKeys, HttpLog, IntrospectionClient, PhantomLayer, RevocationReplica,
    SetupError,
};
use hyper_util::client::legacy::connect::Connect;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::allowed::Allowed;
use crate::entry::{Network, Rules, enter};
use crate::prometheus::Prometheus;
use crate::proxy::{Proxy, Timeouts};
use crate::server::{App, Limits, serve};
use crate::tunnel::Tunnels;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A gateway that swaps opaque tokens for JWTs, and forwards requests to a service.
///
/// It reads the secret that it shares with the authorization server from `GATEWAY_CLIENT_SECRET`. With
/// --demo alone, it runs a session on this machine, prints what happens, and ends.
#[derive(Debug, Parser)]
#[command(name = "gateway")]
struct Settings {
    /// The address for clients
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The address for /live, /ready and /metrics
    #[arg(long, env = "GATEWAY_ADMIN", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// The service behind the gateway: http:// and its host, with or without a port
    #[arg(long, env = "GATEWAY_SERVICE")]
    service: Uri,
    /// The name of that service in the tokens' `aud`
    #[arg(long, env = "GATEWAY_AUDIENCE")]
    audience: String,
    /// The authorization server, exactly as in the tokens' `iss`
    #[arg(long, env = "GATEWAY_ISSUER")]
    issuer: String,
    /// The client id of this gateway at the authorization server
    #[arg(long, env = "GATEWAY_CLIENT_ID", default_value = "gateway")]
    client_id: String,

    /// A name of this gateway, as in Host; requests for other names are refused [default: any]
    #[arg(long = "host", env = "GATEWAY_HOSTS", value_delimiter = ',')]
    hosts: Vec<String>,
    /// A cookie that may also carry the token
    #[arg(long, env = "GATEWAY_COOKIE", requires = "origins")]
    cookie: Option<String>,
    /// An origin (scheme and host) whose pages may send changing requests with that cookie
    #[arg(long = "origin", env = "GATEWAY_ORIGINS", value_delimiter = ',')]
    origins: Vec<String>,
    /// A header field to forward in addition to the standard ones, such as X-Api-Version
    #[arg(long = "forward", env = "GATEWAY_FORWARD", value_delimiter = ',')]
    forward: Vec<String>,
    /// A proxy in front, as an address or 10.0.0.0/8, whose X-Forwarded-For and -Proto are trusted
    #[arg(long = "proxy", env = "GATEWAY_PROXIES", value_delimiter = ',')]
    proxies: Vec<Network>,

    /// For connecting to the service
    #[arg(long, env = "GATEWAY_CONNECT_TIMEOUT", default_value = "2", value_parser = seconds)]
    connect_timeout: Duration,
    /// For the head of the service's answer
    #[arg(long, env = "GATEWAY_HEAD_TIMEOUT", default_value = "30", value_parser = seconds)]
    head_timeout: Duration,
    /// For the next piece of a body, either way, and on a WebSocket
    #[arg(long, env = "GATEWAY_IDLE_TIMEOUT", default_value = "60", value_parser = seconds)]
    idle_timeout: Duration,
    /// For a silent connection to the service; less than the service's own keep-alive time-out, since
    /// only GET, HEAD and OPTIONS are sent again if the service closes just then
    #[arg(long, env = "GATEWAY_KEEP_ALIVE", default_value = "4", value_parser = seconds)]
    keep_alive: Duration,
    /// For a silent connection of a client; more than the keep-alive of a load balancer in front
    #[arg(long, env = "GATEWAY_CLIENT_TIMEOUT", default_value = "75", value_parser = seconds)]
    client_timeout: Duration,
    /// For a WebSocket, busy or not: the client then connects again, and its token is checked again
    #[arg(long, env = "GATEWAY_TUNNEL_LIFETIME", default_value = "600", value_parser = seconds)]
    tunnel_lifetime: Duration,
    /// How many JWTs to cache, each until it expires or the revocation log says that it is
    /// revoked; with 0, no log is followed and every request goes to the authorization server
    #[arg(long, env = "GATEWAY_REMEMBER", default_value = "100000")]
    remember: usize,
    /// How many clients may be connected
    #[arg(long, env = "GATEWAY_CONNECTIONS", default_value = "10000")]
    connections: usize,
    /// At shutdown: for a load balancer to notice that /ready says 503
    #[arg(long, env = "GATEWAY_NOTICE", default_value = "5", value_parser = seconds)]
    notice: Duration,
    /// At shutdown: for open requests and connections
    #[arg(long, env = "GATEWAY_GRACE", default_value = "25", value_parser = seconds)]
    grace: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    let is_demo = std::env::args().nth(1).is_some_and(|first| first == "--demo");
    let level = if is_demo { LevelFilter::ERROR } else { LevelFilter::INFO };
    let filter = EnvFilter::builder().with_default_directive(level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let result = if is_demo { demo::play().await } else { run(Settings::parse()).await };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
    ExitCode::FAILURE
}

async fn run(settings: Settings) -> Outcome<()> {
    let secret = std::env::var("GATEWAY_CLIENT_SECRET")
        .map_err(|error| format!("GATEWAY_CLIENT_SECRET: {error}"))?;
    let stopped = stopped()?;
    let gateway = Gateway::start(&settings, secret).await?;
    println!("ready http://{} (admin http://{})", gateway.address, gateway.admin);
    stopped.await;
    gateway.stop(settings.notice).await
}

/// A running gateway.
#[derive(Debug)]
struct Gateway {
    address: SocketAddr,
    admin: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Gateway {
    async fn start(settings: &Settings, secret: String) -> Outcome<Self> {
        let metrics = Prometheus::default();
        metrics::set_global_recorder(metrics.clone())?;

        let phantom = settings.phantom(secret).await?;
        let tunnels = Tunnels::new(settings.idle_timeout, settings.tunnel_lifetime);
        let timeouts = settings.timeouts();
        let connector = proxy::tcp(timeouts.connect);
        let allowed = settings.allowed()?;
        let proxy = Proxy::new(connector, &settings.service, allowed, timeouts, tunnels.clone())?;
        let app = app(settings.rules(), phantom, proxy);

        let clients = TcpListener::bind(settings.listen).await?;
        let operators = TcpListener::bind(settings.admin).await?;
        let (address, admin) = (clients.local_addr()?, operators.local_addr()?);
        let ready = Arc::new(AtomicBool::new(true));
        let operations = operations(Arc::clone(&ready), metrics);
        tokio::spawn(async move { axum::serve(operators, operations).await });
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let serving = tokio::spawn(serve(clients, app, settings.limits(), tunnels, stopped));
        Ok(Self { address, admin, ready, stop, serving })
    }

    /// Reports that it is not ready, continues for `notice`, then accepts no more connections and
    /// waits for the requests in progress.
    async fn stop(self, notice: Duration) -> Outcome<()> {
        self.ready.store(false, Ordering::Relaxed);
        tokio::time::sleep(notice).await;
        let _ = self.stop.send(());
        Ok(self.serving.await?)
    }
}

/// What a request passes through, from the outside in: the checks of the request, the check of its
/// token, and the way to the service.
fn app<C: Connect + Clone + Send + Sync + 'static>(
    rules: Rules,
    mut phantom: PhantomLayer,
    proxy: Arc<Proxy<C>>,
) -> App {
    if let Some(cookie) = &rules.cookie {
        phantom = phantom.cookie(cookie);
    }
    let forward = service_fn(move |request: Request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.forward(request).await) }
    });
    let stack = ServiceBuilder::new()
        .layer(from_fn_with_state(Arc::new(rules), enter))
        .layer(phantom)
        .service(forward);
    BoxCloneSyncService::new(stack)
}

/// The endpoints for operators. None of them is for clients.
fn operations(ready: Arc<AtomicBool>, metrics: Prometheus) -> Router {
    let is_ready = async |State(ready): State<Arc<AtomicBool>>| match ready.load(Ordering::Relaxed)
    {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Router::new()
        .route("/live", get(StatusCode::OK))
        .route("/ready", get(is_ready))
        .route("/metrics", get(async move || metrics.render()))
        .with_state(ready)
}

impl Settings {
    /// The layer that swaps handles. It swaps each handle once, then caches the JWT, and refuses
    /// the handle as soon as the log says that it is revoked. If the log cannot be read for long,
    /// it asks the authorization server for every request. Forged handles are refused without a
    /// request, if the server gives its handle keys to this client, which needs the right to get
    /// them.
    async fn phantom(&self, secret: String) -> Outcome<PhantomLayer> {
        let credentials = ClientCredentials::new(&self.client_id, secret);
        let client = IntrospectionClient::discover(&self.issuer, credentials.clone()).await?;
        let mut layer = PhantomLayer::new(client, &self.audience);
        match GatewayKeys::discover(&self.issuer, credentials.clone()).await {
            Ok(keys) => layer = layer.handle_keys(keys),
            Err(SetupError::Missing(_)) => {
                tracing::warn!(
                    "the authorization server has no handle keys: forged handles cost requests"
                );
            }
            Err(error) => return Err(error.into()),
        }
        if self.remember == 0 {
            return Ok(layer);
        }
        let log = HttpLog::discover(&self.issuer, credentials).await?;
        Ok(layer.cache(self.remember).replica(RevocationReplica::follow(log).await?))
    }

    fn allowed(&self) -> Outcome<Allowed> {
        Ok(Allowed::and(self.forward.iter().map(String::as_str))?)
    }

    fn rules(&self) -> Rules {
        Rules {
            hosts: self.hosts.clone(),
            cookie: self.cookie.clone(),
            origins: self.origins.clone(),
            proxies: self.proxies.clone(),
        }
    }

    const fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout,
            head: self.head_timeout,
            idle: self.idle_timeout,
            keep: self.keep_alive,
        }
    }

    const fn limits(&self) -> Limits {
        Limits {
            connections: self.connections,
            first: Duration::from_secs(10),
            next: self.client_timeout,
            stuck: self.idle_timeout,
            head: 32 * 1024,
            grace: self.grace,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Returns at Ctrl-C or SIGTERM, which are caught from the moment of the call.
fn stopped() -> Outcome<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminated = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())?
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    })
}
