//! A shop with its own users: sign-in, consent, a page that lists the user's devices, bans, an API and a browser
//! app, in one program.
//!
//! ```text
//! cargo run --release --example shop -- [ADDRESS [URL]]
//! ```
//!
//! It prints its URL and two users, and forgets everything when it ends. Before you put it on the
//! Internet, keep users and tokens in files (`Shop::open`), put a proxy that terminates TLS in front (the
//! second argument is the URL that browsers then use), and limit how often one address may send `/sign-in`.
//!
//! ```toml
//! [dependencies]
//! argon2 = "0.6"
//! axum = { version = "0.8", default-features = false, features = ["http1", "tokio", "json", "form"] }
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["resource"] }
//! minijinja = { version = "3", features = ["serde"] }
//! rusqlite = { version = "0.41", features = ["bundled"] }
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "net", "signal"] }
//! tracing = "0.1"
//! tracing-subscriber = "0.3"
//! ```

mod pages;
#[cfg(test)]
mod tests;
mod users;

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::core::Random;
use cloakroom::http::Endpoints;
use cloakroom::resource::VerifiedToken;
use cloakroom::{Client, Format, GrantType, Issuer, NewToken, TokenChanges, TokenHookError};
use minijinja::Environment;

use crate::pages::Answer;
use crate::users::Users;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or("127.0.0.1:9000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let url = arguments.next().unwrap_or(format!("http://{}", listener.local_addr()?));
    let shop = Shop::open(&url).await?;
    println!("The shop is open at {url}");
    for (name, is_admin) in [("alice", false), ("admin", true)] {
        if shop.users.find(name)?.is_none() {
            let password = format!("{:016x}", u64::from_ne_bytes(Random::system().array()?));
            shop.users.add(name, &password, is_admin).await?;
            println!("  {name}, password {password}");
        }
    }
    let issuer = shop.issuer.clone();
    tokio::spawn(async move { issuer.run_maintenance().await });
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    Ok(cloakroom::http::serve(listener, shop.router()?).graceful_shutdown(stop).await?)
}

/// What every page needs.
#[derive(Debug, Clone)]
struct Shop {
    issuer: Issuer,
    users: Users,
    pages: Arc<Environment<'static>>,
}

impl FromRef<Shop> for Issuer {
    fn from_ref(shop: &Shop) -> Self {
        shop.issuer.clone()
    }
}

impl Shop {
    async fn open(url: &str) -> Result<Self, Error> {
        // Here, users and tokens are in memory. Give a path to keep the users. `../store.rs` shows an
        // issuer that keeps its tokens.
        let users = Users::open(None)?;
        let app = Client::public("shop")
            .name("Corner Shop")
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri(format!("{url}/callback"))
            .scope("orders:read orders:write")
            .audience(&format!("{url}/orders"), Format::Opaque);
        let hook = users.clone();
        let issuer = Issuer::dev()
            .url(url)
            .static_clients([app])?
            .on_token(move |token| not_banned(hook.clone(), token))
            .build()
            .await?;
        Ok(Self { issuer, users, pages: Arc::new(pages::templates()?) })
    }

    fn router(self) -> Result<Router, Error> {
        let url = self.issuer.url();
        let read = self.issuer.protect(&format!("{url}/orders")).require_scope("orders:read")?;
        let write = self.issuer.protect(&format!("{url}/orders")).require_scope("orders:write")?;
        let api = Router::new().route("/orders", get(orders)).route_layer(read);
        let api = api.merge(Router::new().route("/orders", post(order)).route_layer(write));
        let endpoints = Endpoints::new(self.issuer.clone())
            .authorization_page(&format!("{url}/authorize"))
            .keep_user_agents();
        let app = Router::new()
            .route("/", get(async || asset("text/html", include_str!("pages/index.html"))))
            .route("/callback", get(async || asset("text/html", include_str!("pages/index.html"))))
            .route("/app.js", get(async || asset("text/javascript", include_str!("pages/app.js"))))
            .route("/style.css", get(async || asset("text/css", include_str!("pages/style.css"))));
        Ok(app.merge(api).merge(pages::router()).with_state(self).merge(endpoints.router()))
    }
}

/// Is called at every sign-in and at every token. A ban also ends the sessions; this refuses what is
/// under way.
async fn not_banned(users: Users, token: NewToken) -> Result<TokenChanges, TokenHookError> {
    match users.find(token.user().unwrap_or_default()).map_err(TokenHookError::failed)? {
        Some(user) if !user.is_banned => Ok(TokenChanges::none()),
        _ => Err(TokenHookError::refuse("the user is banned")),
    }
}

/// A file of the browser app.
fn asset(kind: &'static str, text: &'static str) -> Response {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  frame-ancestors 'none'; base-uri 'none'";
    let kind = (header::CONTENT_TYPE, format!("{kind}; charset=utf-8"));
    ([kind], [(header::CONTENT_SECURITY_POLICY, policy)], text).into_response()
}

// --- The API ----------------------------------------------------------------------------------

async fn orders(State(shop): State<Shop>, token: VerifiedToken) -> Answer {
    let Some(user) = token.user() else { return Ok(StatusCode::FORBIDDEN.into_response()) };
    Ok(Json(shop.users.orders(user)?).into_response())
}

async fn order(State(shop): State<Shop>, token: VerifiedToken, Json(item): Json<String>) -> Answer {
    let Some(user) = token.user() else { return Ok(StatusCode::FORBIDDEN.into_response()) };
    shop.users.order(user, &item)?;
    Ok(StatusCode::CREATED.into_response())
}
