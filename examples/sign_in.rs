//! `/authorize`: the page that signs users in. The library checks the requests and makes the responses;
//! the page is a demo.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cloakroom::http::Form;
use cloakroom::{
    AuthorizationError, AuthorizationErrorCode, AuthorizationRequest, Issuer, PageError, Prompt,
    TokenError,
};

/// The authorization endpoint and its consent form, under the issuer's path.
pub(crate) fn router(path: &str, issuer: Issuer) -> Router {
    Router::new()
        .route(&format!("{path}/authorize"), get(authorize).post(authorize))
        .route(&format!("{path}/consent"), post(consented))
        .with_state(issuer)
}

/// The authorization endpoint (RFC 6749 §3.1). A real one signs the user in and asks for consent.
/// This one asks for consent only, and only if the client sends `prompt=consent`.
async fn authorize(
    State(issuer): State<Issuer>,
    request: AuthorizationRequest,
) -> Result<Response, AuthorizationError> {
    if request.has_prompt(Prompt::Consent) {
        return consent(&issuer, &request);
    }
    Ok(approve(&issuer, request).await?)
}

const CONSENT: &str = "consent";

/// A form that comes back once, within an hour. The request is sealed for the cookie of this browser. A
/// page of another site can make the browser send a form (RFC 6749 §10.12), but it cannot obtain a
/// request that is sealed for that cookie.
fn consent(
    issuer: &Issuer,
    request: &AuthorizationRequest,
) -> Result<Response, AuthorizationError> {
    // A random value. A real server uses the session of the user who has signed in.
    let life = AuthorizationRequest::LIFE;
    let session = issuer.nonce(CONSENT, b"", life).map_err(TokenError::from)?;
    let sealed = request.seal_for(session.as_bytes())?;
    let scopes: String =
        request.scope().iter().map(|scope| format!("<li>{}", escaped(scope))).collect();
    let html = format!(
        "<!doctype html><meta charset=utf-8><title>Consent</title>\
         <p>{} at {} wants:<ul>{scopes}</ul>\
         <form method=post action=consent><input type=hidden name=request value={sealed}>\
         <button name=answer value=allow>Allow</button>\
         <button name=answer value=deny>Deny</button></form>",
        escaped(request.client_name()),
        escaped(&request.redirect_host()),
    );
    let cookie =
        format!("{CONSENT}={session}; HttpOnly; SameSite=Strict; Max-Age={}", life.as_secs());
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        // RFC 6749 §10.13: no other page may show it in a frame.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    Ok((headers, [(header::SET_COOKIE, cookie)], html).into_response())
}

/// The user has consented, or not.
async fn consented(
    State(issuer): State<Issuer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, AuthorizationError> {
    let form = Form::parse(&body)?;
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let session = cookies
        .flat_map(|cookies| cookies.split("; "))
        .find_map(|cookie| cookie.strip_prefix("consent="))
        .filter(|session| !session.is_empty())
        .ok_or(PageError::Forged)?;
    let sealed = form.get("request").unwrap_or_default();
    let request = issuer.open_authorization_request_for(sealed, session.as_bytes()).await?;
    match form.get("answer") {
        Some("allow") => Ok(approve(&issuer, request).await?),
        _ => Ok(request.deny().await?.into_response()),
    }
}

/// Sends the user back to the client, with a code.
async fn approve(issuer: &Issuer, request: AuthorizationRequest) -> Result<Response, PageError> {
    let user = request.login_hint().unwrap_or("alice").to_owned();
    let grant = request.grant(&user).and_then(|grant| grant.username(&user));
    let Ok(grant) = grant else {
        let code = AuthorizationErrorCode::LoginRequired;
        return Ok(request.error(code).await?.into_response());
    };
    let redirect = request.approve(grant.auth_time(issuer.clock().now())).await?;
    if redirect.error_code().is_none() {
        tracing::warn!(user, "DEMO: signed in without asking");
    }
    Ok(redirect.into_response())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use cloakroom::{Client, Format, GrantType};
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

    /// A new form: its sealed request, and its cookie.
    async fn form(server: &Router) -> Result<(String, String), Box<dyn Error>> {
        let request = Request::get(ASKED).body(Body::empty())?;
        let response = server.clone().oneshot(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let cookie = response.headers()[header::SET_COOKIE].to_str()?.to_owned();
        let cookie = cookie.split(['=', ';']).nth(1).ok_or("a cookie without a value")?;
        let body = axum::body::to_bytes(response.into_body(), 10_000).await?;
        let html = std::str::from_utf8(&body)?;
        let sealed = html.split(['=', '>']).find(|part| part.len() > 200).ok_or("no request")?;
        Ok((sealed.to_owned(), cookie.to_owned()))
    }

    /// The answer to a browser that sends this request with this cookie.
    async fn sent(
        server: &Router,
        sealed: &str,
        cookie: &str,
        answer: &str,
    ) -> Result<(StatusCode, String), Box<dyn Error>> {
        let request = Request::post("/consent")
            .header(header::COOKIE, format!("theme=dark; consent={cookie}"))
            .body(Body::from(format!("request={sealed}&answer={answer}")))?;
        let response = server.clone().oneshot(request).await?;
        let location = response.headers().get(header::LOCATION);
        let location = location.map(|url| url.to_str()).transpose()?.unwrap_or_default();
        Ok((response.status(), location.to_owned()))
    }

    #[tokio::test]
    async fn a_form_is_good_once() -> Result<(), Box<dyn Error>> {
        let server = server().await?;
        let (sealed, cookie) = form(&server).await?;
        let (status, location) = sent(&server, &sealed, &cookie, "allow").await?;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert!(location.starts_with("https://app.example/cb?code="), "{location}");
        let (status, location) = sent(&server, &sealed, &cookie, "allow").await?;
        assert_eq!((status, &*location), (StatusCode::BAD_REQUEST, ""));
        Ok(())
    }

    #[tokio::test]
    async fn whoever_does_not_consent_is_sent_back_without_a_code() -> Result<(), Box<dyn Error>> {
        let server = server().await?;
        let (sealed, cookie) = form(&server).await?;
        let (status, location) = sent(&server, &sealed, &cookie, "deny").await?;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert!(location.contains("error=access_denied") && !location.contains("code="));
        Ok(())
    }

    #[tokio::test]
    async fn a_form_of_another_page_or_browser_is_refused() -> Result<(), Box<dyn Error>> {
        let server = server().await?;
        let ((own, cookie), (foreign, other)) = (form(&server).await?, form(&server).await?);
        for (sealed, cookie) in [
            // Another user's request, from a browser with another cookie or none.
            (&*foreign, &*cookie),
            (&foreign, ""),
            ("", ""),
            ("made-up", "made-up"),
            (&own, &other),
            (&own[1..], &cookie),
        ] {
            let (status, location) = sent(&server, sealed, cookie, "allow").await?;
            assert_eq!((status, &*location), (StatusCode::BAD_REQUEST, ""), "{sealed} {cookie}");
        }
        assert_eq!(sent(&server, &own, &cookie, "allow").await?.0, StatusCode::SEE_OTHER);
        Ok(())
    }
}
