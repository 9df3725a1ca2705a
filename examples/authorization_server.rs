//! A complete authorization server, to try with curl (see `docs/curl.md`):
//!
//! ```text
//! cargo run --release --example authorization_server -- --listen 127.0.0.1:9000
//! ```
//!
//! The endpoints come from the library. The sign-in page is a demo: it signs in the user that
//! `login_hint` names, and asks for consent only if the client sends `prompt=consent`. SIGUSR1
//! rotates the signing key at once. It uses `clients.toml`, `sign_in.rs` and `store.rs` beside this
//! file.
//!
//! ```toml
//! [dependencies]
//! axum = { version = "0.8", default-features = false, features = ["http1", "tokio"] }
//! base64 = "0.23"
//! clap = { version = "4", features = ["derive"] }
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["sqlite"] }
//! getrandom = "0.4"
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "net", "signal", "time"] }
//! toml = "1"
//! tracing = "0.1"
//! tracing-subscriber = { version = "0.3", features = ["env-filter"] }
//! url = "2"
//! ```

mod sign_in;
mod store;

use std::error::Error;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use clap::Parser;
use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::{Audience, ClientId, InvalidValue, Scope};
use cloakroom::http::Endpoints;
#[cfg(feature = "redis")]
use cloakroom::redis::RedisStore;
use cloakroom::{
    Client, ClientLifetimes, Event, EventSink, Format, Issuer, IssuerBuilder, Lifetimes,
    SecretHash, Serves, TokenError,
};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use crate::store::Store;

type Failure = Box<dyn Error + Send + Sync>;

/// An authorization server to try things out. It signs everyone in without asking.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen, an IP address and a port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where grants and keys are kept: `memory`, `sqlite:` and a file's path, or the URL of a server
    /// (`mysql://`, `postgres://`, `redis://`; build with the feature of that name). The secrets are in
    /// another file: `<path>.secrets` or `<feature>.secrets`
    #[arg(long, default_value = "sqlite:tokens.db", value_name = "STORE")]
    store: Store,
    /// The Redis server that keeps single-use items, such as nonces, in place of the store
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL")]
    single_use: Option<String>,
    /// The issuer's URL [default: http:// and the address, which must then be a loopback address]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// How long a spent refresh token still returns its successor, at most 300
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    retry_window: u64,
    /// How long a plain HTTP cache, such as nginx, may keep a swapped JWT
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    cache_swapped: u64,
    /// The clients, instead of the demo set
    #[arg(long, value_name = "FILE.toml")]
    clients: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Failure> {
    let clients = match &options.clients {
        None => clients(include_str!("clients.toml"), "the demo clients")?,
        Some(path) => read_clients(path)?,
    };
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = listener.local_addr()?;
    let url = match options.issuer {
        Some(url) => url,
        None if address.ip().is_loopback() => format!("http://{address}"),
        None => {
            let why =
                "is not a loopback address: set the URL that clients use with --issuer https://…";
            return Err(format!("--listen {address} {why}").into());
        }
    };

    let (issuer, _) = options.store.open(&url).await?;
    #[cfg(feature = "redis")]
    let issuer = match &options.single_use {
        Some(server) => issuer.single_use(Arc::new(RedisStore::connect(server).await?)),
        None => issuer,
    };
    // A ring of keys for each algorithm that a client names.
    let algorithms: Vec<_> = clients.iter().filter_map(Client::jwt_algorithm).collect();
    let issuer = algorithms.into_iter().fold(issuer, IssuerBuilder::further_algorithm);
    let issuer = issuer
        .static_clients(clients)?
        .events(Arc::new(Alarms))
        .lifetimes(Lifetimes::default().retry_window(Duration::from_secs(options.retry_window)))
        // A key signs once every verifier knows it: after max-age + 2 × reload + skew, which is more
        // than an hour with the defaults. Here it is 5 seconds, so that you can send SIGUSR1 twice in
        // a row. In return the JWK Set is hardly cached, and clocks must agree, as on one machine.
        .key_policy(
            KeyPolicy::default()
                .jwks_max_age(Duration::from_secs(2))
                .reload(Duration::from_secs(1))
                .clock_skew(Duration::from_secs(1)),
        )
        .build()
        .await?;

    // Signals are caught before `ready` is printed.
    let end = signals(issuer.clone())?;
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });

    // The library's endpoints are under the issuer's path, and so is `/authorize`.
    let path = Url::parse(&url)?.path().trim_end_matches('/').to_owned();
    let sign_in = sign_in::router(&path, issuer.clone());
    let endpoints = Endpoints::new(issuer)
        .authorization_page(&format!("{url}/authorize"))
        .cache_swapped(Duration::from_secs(options.cache_swapped));
    let app = sign_in.merge(endpoints.router());

    eprintln!("*** DEMO: {url}/authorize signs in `alice`, or the user in `login_hint`,");
    eprintln!("*** DEMO: without asking. Do not expose it to the internet.");
    match &options.store {
        Store::Memory => eprintln!("*** The tokens that it issues are invalid after a restart."),
        Store::Sqlite(path) => eprintln!("*** Grants and keys are kept in {}.", path.display()),
        #[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
        _ => eprintln!("*** Grants and keys are kept on the server."),
    }
    println!("ready http://{address}");
    cloakroom::http::serve(listener, app)
        .drain_timeout(Duration::from_secs(5))
        .graceful_shutdown(async move {
            end.await;
            tracing::info!("shutting down: open requests have 5 seconds");
        })
        .await?;
    Ok(())
}

