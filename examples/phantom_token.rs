//! The phantom token pattern, end to end, over real sockets of this machine.
//!
//! ```text
//!             opaque token                     JWT
//!    client ───────────────▶ API gateway ─────────────▶ orders service
//!      │                          │                           │
//!      │ code, refresh token      │ swap the token            │ fetch the JWK Set, once
//!      └─────────────────▶ authorization server ◀─────────────┘
//! ```
//!
//! Outside, a token is a ticket that says nothing and can be revoked at once; inside, it is a
//! short-lived JWT that every service verifies on its own.
//!
//! `cargo run --example phantom_token` plays all four parts, tells step by step who says what to
//! whom, and fails with the step's name if anything is not as it should be. In a package of your
//! own it needs:
//!
//! ```toml
//! [dependencies]
//! async-trait = "0.1"
//! axum = "0.8"
//! base64 = "0.23"
//! cloakroom = { git = "https://github.com/cloakroom-rs/cloakroom", features = ["resource"] }
//! hyper-util = { version = "0.1", features = ["client-legacy", "http1", "tokio"] }
//! reqwest = { version = "0.13", default-features = false, features = ["form"] }
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! sha2 = "0.11"
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread", "sync"] }
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::Response;
use axum::routing::any;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::{
    Advance, Advanced, Audience, Clock, Created, Cursor, GrantId, GrantRecord, Housekeeping,
    Listing, Lookup, Maintained, ManualClock, Page, Random, Revocation, RevocationBatch, Revoked,
    RuleKey, Rules, Selector, StoreError, Subject, SystemClock, TokenDigest, TokenRecord,
    TokenStore, UnixTime, Wakeups,
};
use cloakroom::http::Endpoints;
use cloakroom::memory::MemoryStore;
use cloakroom::resource::{
    BearerLayer, ClientCredentials, IntrospectionClient, PhantomLayer, VerifiedToken, Verifier,
};
use cloakroom::{Client, Format, Grant, GrantType, Issuer, Lifetimes, Pkce, Serves};
use hyper_util::client::legacy::Client as ProxyClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;

/// The name of the API that tokens are meant for (RFC 8707). Not where it listens.
const ORDERS: &str = "https://orders.example";
/// How long a spent refresh token still brings its successor. The default is 30 seconds.
const RETRY_WINDOW: Duration = Duration::from_secs(1);
/// A redirect URI of this machine matches with any port.
const CALLBACK: &str = "http://127.0.0.1/callback";
const WEB_APP: [&str; 2] = ["web-app", "web-app-demo-secret-0123456789"];
const ORDERS_API: [&str; 2] = ["orders-api", "orders-api-demo-secret-0123456789"];
const GATEWAY: [&str; 2] = ["gateway", "gateway-demo-secret-0123456789"];
/// What an API answers.
const LET_IN: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;
type Answer = (StatusCode, String);
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Tells what happens.
macro_rules! note {
    ($($text:tt)*) => { println!("   {}", format_args!($($text)*)) };
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut demo = Demo::start().await?;
    if let Err(error) = demo.play().await {
        eprintln!("\nthe flow fails at step {}", demo.step);
        return Err(error);
    }
    println!("\nphantom token flow: ok");
    Ok(())
}

struct Demo {
    issuer: Issuer,
    store: Arc<CountingStore>,
    clock: Arc<ManualClock>,
    gateway: String,
    orders: String,
    http: reqwest::Client,
    step: &'static str,
}

