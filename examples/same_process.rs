//! An app with its own users, its own API and its own authorization server, in one process: sign-in with
//! consent, current roles in every token, a route that demands a second factor, and a page that lists the user's
//! devices.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["resource"] }
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! tower = { version = "0.5", features = ["util"] }
//! url = "2"
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cloakroom::http::Endpoints;
use cloakroom::resource::Token;
use cloakroom::{
    AuthorizationError, AuthorizationRequest, Client, Device, Format, GrantType, Issuer, NewToken,
    Subject, TokenChanges, TokenHookError,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const ORDERS: &str = "https://orders.example";
const MFA: &str = "urn:example:mfa";

// --- The authorization server -----------------------------------------------------------------

/// The page that the app sends its users to. This one signs Alice in without asking.
async fn authorize(request: AuthorizationRequest) -> Result<Response, AuthorizationError> {
    let (app, host) = (request.client_name(), request.redirect_host());
    println!("  page: {app} (at {host}) wants: {}", request.scope());
    let sealed = request.seal_for(b"alice's session")?;
    Ok(sealed.into_response())
}

#[derive(Deserialize)]
struct Consent {
    request: String,
    browser: String,
}

/// Alice has consented.
async fn consent(
    State(issuer): State<Issuer>,
    Query(form): Query<Consent>,
) -> Result<Response, AuthorizationError> {
    let request = issuer.open_authorization_request_for(&form.request, b"alice's session").await?;
    // If the app needs a second factor, ask for it here.
    let acr = if request.acr_values().any(|acr| acr == MFA) { MFA } else { "urn:example:pwd" };
    let grant = request
        .grant("alice")
        .and_then(|grant| grant.auth_time(issuer.clock().now()).acr(acr))
        .and_then(|grant| Ok(grant.device(Device::new([("name", &*form.browser)])?)))
        .and_then(|grant| grant.on_device(&form.browser));
    let Ok(grant) = grant else { return Ok(request.deny().await?.into_response()) };
    Ok(request.approve(grant).await?.into_response())
}

/// The roles of today, for every new token.
async fn roles(token: NewToken) -> Result<TokenChanges, TokenHookError> {
    match token.subject().id() {
        "alice" => Ok(TokenChanges::none().claim("roles", json!(["customer"]))),
        _ => Err(TokenHookError::refuse("not one of our users")),
    }
}

async fn issuer() -> Result<Issuer, Box<dyn Error>> {
    let shop = Client::public("shop")
        .name("The shop")
        .uri("https://shop.example")
        .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
        .redirect_uri("https://shop.example/callback")
        .scope("orders:read orders:write")
        .audience(ORDERS, Format::Opaque);
    Ok(Issuer::dev().static_clients([shop])?.on_token(roles).build().await?)
}

// --- The API ----------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Claims {
    roles: Vec<String>,
}

async fn orders(token: Token<Claims>) -> String {
    let who = token.subject().map_or("nobody", Subject::id);
    format!("the orders of {who}, a {}", token.claims.roles.join(", "))
}

async fn pay() -> &'static str {
    "paid"
}

fn app(issuer: &Issuer) -> Result<Router, Box<dyn Error>> {
    let bearer = issuer.protect(ORDERS).require_scope("orders:read")?;
    let paying = bearer.clone().require_auth(Duration::from_secs(300), MFA)?;
    let endpoints = Endpoints::new(issuer.clone())
        .authorization_page("http://127.0.0.1:9000/authorize")
        .keep_user_agents();
    Ok(Router::new()
        .route("/authorize", get(authorize).post(authorize))
        .route("/consent", post(consent))
        .with_state(issuer.clone())
        .merge(Router::new().route("/orders", get(orders)).route_layer(bearer))
        .merge(Router::new().route("/pay", get(pay)).route_layer(paying))
        .merge(endpoints.router()))
}

// --- What a browser does ------------------------------------------------------------------------

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = issuer().await?;
    let app = app(&issuer)?;
    let alice = Subject::user("alice")?;

    println!("Alice signs in with Firefox:");
    let tokens = sign_in(&app, "Firefox", "").await?;
    println!("  orders: {}", call(&app, "/orders", &tokens).await?.1);

    println!("Paying needs a second factor:");
    let (status, challenge) = call(&app, "/pay", &tokens).await?;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    println!("  {challenge}");
    let more = format!("&acr_values={MFA}&max_age=300");
    let stronger = sign_in(&app, "Firefox", &more).await?;
    assert_eq!(call(&app, "/pay", &stronger).await?, (StatusCode::OK, "paid".into()));
    assert_eq!(call(&app, "/orders", &tokens).await?.0, StatusCode::UNAUTHORIZED);
    println!("  paid; the new session has replaced the old one of this browser");

    println!("Alice signs in with Safari, and looks at her devices:");
    let safari = sign_in(&app, "Safari", "").await?;
    let devices = issuer.sessions(&alice).await?;
    for session in &devices {
        let name = session.device.get("name").unwrap_or("unknown");
        println!("  {name}, last used at {}", session.last_used_at());
    }
    let here = devices.iter().find(|session| session.device.get("name") == Some("Safari"));
    let here = here.ok_or("Safari is one of them")?.grant;
    let ended = issuer.revoke_other_sessions(&alice, here).await?;
    assert_eq!(call(&app, "/orders", &stronger).await?.0, StatusCode::UNAUTHORIZED);
    assert_eq!(call(&app, "/orders", &safari).await?.0, StatusCode::OK);
    println!("  logged out everywhere else: {ended} session");
    println!("same process: ok");
    Ok(())
}

/// Goes through the pages, and redeems the code: the access token.
async fn sign_in(app: &Router, browser: &str, more: &str) -> Result<String, Box<dyn Error>> {
    // The pair of RFC 7636 appendix B. A real app makes a new one each time.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let asked = format!(
        "/authorize?response_type=code&client_id=shop&scope=orders:read&state=xyz{more}\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
    );
    let page = send(app, Request::get(asked), "").await?;
    let consent = format!("/consent?request={}&browser={browser}", text(page).await?);
    let redirect = send(app, Request::post(consent), "").await?;
    let location = redirect.headers()[header::LOCATION].to_str()?.parse::<url::Url>()?;
    let code = location.query_pairs().find(|(name, _)| name == "code").ok_or("a code")?.1;
    let form = format!(
        "grant_type=authorization_code&client_id=shop&code={code}&code_verifier={verifier}"
    );
    let request = Request::post("/token")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::USER_AGENT, browser);
    let tokens: Value = serde_json::from_str(&text(send(app, request, &form).await?).await?)?;
    Ok(tokens["access_token"].as_str().ok_or("an access token")?.to_owned())
}

/// The status of a call, and its body, or the challenge of the API.
async fn call(
    app: &Router,
    path: &str,
    token: &str,
) -> Result<(StatusCode, String), Box<dyn Error>> {
    let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let response = send(app, request, "").await?;
    let status = response.status();
    if let Some(challenge) = response.headers().get(header::WWW_AUTHENTICATE) {
        return Ok((status, challenge.to_str()?.to_owned()));
    }
    Ok((status, text(response).await?))
}

async fn send(
    app: &Router,
    request: axum::http::request::Builder,
    body: &str,
) -> Result<Response, Box<dyn Error>> {
    Ok(app.clone().oneshot(request.body(Body::from(body.to_owned()))?).await?)
}

async fn text(response: Response) -> Result<String, Box<dyn Error>> {
    let body = axum::body::to_bytes(response.into_body(), 100_000).await?;
    Ok(String::from_utf8(body.to_vec())?)
}