/// Prints alarms. A real server passes every event to an audit trail.
#[derive(Debug)]
struct Alarms;

impl EventSink for Alarms {
    fn record(&self, event: &Event) {
        if event.is_alarm() {
            eprintln!("ALARM {}", serde_json::to_string(event).unwrap_or_default());
        }
    }
}

// --- Signals --------------------------------------------------------------------------------

/// Rotates the signing key on each SIGUSR1; ready on SIGTERM or ctrl-c.
#[cfg(unix)]
fn signals(issuer: Issuer) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut rotation = signal(SignalKind::user_defined1())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = rotation.recv() => rotate(&issuer).await,
            }
        }
    })
}

/// Ready on ctrl-c.
#[cfg(not(unix))]
fn signals(_: Issuer) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    Ok(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
}

#[cfg(unix)]
async fn rotate(issuer: &Issuer) {
    use cloakroom::jwt::KeyManagerError;
    match issuer.rotate_keys().await {
        Ok(event) => eprintln!("rotated: {event:?}"),
        Err(TokenError::Keys(KeyManagerError::SuccessorNotKnown { ready_at })) => {
            eprintln!(
                "not rotated: a verifier may not know the next key yet; try again after {ready_at}"
            );
        }
        Err(error) => eprintln!("not rotated: {error}"),
    }
}

// --- Clients --------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientsFile {
    client: Vec<toml::Table>,
}

/// One `[[client]]`; `clients.toml` explains it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: ClientId,
    #[serde(default)]
    public: bool,
    secret: Option<String>,
    secret_sha256: Option<String>,
    #[serde(default)]
    grant_types: Vec<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    pkce: Option<bool>,
    #[serde(default)]
    scope: Scope,
    #[serde(default)]
    audiences: Vec<AudienceEntry>,
    jwt_algorithm: Option<String>,
    #[serde(default)]
    lifetimes: LifetimesEntry,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    serves: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AudienceEntry {
    resource: String,
    format: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LifetimesEntry {
    access_token: Option<u64>,
    refresh_idle: Option<u64>,
    grant: Option<u64>,
}

fn read_clients(path: &Path) -> Result<Vec<Client>, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the clients from {name}: {error}"))?;
    clients(&text, &name)
}

