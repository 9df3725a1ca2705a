//! The authorization endpoint of an app over HTTP, with axum.

use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use cloakroom::http::Endpoints;
use cloakroom::{
    AuthorizationRequest, Client, ExtensionGrant, ExtensionRequest, ExtensionResponse, Format,
    Grant, GrantType, Issuer, IssuerBuilder, PageError, Subject, TokenChanges, TokenHookError,
};
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::server::{CHALLENGE, ORDERS, REDIRECT, SECRET, VERIFIER};

const CARD: &str = "urn:example:card";

fn builder() -> IssuerBuilder {
    let app = Client::public("app")
        .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
        .redirect_uri(REDIRECT)
        .scope("orders:read")
        .audience(ORDERS, Format::Opaque);
    let confidential = |id| Client::confidential(id, SECRET).audience(ORDERS, Format::Opaque);
    let reader = confidential("reader").extension_grant(CARD).scope("doors:open");
    Issuer::dev().static_clients([app, reader, confidential("other")]).unwrap()
}

async fn authorize(
    State(_): State<Issuer>,
    request: AuthorizationRequest,
) -> Result<cloakroom::AuthorizationRedirect, PageError> {
    let grant = request.grant("alice").unwrap();
    request.approve(grant).await
}

/// An app with its authorization endpoint and the library's endpoints.
async fn server(issuer: &Issuer) -> Router {
    let endpoints = Endpoints::new(issuer.clone())
        .authorization_page("http://127.0.0.1:9000/authorize")
        .keep_user_agents();
    Router::new()
        .route("/authorize", get(authorize).post(authorize))
        .with_state(issuer.clone())
        .merge(endpoints.router())
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn send(server: &Router, request: http::request::Builder, body: &str) -> Reply {
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 100_000).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Reply { status: parts.status, headers: parts.headers, body }
}

fn form(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/x-www-form-urlencoded")
}

fn query() -> String {
    format!(
        "response_type=code&client_id=app&redirect_uri={REDIRECT}&state=s\
         &code_challenge={CHALLENGE}&code_challenge_method=S256"
    )
}

fn code_in(reply: &Reply) -> String {
    let url = reply.headers["location"].to_str().unwrap();
    url.split(['?', '&']).find_map(|part| part.strip_prefix("code=")).unwrap().to_owned()
}

#[tokio::test]
async fn a_request_comes_by_get_or_post() {
    let issuer = builder().build().await.unwrap();
    let server = server(&issuer).await;
    let by_get = send(&server, Request::get(format!("/authorize?{}", query())), "").await;
    // A POST is repeated by GET, with which a browser sends the cookies of the page.
    let repeat = send(&server, form("/authorize"), &query()).await;
    let location = repeat.headers["location"].to_str().unwrap();
    assert!(location.starts_with("?sealed=") && !location.contains("app"), "{location}");
    assert_eq!((repeat.status, &*repeat.body), (StatusCode::SEE_OTHER, ""));
    let again = Request::get(format!("/authorize{location}"));
    let by_post = send(&server, again, "").await;
    for reply in [&by_get, &by_post] {
        assert_eq!((reply.status, &*reply.body), (StatusCode::SEE_OTHER, ""));
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(reply.headers["referrer-policy"], "no-referrer");
        assert!(reply.headers["location"].is_sensitive());
        let redemption = format!(
            "grant_type=authorization_code&client_id=app&code_verifier={VERIFIER}&code={}",
            code_in(reply)
        );
        assert_eq!(send(&server, form("/token"), &redemption).await.status, 200);
    }
    // It is answered once, and cannot be changed.
    let uri = format!("/authorize{location}");
    for uri in [uri.clone(), format!("{uri}A"), "/authorize?sealed=".to_owned()] {
        let refused = send(&server, Request::get(uri), "").await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(!refused.headers.contains_key("location"));
    }
    // Beside other parameters, it is one that nobody knows (RFC 6749 §3.1).
    let both = Request::get(format!("/authorize?sealed=x&{}", query()));
    code_in(&send(&server, both, "").await);
    // The query of a POST is not read: of two requests, nobody knows which one counts.
    let pushed = send(&server, form(&format!("/authorize?{}", query())), "").await;
    assert_eq!((pushed.status, pushed.headers.get("location")), (StatusCode::BAD_REQUEST, None));
    let json = Request::post("/authorize").header("content-type", "application/json");
    assert_eq!(send(&server, json, &query()).await.status, StatusCode::BAD_REQUEST);
    let large = format!("{}&x={}", query(), "y".repeat(70_000));
    assert_eq!(send(&server, form("/authorize"), &large).await.status, 413);
}

