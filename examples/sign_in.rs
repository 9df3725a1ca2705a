//! `/authorize`: the page that signs users in. The library has no such page; this is a demo.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cloakroom::core::{Audience, ClientId, InvalidValue, Subject, TokenSecret};
use cloakroom::http::Form;
use cloakroom::{AuthorizationRequest, Client, Grant, Issuer, NonceError, Pkce, TokenError};

/// The authorization endpoint, under the issuer's path.
pub(crate) fn router(path: &str, issuer: Issuer) -> Router {
    Router::new()
        .route(&format!("{path}/authorize"), get(authorize).post(consented))
        .with_state(issuer)
}

/// The authorization endpoint (RFC 6749 §3.1). A real one signs the user in and asks for consent.
/// This one asks for consent only, and only if the client sends `prompt=consent`.
async fn authorize(State(issuer): State<Issuer>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    match checked(&issuer, &query).await {
        Ok(request) if request.form.get("prompt") == Some("consent") => consent(&issuer, &query),
        Ok(request) => answer(&issuer, request).await,
        Err((status, why)) => page(status, None, why),
    }
}

const CONSENT: &str = "consent";

/// A form that comes back to this endpoint once, within ten minutes. Its nonce is valid for this
/// request only, and is also in a cookie. A page of another site can make the browser send a form
/// (RFC 6749 §10.12), but it cannot set that cookie.
fn consent(issuer: &Issuer, query: &str) -> Response {
    const LIFE: Duration = Duration::from_secs(600);
    let nonce = match issuer.nonce(CONSENT, query.as_bytes(), LIFE) {
        Ok(nonce) => nonce,
        Err(error) => return page(StatusCode::SERVICE_UNAVAILABLE, None, error.to_string()),
    };
    let form = format!(
        "<!doctype html><title>Consent</title><form method=post>\
         <input type=hidden name=nonce value={nonce}><button>Allow</button></form>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // RFC 6749 §10.13: no other page may show it in a frame.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    let cookie =
        format!("{CONSENT}={nonce}; HttpOnly; SameSite=Strict; Max-Age={}", LIFE.as_secs());
    (headers, [(header::SET_COOKIE, cookie)], page(StatusCode::OK, None, form)).into_response()
}

/// The user has consented.
async fn consented(
    State(issuer): State<Issuer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query.unwrap_or_default();
    let request = match checked(&issuer, &query).await {
        Ok(request) => request,
        Err((status, why)) => return page(status, None, why),
    };
    let form = Form::parse(&body).ok();
    let nonce = form.as_ref().and_then(|form| form.get("nonce")).unwrap_or_default();
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let has_cookie = cookies
        .flat_map(|cookies| cookies.split("; "))
        .any(|cookie| cookie.split_once('=') == Some((CONSENT, nonce)));
    if !has_cookie {
        return page(StatusCode::FORBIDDEN, None, "this server did not make the form".into());
    }
    match issuer.use_nonce(CONSENT, query.as_bytes(), nonce).await {
        Ok(()) => answer(&issuer, request).await,
        Err(NonceError::Store(error)) => {
            tracing::error!(error = &error as &dyn Error, "a nonce could not be checked");
            page(StatusCode::SERVICE_UNAVAILABLE, None, "try again".into())
        }
        Err(refused) => page(StatusCode::FORBIDDEN, None, refused.to_string()),
    }
}

/// Sends the user back to the client, with a code or with an error.
async fn answer(issuer: &Issuer, request: Checked) -> Response {
    let Checked { form, client, redirect_uri } = request;
    let user = form.get("login_hint").unwrap_or("alice");
    let response = issuer.authorization_response(redirect_uri, form.get("state"));
    let answer = match form.get("response_type") {
        Some("code") => code(issuer, &client, user, &form).await,
        Some(_) => {
            let error = "unsupported_response_type";
            return found(response.error(error, "it must be code"), error.into());
        }
        None => Err(TokenError::InvalidRequest("response_type is missing")),
    };
    match answer {
        Ok(code) => found(
            response.code(&code).to_string(),
            format!("DEMO: signed in `{user}` without asking"),
        ),
        Err(error) => match response.refusal(&error) {
            Some(location) => found(location, error.to_string()),
            // The client was registered anew in this moment.
            None => page(StatusCode::BAD_REQUEST, None, error.to_string()),
        },
    }
}

/// An authorization request of a known client, and where its user is sent back to.
struct Checked {
    form: Form,
    client: Arc<Client>,
    redirect_uri: String,
}

/// The parameters, after the client and its redirect URI were checked. Before that, the user must
/// not be redirected (RFC 6749 §4.1.2.1).
async fn checked(issuer: &Issuer, query: &str) -> Result<Checked, (StatusCode, String)> {
    let bad = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned());
    let form = Form::parse(query.as_bytes()).map_err(|error| bad(&error.to_string()))?;
    let id = form.get("client_id").ok_or(bad("client_id is missing"))?;
    let id = ClientId::new(id).map_err(|error| bad(&error.to_string()))?;
    let client = match issuer.clients().client(&id).await {
        Ok(client) => client.ok_or(bad("no client has this client_id"))?,
        Err(error) => return Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    };
    let redirect_uri = match form.get("redirect_uri") {
        Some(uri) if client.is_redirect_uri(uri) => uri.to_owned(),
        Some(_) => return Err(bad("this redirect_uri is not registered")),
        // RFC 6749 §3.1.2.3: a client with one redirect URI need not name it.
        None => client.only_redirect_uri().ok_or(bad("redirect_uri is missing"))?.to_owned(),
    };
    Ok(Checked { form, client, redirect_uri })
}