impl Demo {
    async fn play(&mut self) -> Outcome<()> {
        self.step("1. Alice signs in; the client redeems a code for tokens");
        let tokens = self.sign_in("client").await?;
        let opaque = tokens.access_token.starts_with("cr_at_");
        ensure(opaque, "the access token is opaque")?;
        note!("To the client both tokens are tickets: there is nothing in them to read.");

        self.step("2. The client calls the API through the gateway");
        self.call_through_the_gateway(&tokens).await?;

        self.step("3. Past the gateway, the opaque token opens nothing");
        self.get("client", "orders", &tokens, REFUSED).await?;
        note!("The service takes JWTs alone, and those never leave the inside.");

        self.step("4. A token with one character changed never reaches the store");
        let mut forged = tokens.clone();
        let ends_in_a = forged.access_token.pop() == Some('A');
        forged.access_token.push(if ends_in_a { 'Q' } else { 'A' });
        let before = self.store.calls();
        self.get("client", "gateway", &forged, REFUSED).await?;
        let after = self.store.calls();
        ensure(before == after, "the store is not asked about a forgery")?;
        note!("Calls of the store: {before} before, {after} after. The token's tag is wrong:");
        note!("nobody looks it up, and a flood of junk never reaches the database.");

        self.step("5. The client refreshes; the response is lost; it tries again");
        let lost = self.refresh("client", &tokens).await?;
        note!("The connection breaks: nobody reads that answer. The client sends the same again:");
        let found = self.refresh("client", &tokens).await?;
        let (lost, found) = lost.zip(found).ok_or("a refresh token is refused")?;
        let same = lost.refresh_token == found.refresh_token;
        ensure(same, "a retry brings the same successor")?;
        note!("The same successor: no session is lost, and still there is only one.");
        self.get("client", "gateway", &found, LET_IN).await?;

        self.step("6. The old refresh token is replayed later, and ends the grant");
        let skew = self.issuer.keys().policy().clock_skew;
        self.clock.advance(RETRY_WINDOW + skew);
        note!("The retry window ({RETRY_WINDOW:?}, and {skew:?} that clocks may differ) is over.");
        note!("A copy of the client's data, stolen or restored, is used:");
        let replayed = self.refresh("copy", &tokens).await?;
        ensure(replayed.is_none(), "a spent refresh token is refused")?;
        note!("Which of the two is the thief? To be safe, all that hangs off the grant ends:");
        self.get("client", "gateway", &found, REFUSED).await?;
        let newest = self.refresh("client", &found).await?;
        ensure(newest.is_none(), "the newest refresh token is dead, too")?;

        self.step("7. A signing key is rotated while requests go on");
        let tokens = self.sign_in("client").await?;
        self.rotate_under_load(&tokens).await?;

        self.step("8. Alice logs out everywhere");
        let phone = self.sign_in("phone").await?;
        self.get("phone", "gateway", &phone, LET_IN).await?;
        let answer = self.introspect(&tokens).await?;
        let active = answer.starts_with(r#"{"active":true,"#);
        ensure(active, "the token is active so far")?;
        self.issuer.revoke_subject(&Subject::user("alice")?).await?;
        note!("Alice clicks \"log out everywhere\". At the very next request:");
        self.get("phone", "gateway", &phone, REFUSED).await?;
        self.get("client", "gateway", &tokens, REFUSED).await?;

        self.step("9. What introspection says of a token that is no more");
        let answer = self.introspect(&tokens).await?;
        note!("Not a word more, whatever the reason.");
        let exactly = answer.as_bytes() == br#"{"active":false}"#;
        ensure(exactly, r#"the answer is exactly {"active":false}"#)
    }

    async fn call_through_the_gateway(&self, tokens: &Tokens) -> Outcome<()> {
        let (sent, handle) = (r#"{"item":"coat hanger"}"#, short(&tokens.access_token));
        let request = self.http.post(format!("{}/orders?express=1", self.gateway));
        let request = request.bearer_auth(&tokens.access_token).body(sent);
        let said = format!("POST /orders?express=1  Bearer {handle}");
        let before = self.store.calls();
        let (status, report) = self.ask(["client", "gateway"], &said, request).await?;
        let asked = self.store.calls() - before;
        ensure(status == StatusCode::OK, "the request is let in")?;
        note!("The gateway swapped the token at the AS for a JWT (calls of the store: {asked}),");
        note!("and sent the request on with that. This is what the orders service saw:");
        let seen: Value = serde_json::from_str(&report)?;
        for line in format!("{seen:#}").lines() {
            note!("   {line}");
        }

        ensure(asked == 1, "a swap is one call of the store")?;
        let (header, claims) = (&seen["header"], &seen["claims"]);
        for (what, found, expected) in [
            ("request", &seen["request"], "POST /orders?express=1"),
            ("body", &seen["body"], sent),
            ("typ", &header["typ"], "at+jwt"),
            ("iss", &claims["iss"], self.issuer.url()),
            ("sub", &claims["sub"], "alice"),
            ("client_id", &claims["client_id"], WEB_APP[0]),
            ("aud", &claims["aud"], ORDERS),
            ("scope", &claims["scope"], "orders:read orders:write"),
            ("tenant", &claims["tenant"], "acme"),
        ] {
            ensure(found == expected, &format!("{what} is {expected}"))?;
        }
        Ok(())
    }

    async fn rotate_under_load(&self, tokens: &Tokens) -> Outcome<()> {
        note!("Four clients send one request after another through the gateway, all the time.");
        let (report, mut signed_by) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let request = self.orders_at(&self.gateway, tokens);
            clients.spawn(request_on_and_on(request, report.clone()));
        }
        let mut next = async || signed_by.recv().await.ok_or("the clients have stopped")?;

        let old = next().await?;
        for _ in 0..50 {
            ensure(next().await? == old, "one key signs before the rotation")?;
        }
        let before = self.published_keys().await?;
        self.issuer.rotate_keys().await?;
        let (mut by_old, mut by_new, mut new) = (51, 0, String::new());
        while by_new < 50 {
            match next().await? {
                kid if kid == old => by_old += 1,
                kid => (by_new, new) = (by_new + 1, kid),
            }
            ensure(by_old < 10_000, "the next key takes over")?;
        }
        let after = self.published_keys().await?;

        let (old, new) = (short(&old), short(&new));
        note!("The key {old} signed {by_old} of the JWTs, then {new} signed {by_new}.");
        note!("JWK Set before: {}", before.join("  "));
        note!("JWK Set after:  {}", after.join("  "));
        note!("A key is there before it signs, and as long as what it signed: no request failed.");
        ensure(before.contains(&new), "a key is published before it signs")?;
        ensure(after.contains(&old), "the old key stays published")
    }
}

// ----------------------------------------------------------------------------- the services

/// The authorization server: the endpoints of an [`Issuer`].
async fn authorization_server(
    url: &str,
    store: Arc<CountingStore>,
    clock: Arc<ManualClock>,
) -> Outcome<(Issuer, Router)> {
    let orders = Serves::Only(Audience::one(ORDERS)?);
    let clients = [
        Client::confidential(WEB_APP[0], WEB_APP[1])?
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri(CALLBACK)
            .scope("orders:read orders:write")?
            .audience(ORDERS, Format::Phantom)?,
        Client::resource_server(ORDERS_API[0], ORDERS_API[1], orders)?,
        Client::resource_server(GATEWAY[0], GATEWAY[1], Serves::Everything)?,
    ];
    let issuer = Issuer::dev()
        .url(url)
        .key_store(Arc::new(store.inner.clone()))
        .token_store(store)
        .static_clients(clients)?
        .lifetimes(Lifetimes { retry_window: RETRY_WINDOW, ..Lifetimes::default() })
        // So that nobody has to wait. Leave it out, and the time is the system's.
        .clock(clock)
        .build()
        .await?;
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    Ok((issuer.clone(), Endpoints::new(issuer).router()))
}

/// The API gateway: a reverse proxy behind [`PhantomLayer`].
async fn gateway(issuer: &str, orders: String) -> Outcome<Router> {
    let credentials = ClientCredentials::new(GATEWAY[0], GATEWAY[1]);
    let introspection = IntrospectionClient::discover(issuer, credentials).await?;
    let client = ProxyClient::builder(TokioExecutor::new()).build_http();
    Ok(Router::new()
        .fallback(forward)
        .layer(PhantomLayer::new(introspection, ORDERS))
        .with_state((client, orders)))
}

/// Sends a request on as it came, and the response back. Bodies are streamed.
async fn forward(
    State((client, upstream)): State<(ProxyClient<HttpConnector, Body>, String)>,
    mut request: Request,
) -> Result<Response, StatusCode> {
    let path = request.uri().path_and_query();
    let uri = format!("{upstream}{}", path.map_or("/", |path| path.as_str()));
    *request.uri_mut() = uri.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    *request.version_mut() = Version::HTTP_11;
    // The proxy's client sets its own, from the URI.
    request.headers_mut().remove(header::HOST);
    remove_hop_by_hop(request.headers_mut());
    let mut response = client.request(request).await.map_err(|error| {
        eprintln!("gateway: no answer from {upstream}: {error}");
        StatusCode::BAD_GATEWAY
    })?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(Body::new))
}

/// RFC 9110 §7.6.1: what `Connection` names, and what is about one connection alone, ends here.
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
async fn orders_service(issuer: &str) -> Outcome<Router> {
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

// ------------------------------------------------------------------------ the HTTP exchanges

/// The token response of RFC 6749 §5.1, as a client sees it.
#[derive(Clone, Deserialize)]
struct Tokens {
    access_token: String,
    refresh_token: String,
}

impl Demo {
    async fn start() -> Outcome<Self> {
        let store = Arc::new(CountingStore::default());
        let clock = Arc::new(ManualClock::at(SystemClock::new().now()));

        let (socket, url) = listen().await?;
        let (issuer, router) = authorization_server(&url, store.clone(), clock.clone()).await?;
        serve(socket, router);
        let (socket, orders) = listen().await?;
        serve(socket, orders_service(&url).await?);
        let (socket, gateway_url) = listen().await?;
        serve(socket, gateway(&url, orders.clone()).await?);

        note!("authorization server (AS)  {url}");
        note!("API gateway                {gateway_url}");
        note!("orders service             {orders}");
        let http = reqwest::Client::builder().no_proxy();
        let http = http.timeout(Duration::from_secs(30)).build()?;
        Ok(Self { issuer, store, clock, gateway: gateway_url, orders, http, step: "" })
    }

    fn step(&mut self, title: &'static str) {
        println!("\n{title}\n");
        self.step = title;
    }

    /// The login page makes a code, in process; the client redeems it, over HTTP.
    async fn sign_in(&self, who: &str) -> Outcome<Tokens> {
        let verifier = URL_SAFE_NO_PAD.encode(Random::system().array::<32>()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let grant = Grant::user(WEB_APP[0], "alice")?.claim("tenant", json!("acme"))?;
        let pkce = Some(Pkce::s256(challenge)?);
        let code = self.issuer.authorize(grant, CALLBACK, pkce).await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", &verifier),
        ];
        let tokens = self.token_request(who, &form).await?;
        Ok(tokens.ok_or("the code is refused")?)
    }

    async fn refresh(&self, who: &str, tokens: &Tokens) -> Outcome<Option<Tokens>> {
        let token = &tokens.refresh_token;
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.token_request(who, &form).await
    }

    /// `None` if the code or the refresh token is refused.
    async fn token_request(&self, who: &str, form: &[(&str, &str)]) -> Outcome<Option<Tokens>> {
        let said = format!("POST /token  {}={}", form[1].0, short(form[1].1));
        let request = self.post("/token", WEB_APP).form(form);
        match self.ask([who, "AS"], &said, request).await? {
            (StatusCode::OK, body) => Ok(Some(serde_json::from_str(&body)?)),
            (StatusCode::BAD_REQUEST, body) if body == r#"{"error":"invalid_grant"}"# => Ok(None),
            (status, body) => Err(format!("{status} {body} for {}", form[0].1).into()),
        }
    }

    async fn introspect(&self, tokens: &Tokens) -> Outcome<String> {
        let said = format!("POST /introspect  token={}", short(&tokens.access_token));
        let request = self.post("/introspect", ORDERS_API);
        let request = request.form(&[("token", &tokens.access_token)]);
        let (status, body) = self.ask(["orders", "AS"], &said, request).await?;
        ensure(status == StatusCode::OK, "introspection answers 200")?;
        Ok(body)
    }

    fn post(&self, path: &str, [id, secret]: [&str; 2]) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.issuer.url()));
        request.basic_auth(id, Some(secret))
    }

    fn orders_at(&self, base: &str, tokens: &Tokens) -> RequestBuilder {
        let request = self.http.get(format!("{base}/orders"));
        request.bearer_auth(&tokens.access_token)
    }

    async fn get(&self, who: &str, at: &str, tokens: &Tokens, expected: StatusCode) -> Outcome<()> {
        let base = match at {
            "orders" => &self.orders,
            _ => &self.gateway,
        };
        let said = format!("GET /orders  Bearer {}", short(&tokens.access_token));
        let answer = self.ask([who, at], &said, self.orders_at(base, tokens));
        let what = format!("the {at} answers {who} {expected}");
        ensure(answer.await?.0 == expected, &what)
    }

    /// Sends a request, tells who said what to whom, and returns the answer.
    async fn ask(&self, [who, at]: [&str; 2], said: &str, it: RequestBuilder) -> Outcome<Answer> {
        note!("{who:>7} -> {at:<7}  {said}");
        let response = it.send().await?;
        let status = response.status();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        let body = response.text().await?;
        let answer = match challenge {
            Some(challenge) => challenge.to_str()?.to_owned(),
            None => shown(&body),
        };
        note!("{at:>7} -> {who:<7}  {status}  {answer}");
        Ok((status, body))
    }

    /// The key ids of the JWK Set, cut short.
    async fn published_keys(&self) -> Outcome<Vec<String>> {
        let url = format!("{}/.well-known/jwks.json", self.issuer.url());
        let set: Value = serde_json::from_str(&self.http.get(url).send().await?.text().await?)?;
        let keys = set["keys"].as_array().ok_or("the JWK Set has no keys")?;
        let kids = keys.iter().filter_map(|key| key["kid"].as_str());
        Ok(kids.map(short).collect())
    }
}