#[tokio::test]
async fn a_wrong_request_by_post_is_answered_at_once() {
    let issuer = builder().build().await.unwrap();
    let server = server(&issuer).await;
    let back = send(&server, form("/authorize"), &format!("{}&scope=admin", query())).await;
    let location = back.headers["location"].to_str().unwrap();
    assert!(location.starts_with(&format!("{REDIRECT}?error=invalid_scope&")), "{location}");
}

#[tokio::test]
async fn a_wrong_request_is_answered_before_the_handler() {
    let issuer = builder().build().await.unwrap();
    let server = server(&issuer).await;
    let uri = format!("/authorize?{}", query().replace("app.example", "evil.example"));
    let page = send(&server, Request::get(uri), "").await;
    assert_eq!((page.status, page.headers.get("location")), (StatusCode::BAD_REQUEST, None));
    assert_eq!(page.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(page.headers["x-frame-options"], "DENY");
    assert!(!page.body.contains("evil") && page.body.contains("not registered"), "{}", page.body);

    let uri = format!("/authorize?{}&scope=admin", query());
    let back = send(&server, Request::get(uri), "").await;
    let location = back.headers["location"].to_str().unwrap();
    assert_eq!(back.status, StatusCode::SEE_OTHER);
    assert!(location.starts_with(&format!("{REDIRECT}?error=invalid_scope&")), "{location}");
    assert!(location.ends_with("&state=s&iss=http%3A%2F%2F127.0.0.1%3A9000"), "{location}");
}

#[tokio::test]
async fn a_response_by_form_runs_one_script() {
    let issuer = builder().build().await.unwrap();
    let server = server(&issuer).await;
    let uri = format!("/authorize?{}&response_mode=form_post", query());
    let page = send(&server, Request::get(uri), "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(page.body.contains("name=\"code\" value=\"cr_ac_"));
    // The digest of the script, as openssl computes it.
    assert_eq!(
        page.headers["content-security-policy"],
        "default-src 'none'; script-src 'sha256-ePniVEkSivX/c7XWBGafqh8tSpiRrKiqYeqbG7N1TOE='; base-uri 'none'; frame-ancestors 'none'"
    );
}

#[tokio::test]
async fn the_metadata_says_what_the_page_supports() {
    let issuer = builder().extension_grant(CARD, Card).build().await.unwrap();
    let server = server(&issuer).await;
    let metadata = Request::get("/.well-known/oauth-authorization-server");
    let metadata = send(&server, metadata, "").await.json();
    assert_eq!(metadata["response_modes_supported"], json!(["query", "form_post"]));
    assert_eq!(metadata["request_uri_parameter_supported"], json!(false));
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], json!(true));
    let grant_types = metadata["grant_types_supported"].as_array().unwrap();
    assert!(grant_types.contains(&json!(CARD)));
}

#[tokio::test]
async fn the_user_agent_is_kept_if_the_app_says_so() {
    let issuer = builder().build().await.unwrap();
    let alice = Subject::user("alice").unwrap();
    for (keeps, expected) in
        [(true, Some("Firefox/1".to_owned() + &"x".repeat(247))), (false, None)]
    {
        let endpoints = Endpoints::new(issuer.clone());
        let endpoints = if keeps { endpoints.keep_user_agents() } else { endpoints };
        let tokens = issuer.issue(Grant::user("app", "alice").unwrap()).await.unwrap();
        let refresh = format!(
            "grant_type=refresh_token&client_id=app&refresh_token={}",
            tokens.refresh_token.unwrap().expose()
        );
        let agent = format!("Firefox/1{}", "x".repeat(1_000));
        let request = form("/token").header("user-agent", agent);
        assert_eq!(send(&endpoints.router(), request, &refresh).await.status, 200);
        let sessions = issuer.sessions(&alice).await.unwrap();
        let session = sessions.iter().find(|session| session.grant == tokens.grant).unwrap();
        assert_eq!(session.device.get("user_agent").map(str::to_owned), expected);
    }
}

