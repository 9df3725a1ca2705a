//! The phantom token pattern, end to end, over real sockets on this machine.
//!
//! ```text
//!             opaque token                     JWT
//!    client ───────────────▶ API gateway ─────────────▶ orders service
//!      │                          │                           │
//!      │ code, refresh token      │ swap the token            │ fetch the JWK Set, once
//!      └─────────────────▶ authorization server ◀─────────────┘
//! ```
//!
//! Outside, a token is opaque and can be revoked at once; inside, it is a short-lived JWT that
//! every service verifies locally.
//!
//! `cargo run --release --example phantom_token` runs all four parts, prints each exchange, and
//! fails with the step's name if something is wrong. A second gateway, the edge, caches tokens and
//! still refuses revoked ones; the example shows what that saves, and measures how long a
//! revocation takes to reach it. With `--store sqlite:demo.db`, grants and keys are in a file. Use
//! a new file for each run: the server listens on a free port, which makes it another issuer.
//!
//! Copy `services.rs`; the other files are the demonstration. A package of your own needs:
//!
//! ```toml
//! [dependencies]
//! async-trait = "0.1"
//! axum = "0.8"
//! base64 = "0.23"
//! clap = { version = "4", features = ["derive"] }
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["resource", "sqlite"] }
//! getrandom = "0.4"
//! hyper-util = { version = "0.1", features = ["client-legacy", "http1", "tokio"] }
//! reqwest = { version = "0.13", default-features = false, features = ["form"] }
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! sha2 = "0.11"
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread", "sync"] }
//! ```

/// Prints what happens.
macro_rules! note {
    ($($text:tt)*) => { println!("   {}", format_args!($($text)*)) };
}

mod counting;
mod exchange;
mod measured;
mod services;
#[path = "../store.rs"]
mod store;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use clap::Parser;
use cloakroom::Issuer;
use cloakroom::core::Subject;
use serde_json::Value;

use crate::counting::CountingStore;
use crate::exchange::{LET_IN, REFUSED, Tokens, ensure, short};
use crate::services::Ahead;
use crate::store::Store;

/// The name of the API that tokens are meant for (RFC 8707), not its address.
const ORDERS: &str = "https://orders.example";
/// How long a spent refresh token still returns its successor. The default is 30 seconds.
const RETRY_WINDOW: Duration = Duration::from_secs(1);
/// A loopback redirect URI matches with any port.
const CALLBACK: &str = "http://127.0.0.1/callback";
const WEB_APP: [&str; 2] = ["web-app", "web-app-demo-secret-0123456789"];
const ORDERS_API: [&str; 2] = ["orders-api", "orders-api-demo-secret-0123456789"];
const GATEWAY: [&str; 2] = ["gateway", "gateway-demo-secret-0123456789"];
/// How many JWTs the second gateway remembers.
const REMEMBERS: usize = 100_000;
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Runs the phantom token pattern on this machine, and prints what happens.
#[derive(Debug, Parser)]
struct Options {
    /// Where grants and keys are kept: `memory`, `sqlite:` and a file's path, or a server's URL
    #[arg(long, default_value = "memory", value_name = "STORE")]
    store: Store,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = play(&Options::parse().store).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
    ExitCode::FAILURE
}

async fn play(store: &Store) -> Outcome<()> {
    let mut demo = Demo::start(store).await?;
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
    clock: Arc<Ahead>,
    gateway: String,
    edge: String,
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
        note!("Both tokens are opaque: the client cannot read anything from them.");

        self.step("2. The client calls the API through the gateway");
        self.call_through_the_gateway(&tokens).await?;

        self.step("3. The API refuses the opaque token if it does not come through the gateway");
        self.get("client", "orders", &tokens, REFUSED).await?;
        note!("The service accepts only JWTs, and those never leave the internal network.");

        self.step("4. A token with one character changed never reaches the store");
        let mut forged = tokens.clone();
        let ends_in_a = forged.access_token.pop() == Some('A');
        forged.access_token.push(if ends_in_a { 'Q' } else { 'A' });
        let before = self.store.calls();
        self.get("client", "gateway", &forged, REFUSED).await?;
        let after = self.store.calls();
        ensure(before == after, "the store is not asked about a forgery")?;
        note!("Calls of the store: {before} before, {after} after. The token's tag is wrong,");
        note!("so it is not looked up: a flood of forged tokens never reaches the database.");

        self.step("5. The client refreshes; the response is lost; it tries again");
        let lost = self.refresh("client", &tokens).await?;
        note!("The connection breaks before the client has read the response. It tries again:");
        let found = self.refresh("client", &tokens).await?;
        let (lost, found) = lost.zip(found).ok_or("a refresh token is refused")?;
        let same = lost.refresh_token == found.refresh_token;
        ensure(same, "a retry gets the same successor")?;
        note!("The same successor: the session is not lost, and there is still only one.");
        self.get("client", "gateway", &found, LET_IN).await?;

        self.step("6. The old refresh token is replayed later, and ends the grant");
        let skew = self.issuer.keys().policy().clock_skew;
        self.clock.skip(RETRY_WINDOW + skew);
        note!("The retry window ({RETRY_WINDOW:?}, plus {skew:?} of clock skew) is over.");
        note!("A copy of the client's data, stolen or restored, is used:");
        let replayed = self.refresh("copy", &tokens).await?;
        ensure(replayed.is_none(), "a spent refresh token is refused")?;
        note!("Either of the two may be the thief, so the grant ends with all its tokens:");
        self.get("client", "gateway", &found, REFUSED).await?;
        let newest = self.refresh("client", &found).await?;
        ensure(newest.is_none(), "the newest refresh token is dead, too")?;

        self.step("7. A signing key is rotated during requests");
        let tokens = self.sign_in("client").await?;
        self.rotate_under_load(&tokens).await?;

        self.step("8. The edge, a second gateway, remembers tokens; 500 requests through each");
        self.compare_the_gateways(&tokens).await?;

        self.step("9. Tokens are revoked while the edge remembers them");
        self.revoke_what_is_remembered().await?;

        self.step("10. Alice logs out everywhere");
        let phone = self.sign_in("phone").await?;
        self.get("phone", "gateway", &phone, LET_IN).await?;
        self.get("phone", "edge", &phone, LET_IN).await?;
        let answer = self.introspect(&tokens).await?;
        let active = answer.starts_with(r#"{"active":true,"#);
        ensure(active, "the token is active so far")?;
        self.issuer.revoke_subject(&Subject::user("alice")?).await?;
        note!("Alice clicks \"log out everywhere\". At the very next request:");
        self.get("phone", "gateway", &phone, REFUSED).await?;
        self.get("client", "gateway", &tokens, REFUSED).await?;
        let (let_in, took) = self.until_refused_at_the_edge(&phone.access_token).await?;
        note!("The edge refuses her phone {took:.1?} later, after {let_in} requests.");

        self.step("11. Introspection of a revoked token");
        let answer = self.introspect(&tokens).await?;
        note!("The answer says nothing more, whatever the reason.");
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
        note!("The gateway swapped the token for a JWT at the AS (calls of the store: {asked}),");
        note!("and forwarded the request with the JWT. The orders service saw:");
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
}