/// Sends a request again and again, and reports which key had signed the JWT that arrived.
async fn request_on_and_on(request: RequestBuilder, report: UnboundedSender<Outcome<String>>) {
    let once = async || -> Outcome<String> {
        let again = request.try_clone().ok_or("it cannot be sent twice")?;
        let response = again.send().await?.error_for_status()?;
        let seen: Value = serde_json::from_str(&response.text().await?)?;
        let kid = seen["header"]["kid"].as_str().ok_or("the JWT has no kid")?;
        Ok(kid.to_owned())
    };
    while report.send(once().await).is_ok() {}
}

// --------------------------------------------------------------------- the store that counts

/// Counts the calls that requests cause, not the work of [`Issuer::run_maintenance`].
#[derive(Debug, Default)]
struct CountingStore {
    inner: MemoryStore,
    calls: AtomicU64,
}

impl CountingStore {
    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn counted(&self) -> &MemoryStore {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.inner
    }
}

#[async_trait]
impl TokenStore for CountingStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<Created, StoreError> {
        self.counted().create(grant, tokens).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.counted().find(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<Advanced, StoreError> {
        self.counted().advance(step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.counted().revoke(revocation).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.counted().rules(keys).await
    }

    async fn list(&self, of: Selector, page: Page, now: UnixTime) -> Result<Listing, StoreError> {
        self.counted().list(of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.counted().revocations(after, limit).await
    }

    fn wakeups(&self) -> Wakeups {
        self.inner.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.inner.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<Maintained, StoreError> {
        self.inner.maintain(task).await
    }
}

fn ensure(holds: bool, what: &str) -> Outcome<()> {
    let missed = || format!("it does not hold that {what}").into();
    holds.then_some(()).ok_or_else(missed)
}

/// A JSON text with its tokens cut short; nobody reads all of a long one.
fn shown(json: &str) -> String {
    let text = json.split('"').map(short).collect::<Vec<_>>().join("\"");
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// Enough of a token to know it again, and too little to use it.
fn short(token: &str) -> String {
    match (token.get(..12), token.get(token.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) if token.len() > 40 => format!("{start}…{end}"),
        _ => token.to_owned(),
    }
}

async fn listen() -> Outcome<(TcpListener, String)> {
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", socket.local_addr()?);
    Ok((socket, url))
}

fn serve(socket: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(socket, router).await });
}
