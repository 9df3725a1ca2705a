//! Responses. All are `no-store` unless [`cached`] is called.

use std::io;

use ::http::{HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use cloakroom_core::TokenSecret;
use cloakroom_core::format::FormatError;
use cloakroom_core::store::StoreError;
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::TokenError;
use crate::flow::request::TokenResponse;

/// How many seconds a client waits before it retries after an outage.
const RETRY_AFTER: &str = "1";

/// The initial capacity of a JSON body, more than most need.
const TYPICAL: usize = 512;

pub(super) fn json(body: &impl Serialize) -> Result<Response<Bytes>, TokenError> {
    let mut text = Vec::with_capacity(TYPICAL);
    serde_json::to_writer(&mut text, body).map_err(unwritten)?;
    Ok(self::body("application/json", text))
}

/// The body of RFC 6749 §5.1, wiped after it is sent.
pub(super) fn tokens(tokens: &TokenResponse) -> Result<Response<Bytes>, TokenError> {
    // A buffer that grows would leave tokens behind.
    let capacity = match capacity(tokens) {
        Some(capacity) => capacity,
        None => {
            let mut length = Length(0);
            serde_json::to_writer(&mut length, tokens).map_err(unwritten)?;
            length.0
        }
    };
    let mut text = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *text, tokens).map_err(unwritten)?;
    debug_assert!(text.len() <= capacity, "the buffer has grown");
    Ok(body("application/json", Bytes::from_owner(text)))
}

/// No fewer bytes than the body takes, if that is known before it is written: its texts take as many bytes
/// in JSON as they have, and there are no authorization details.
fn capacity(tokens: &TokenResponse) -> Option<usize> {
    /// The names of all members, the punctuation, and the longest `expires_in` and `token_type`.
    const REST: usize = 160;
    let is_plain =
        |text: &&str| !text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\'));
    let refresh_token = tokens.refresh_token.as_ref().map_or("", TokenSecret::expose);
    let texts = [tokens.access_token.expose(), refresh_token, tokens.scope.as_str()];
    let is_known = tokens.authorization_details.is_none() && texts.iter().all(is_plain);
    is_known.then(|| REST + texts.iter().map(|text| text.len()).sum::<usize>())
}

/// Counts the bytes that are written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A JWT as the body, wiped after it is sent.
pub(super) fn jwt(content_type: &'static str, jwt: &TokenSecret) -> Response<Bytes> {
    body(content_type, Bytes::from_owner(Zeroizing::new(jwt.expose().to_owned())))
}

fn unwritten(error: serde_json::Error) -> TokenError {
    TokenError::Format(FormatError::Other(Box::new(error)))
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
/// sensitive information, as well as the "Pragma" response header field with a value of
/// "no-cache"."
fn no_store(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Allows caches to keep the response.
pub(super) fn cached(mut response: Response<Bytes>, control: &str) -> Response<Bytes> {
    // If `control` is not a header value, nothing is cached.
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
        TokenError::InvalidClient(_) => (StatusCode::UNAUTHORIZED, "invalid_client"),
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

/// Changes a refusal to 403, for the endpoints that no RFC defines.
pub(super) fn forbidden(refused: TokenError) -> Result<Response<Bytes>, TokenError> {
    if !matches!(refused, TokenError::UnauthorizedClient(_)) {
        return Err(refused);
    }
    let mut response = error(&refused);
    *response.status_mut() = StatusCode::FORBIDDEN;
    Ok(response)
}

/// The response to a `HEAD` request: that of `GET` without its body (RFC 9110 §9.3.2).
pub(super) fn head_only(response: &mut Response<Bytes>) {
    let length = HeaderValue::from(response.body().len());
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    *response.body_mut() = Bytes::new();
}

/// The trace of a refusal that is not a [`TokenError`].
pub(super) fn trace_refusal(reason: &'static str) {
    tracing::debug!(error = reason, "a request was refused");
}

pub(super) fn not_found() -> Response<Bytes> {
    trace_refusal("no endpoint has this path");
    empty(StatusCode::NOT_FOUND)
}

pub(super) fn method_not_allowed(allowed: &[Method]) -> Response<Bytes> {
    trace_refusal("the endpoint does not support this method");
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

pub(super) fn too_large() -> Response<Bytes> {
    unread(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
}

/// The body did not come in time.
#[cfg(feature = "serve")]
pub(super) fn too_slow() -> Response<Bytes> {
    unread(StatusCode::REQUEST_TIMEOUT, "the body took too long")
}

/// The body is not what HTTP allows.
#[cfg(feature = "axum")]
pub(super) fn malformed() -> Response<Bytes> {
    unread(StatusCode::BAD_REQUEST, "the body cannot be read")
}

/// The head of a request is not what HTTP allows, or names a transfer coding that is not supported.
#[cfg(feature = "serve")]
pub(super) fn bad_head(status: StatusCode, why: &'static str) -> Response<Bytes> {
    trace_refusal(why);
    let mut response = empty(status);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The refusal of a request whose body was not read to its end: there is no next request on this
/// connection.
fn unread(status: StatusCode, why: &'static str) -> Response<Bytes> {
    trace_refusal(why);
    let body = json!({ "error": "invalid_request", "error_description": why });
    let mut response = self::body("application/json", body.to_string());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use cloakroom_core::{GrantId, Scope};
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_buffer_of_tokens_never_grows() {
        let token = |text: &str| TokenSecret::new(text);
        for access in ["", "cr_at_AQ", "\"\\\u{1}", &"x".repeat(10_000), "é"] {
            for refresh in [None, Some("cr_rt_AQ"), Some("\n\n\n\n")] {
                for details in [None, Some(json!([{ "type": "payment".repeat(100) }]))] {
                    let response = TokenResponse {
                        access_token: token(access),
                        token_type: "Bearer",
                        expires_in: u64::MAX,
                        refresh_token: refresh.map(token),
                        scope: Scope::parse("orders:read orders:write").unwrap(),
                        authorization_details: details.clone(),
                        grant: GrantId::from_bytes([1; 16]),
                    };
                    let exact = serde_json::to_string(&response).unwrap();
                    // With debug assertions, this panics if it grows.
                    let body = tokens(&response).unwrap().into_body();
                    assert_eq!(body, exact);
                    assert!(capacity(&response).is_none_or(|most| most >= exact.len()));
                    let read: Value = serde_json::from_slice(&body).unwrap();
                    assert_eq!(read["access_token"], access);
                }
            }
        }
    }
}