/// A card that a reader scans.
struct Card;

#[async_trait]
impl ExtensionGrant for Card {
    async fn grant(&self, request: ExtensionRequest) -> Result<ExtensionResponse, TokenHookError> {
        let grant = request.grant(Subject::user("alice")?)?;
        let granted = ExtensionResponse::from(grant);
        match request.parameter("card") {
            Some("good") => Ok(granted.member("card_state", json!("worn"))),
            Some("foreign") => Ok(Grant::user("app", "alice")?.into()),
            Some("reserved") => Ok(granted.member("access_token", json!("stolen"))),
            Some("slow") => std::future::pending().await,
            Some("broken") => Err(std::io::Error::other("no reader"))?,
            Some("panics") => panic!("the handler panics"),
            Some("denied") => Err(TokenHookError::refuse_with("access_denied", "lost")),
            _ => Err(TokenHookError::refuse("unknown card")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_extension_grant_is_for_its_clients_and_fails_closed() {
    let issuer = builder()
        .extension_grant(CARD, Card)
        .on_token(async |_| Ok(TokenChanges::none().claim("role", json!("guest"))))
        .build()
        .await
        .unwrap();
    let server = Endpoints::new(issuer.clone()).router();
    let scan = async |client: &str, grant_type: &str, more: &str| {
        let body = format!(
            "grant_type={grant_type}&client_id={client}&client_secret={SECRET}&card={more}"
        );
        let reply = send(&server, form("/token"), &body).await;
        let json = reply.json();
        (reply.status.as_u16(), json["error"].as_str().map(str::to_owned), json)
    };
    let (status, error, tokens) = scan("reader", CARD, "good&scope=doors:open").await;
    assert_eq!((status, error), (200, None));
    assert_eq!((&tokens["card_state"], &tokens["scope"]), (&json!("worn"), &json!("doors:open")));
    let token = cloakroom::TokenSecret::new(tokens["access_token"].as_str().unwrap());
    let answer = issuer.introspect(&token, cloakroom::Caller::Internal).await.unwrap();
    assert_eq!(answer.active().unwrap().extra["role"], json!("guest"));

    for (client, grant_type, more, status, code) in [
        ("other", CARD, "good", 400, "unauthorized_client"),
        ("reader", "urn:example:other", "good", 400, "unsupported_grant_type"),
        ("reader", CARD, "", 400, "invalid_grant"),
        ("reader", CARD, "denied", 400, "access_denied"),
        ("reader", CARD, "good&scope=admin", 400, "invalid_scope"),
        ("reader", CARD, "good&resource=https://evil.example", 400, "invalid_target"),
        ("reader", CARD, "good&resource=x", 400, "invalid_target"),
        ("reader", CARD, "foreign", 503, "temporarily_unavailable"),
        ("reader", CARD, "reserved", 503, "temporarily_unavailable"),
        ("reader", CARD, "slow", 503, "temporarily_unavailable"),
        ("reader", CARD, "broken", 503, "temporarily_unavailable"),
        ("reader", CARD, "panics", 503, "temporarily_unavailable"),
    ] {
        let (found, error, body) = scan(client, grant_type, more).await;
        assert_eq!((found, error.as_deref()), (status, Some(code)), "{client} {grant_type} {more}");
        assert_eq!(body.get("access_token"), None);
    }
}

#[tokio::test]
async fn extension_grants_have_uris_of_their_own() {
    for types in [vec!["card"], vec![CARD, CARD], vec!["authorization_code"]] {
        let builder =
            types.iter().fold(builder(), |builder, one| builder.extension_grant(*one, Card));
        assert!(builder.build().await.is_err(), "{types:?}");
    }
    let limit = Duration::from_secs(30);
    assert!(builder().extension_grant(CARD, Card).on_token_timeout(limit).build().await.is_ok());
}
