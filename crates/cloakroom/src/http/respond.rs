//! Responses. All are `no-store` until somebody says otherwise.

use ::http::{HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use cloakroom_core::{FormatError, StoreError};
use serde::Serialize;
use serde_json::json;

use crate::error::TokenError;

/// Seconds after which to try again when a part is down.
const RETRY_AFTER: &str = "1";

pub(super) fn json(status: u16, body: &impl Serialize) -> Result<Response<Bytes>, TokenError> {
    let text = serde_json::to_string(body)
        .map_err(|error| TokenError::Format(FormatError::Other(Box::new(error))))?;
    let mut response = self::body("application/json", text);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok(response)
}

pub(super) fn body(content_type: &'static str, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    no_store(response)
}

pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    no_store(response)
}

/// RFC 6749 §5.1: "The authorization server MUST include the HTTP "Cache-Control" response header
/// field with a value of "no-store" in any response containing tokens, credentials, or other
/// sensitive information, as well as the "Pragma" response header field with a value of "no-cache"."
fn no_store(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Lets caches keep a response after all.
pub(super) fn cached(mut response: Response<Bytes>, control: &str) -> Response<Bytes> {
    // Should it be no header value, nothing is cached.
    if let Ok(control) = HeaderValue::try_from(control) {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, control);
        headers.remove(header::PRAGMA);
    }
    response
}

/// The response to a refused or failed request (RFC 6749 §5.2).
pub(super) fn error(error: &TokenError) -> Response<Bytes> {
    let (status, code) = match error {
        TokenError::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
        error if error.code().is_some() => {
            (StatusCode::BAD_REQUEST, error.code().unwrap_or_default())
        }
        TokenError::Store(StoreError::Corrupt { .. } | StoreError::Misuse(_))
        | TokenError::Format(
            FormatError::TooLarge { .. } | FormatError::Random(_) | FormatError::Other(_),
        ) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
    };
    let source: &dyn std::error::Error = error;
    if status.is_server_error() {
        tracing::error!(error = source, "a request failed");
    } else {
        tracing::debug!(error = source, "a request was refused");
    }
    let body = match error.description() {
        Some(description) => json!({ "error": code, "error_description": description }),
        None => json!({ "error": code }),
    };
    let mut response = self::body("application/json", body.to_string());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6749 §5.2: a client that tried the header "MUST" be told the scheme that works.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oauth\""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

/// The answer to a `HEAD` request: what a `GET` would bring, without its body (RFC 9110 §9.3.2).
pub(super) fn head_only(response: &mut Response<Bytes>) {
    let length = HeaderValue::from(response.body().len());
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    *response.body_mut() = Bytes::new();
}

pub(super) fn not_found() -> Response<Bytes> {
    empty(StatusCode::NOT_FOUND)
}

pub(super) fn method_not_allowed(allowed: &[Method]) -> Response<Bytes> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

pub(super) fn too_large() -> Response<Bytes> {
    let body = json!({ "error": "invalid_request", "error_description": "the body is too large" });
    let mut response = self::body("application/json", body.to_string());
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
}