fn clients(text: &str, name: &str) -> Result<Vec<Client>, Failure> {
    let file: ClientsFile = toml::from_str(text).map_err(|error| {
        // Not the text of the error: it quotes the line, which may hold a secret.
        let line = 1 + text[..error.span().map_or(0, |span| span.start)].matches('\n').count();
        format!("{name}, line {line}: {}", error.message())
    })?;
    let mut clients: Vec<Client> = Vec::new();
    for (index, table) in file.client.into_iter().enumerate() {
        let who = match table.get("id").and_then(toml::Value::as_str) {
            Some(id) => format!("{name}: client `{id}`"),
            None => format!("{name}: client {}", index + 1),
        };
        let entry = Entry::deserialize(table)
            .map_err(|error| format!("{who}: {}", error.to_string().trim().replace('\n', " ")))?;
        let client = client(&entry).map_err(|why| format!("{who}: {why}"))?;
        clients.push(client);
    }
    if clients.is_empty() {
        return Err(format!("{name}: it contains no client").into());
    }
    Ok(clients)
}

/// The client of an entry, or the field that is wrong, and why.
fn client(entry: &Entry) -> Result<Client, String> {
    let wrong = |field: &'static str| move |error: InvalidValue| format!("{field}: {}", error.why);
    let mut client = match (entry.public, &entry.secret, &entry.secret_sha256) {
        (true, None, None) => Client::public(&entry.id),
        (false, Some(secret), None) => Client::confidential(&entry.id, secret),
        (false, None, Some(hash)) => {
            let hash = sha256(hash).ok_or("secret_sha256: it is not 32 bytes, hex or base64url")?;
            Client::hashed(&entry.id, [SecretHash::from_bytes(hash)])
        }
        (true, ..) => return Err("public: a public client has no secret".into()),
        _ => return Err("secret: give either secret, secret_sha256 or public = true".into()),
    };
    for name in &entry.grant_types {
        let unknown = |_| format!("grant_types: `{name}` is not a grant type of this server");
        client = client.grant_types([name.parse().map_err(unknown)?]);
    }
    for uri in &entry.redirect_uris {
        client = client.redirect_uri(absolute("redirect_uris", uri)?);
    }
    if entry.pkce == Some(false) {
        client = client.without_pkce();
    }
    client = client.scope(entry.scope.as_str());
    for (index, AudienceEntry { resource, format }) in entry.audiences.iter().enumerate() {
        if entry.audiences[..index].iter().any(|other| other.resource == *resource) {
            return Err(format!("audiences: `{resource}` is listed twice"));
        }
        let format = match Format::from(&**format) {
            Format::Custom(name) => {
                return Err(format!("audiences: format `{name}` must be opaque, phantom or jwt"));
            }
            format => format,
        };
        let resource = absolute("audiences", resource)?;
        client = client.audience(resource, format);
    }
    if let Some(name) = &entry.jwt_algorithm {
        let algorithm =
            name.parse().map_err(|error| format!("jwt_algorithm: `{name}`: {error}"))?;
        client = client.jwt_algorithm(algorithm);
    }
    client = client.lifetimes(entry.lifetimes.checked()?);
    for role in &entry.roles {
        let role = role.parse().map_err(|error| format!("roles: `{role}`: {error}"))?;
        client = client.role(role);
    }
    if entry.serves == ["*"] {
        client = client.serves(Serves::Everything);
    } else if !entry.serves.is_empty() {
        entry.serves.iter().try_for_each(|uri| absolute("serves", uri).map(drop))?;
        let audience = Audience::new(&entry.serves).map_err(wrong("serves"))?;
        client = client.serves(Serves::Only(audience));
    }
    client.build().map_err(|error| error.why)
}

impl LifetimesEntry {
    /// The library would shorten a lifetime that is too long; report it instead.
    fn checked(&self) -> Result<ClientLifetimes, String> {
        let within = |field: &str, own: Option<u64>, most: Duration| match own {
            Some(own) if !(1..=most.as_secs()).contains(&own) => {
                let most = most.as_secs();
                Err(format!("lifetimes.{field}: {own} is not between 1 and {most} seconds"))
            }
            own => Ok(own.map(Duration::from_secs)),
        };
        let most = Lifetimes::default();
        let mut lifetimes = ClientLifetimes::default();
        lifetimes.access_token = within("access_token", self.access_token, most.access_token)?;
        lifetimes.refresh_idle = within("refresh_idle", self.refresh_idle, most.refresh_idle)?;
        lifetimes.grant = within("grant", self.grant, most.grant)?;
        Ok(lifetimes)
    }
}