/// A code for this user.
async fn code(
    issuer: &Issuer,
    client: &Client,
    user: &str,
    form: &Form,
) -> Result<TokenSecret, TokenError> {
    let invalid = |why| move |_: InvalidValue| TokenError::InvalidRequest(why);
    let challenge = form.get("code_challenge");
    let pkce = match (challenge, form.get("code_challenge_method")) {
        (None, None) => None,
        (Some(challenge), Some("S256")) => {
            let pkce = Pkce::s256(challenge);
            Some(pkce.map_err(invalid("code_challenge is not 43 characters of base64url"))?)
        }
        // RFC 7636 §4.3: a missing method means `plain`, which protects nothing.
        _ => {
            return Err(TokenError::InvalidRequest("PKCE requires a code_challenge with S256"));
        }
    };
    let subject = Subject::user(user).map_err(invalid("login_hint is not a valid user"))?;
    let mut grant = Grant::new(client.id().clone(), subject)
        .username(user)
        .map_err(invalid("login_hint is not a valid user"))?
        .auth_time(issuer.clock().now());
    if let Some(scope) = form.get("scope") {
        grant = grant.scope(scope).map_err(|error| TokenError::InvalidScope(error.why))?;
    }
    let resources = form.resources()?;
    if !resources.is_empty() {
        let audience = Audience::new(resources);
        grant = grant.audience(audience.map_err(|error| TokenError::InvalidTarget(error.why))?);
    }
    let request = match form.get("redirect_uri") {
        Some(uri) => AuthorizationRequest::new(grant, uri),
        None => AuthorizationRequest::without_redirect_uri(grant),
    };
    issuer.authorize(request.pkce(pkce)).await
}

fn found(location: String, text: String) -> Response {
    page(StatusCode::FOUND, Some(location), text)
}

fn page(status: StatusCode, location: Option<String>, text: String) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let location = location.map(|url| [(header::LOCATION, url)]);
    (status, headers, location, text + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use cloakroom::{Format, GrantType};
    use tower::ServiceExt as _;

    use super::*;

    const ASKED: &str = "/authorize?response_type=code&client_id=app\
                         &redirect_uri=https://app.example/cb&prompt=consent&code_challenge_method=S256\
                         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    async fn server() -> Result<Router, Box<dyn Error>> {
        let client = Client::public("app")
            .grant_types([GrantType::AuthorizationCode])
            .redirect_uri("https://app.example/cb")
            .scope("orders:read")
            .audience("https://orders.example", Format::Opaque);
        Ok(router("", Issuer::dev().static_clients([client])?.build().await?))
    }

    /// The nonce of a new form, which is also its cookie.
    async fn form(server: &Router) -> Result<String, Box<dyn Error>> {
        let request = Request::get(ASKED).body(Body::empty())?;
        let response = server.clone().oneshot(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let cookie = response.headers()[header::SET_COOKIE].to_str()?.to_owned();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await?;
        let nonce = cookie.split(['=', ';']).nth(1).ok_or("a cookie without a value")?;
        assert!(std::str::from_utf8(&body)?.contains(nonce));
        Ok(nonce.to_owned())
    }

    /// The answer to a browser that sends this nonce with this cookie.
    async fn sent(
        server: &Router,
        uri: &str,
        nonce: &str,
        cookie: &str,
    ) -> Result<StatusCode, Box<dyn Error>> {
        let request = Request::post(uri)
            .header(header::COOKIE, format!("theme=dark; consent={cookie}"))
            .body(Body::from(format!("nonce={nonce}")))?;
        let response = server.clone().oneshot(request).await?;
        let has_code = response
            .headers()
            .get(header::LOCATION)
            .is_some_and(|url| url.to_str().is_ok_and(|url| url.contains("code=")));
        assert_eq!(has_code, response.status() == StatusCode::FOUND);
        Ok(response.status())
    }

    #[tokio::test]
    async fn a_form_is_good_once() -> Result<(), Box<dyn Error>> {
        let server = server().await?;
        let nonce = form(&server).await?;
        assert_eq!(sent(&server, ASKED, &nonce, &nonce).await?, StatusCode::FOUND);
        assert_eq!(sent(&server, ASKED, &nonce, &nonce).await?, StatusCode::FORBIDDEN);
        Ok(())
    }

    #[tokio::test]
    async fn a_form_of_another_page_or_request_is_refused() -> Result<(), Box<dyn Error>> {
        let server = server().await?;
        let (own, foreign) = (form(&server).await?, form(&server).await?);
        let other = format!("{ASKED}&login_hint=bob");
        for (uri, nonce, cookie) in [
            // Another user's nonce, from a browser with another cookie or none.
            (ASKED, &*foreign, &*own),
            (ASKED, &foreign, ""),
            (ASKED, "", ""),
            (ASKED, "made-up", "made-up"),
            (&other, &own, &own),
        ] {
            let status = sent(&server, uri, nonce, cookie).await?;
            assert_eq!(status, StatusCode::FORBIDDEN, "{uri} {nonce}");
        }
        assert_eq!(sent(&server, ASKED, &own, &own).await?, StatusCode::FOUND);
        Ok(())
    }
}