/// Redirect URIs and resources are absolute and have no fragment (RFC 6749 §3.1.2, RFC 8707 §2).
fn absolute<'a>(field: &str, uri: &'a str) -> Result<&'a str, String> {
    match Url::parse(uri) {
        Ok(url) if url.fragment().is_none() => Ok(uri),
        _ => Err(format!("{field}: `{uri}` is not an absolute URI without a fragment")),
    }
}

/// 32 bytes in hex (64 digits) or base64url (43 characters).
fn sha256(text: &str) -> Option<[u8; 32]> {
    let bytes = if text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let digits = (0..64).step_by(2).map(|at| text.get(at..at + 2));
        digits.map(|two| u8::from_str_radix(two?, 16).ok()).collect::<Option<Vec<u8>>>()?
    } else {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"
        [[client]]
        id = "app"
        grant_types = ["authorization_code"]
        redirect_uris = ["https://app.example/cb"]
        audiences = [{ resource = "https://orders.example", format = "opaque" }]
    "#;
    const SECRET: &str = "secret = \"a-secret-of-the-test-0123456789\"";

    #[test]
    fn pkce_is_needed_unless_the_file_says_otherwise() -> Result<(), Failure> {
        for (more, required) in [("", true), ("pkce = true", true), ("pkce = false", false)] {
            let clients = clients(&format!("{ENTRY}\n{SECRET}\n{more}"), "test")?;
            assert_eq!(clients[0].requires_pkce(), required, "{more}");
        }
        let public = clients(&format!("{ENTRY}\npublic = true\npkce = false"), "test");
        assert!(public.is_err_and(|error| error.to_string().contains("PKCE")));
        Ok(())
    }

    #[test]
    fn a_client_may_name_the_algorithm_of_its_jwts() -> Result<(), Failure> {
        let named =
            |name: &str| clients(&format!("{ENTRY}\n{SECRET}\njwt_algorithm = \"{name}\""), "test");
        let algorithm = named("RS256")?[0].jwt_algorithm().map(|algorithm| algorithm.to_string());
        assert_eq!(algorithm.as_deref(), Some("RS256"));
        assert!(named("none").is_err_and(|error| error.to_string().contains("jwt_algorithm")));
        Ok(())
    }

    #[test]
    fn a_resource_that_no_request_can_name_is_refused() {
        for resource in ["orders", "https://orders.example#a", "https://orders.example/a b"] {
            let entry = ENTRY.replace("https://orders.example", resource);
            let refused = clients(&format!("{entry}\n{SECRET}"), "test");
            assert!(refused.is_err(), "{resource}");
        }
    }

    /// What the guides tell users to type.
    #[cfg(all(feature = "mysql", feature = "postgres", feature = "redis"))]
    #[test]
    fn the_command_lines_of_the_guides_are_understood() -> Result<(), Failure> {
        let mut found = 0;
        for page in [
            "README.md",
            "docs/curl.md",
            "docs/mcp.md",
            "docs/mysql.md",
            "docs/operations.md",
            "docs/postgresql.md",
            "docs/redis.md",
            "examples/README.md",
            "examples/nginx/README.md",
        ] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
            let text = std::fs::read_to_string(path)?.replace("\\\n", " ");
            for line in text.lines() {
                let Some((_, arguments)) = line.split_once("--example authorization_server -- ")
                else {
                    continue;
                };
                found += 1;
                // The shell's quotes, and its comments.
                let arguments = arguments.split('#').next().unwrap_or_default().replace('\'', "");
                let words =
                    std::iter::once("authorization_server").chain(arguments.split_whitespace());
                Options::try_parse_from(words)
                    .map_err(|error| format!("{page}: {line}: {error}"))?;
            }
        }
        assert!(found >= 6, "{found}");
        Ok(())
    }
}
