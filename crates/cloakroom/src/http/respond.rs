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
    let text = match plain(tokens) {
        Some(text) => text,
        None => {
            // Serialize twice: a buffer that grows would leave tokens behind.
            let mut length = Length(0);
            serde_json::to_writer(&mut length, tokens).map_err(unwritten)?;
            let mut text = Zeroizing::new(Vec::with_capacity(length.0));
            serde_json::to_writer(&mut *text, tokens).map_err(unwritten)?;
            text
        }
    };
    Ok(body("application/json", Bytes::from_owner(text)))
}

/// The JSON of a response of typical members whose texts need no escapes, as nearly all are. It
/// is what serializing the response writes.
fn plain(tokens: &TokenResponse) -> Option<Zeroizing<Vec<u8>>> {
    // Without an early end, so that many bytes are looked at together.
    let is_plain = |text: &&str| {
        text.bytes().fold(true, |all, byte| all & !matches!(byte, 0..0x20 | b'"' | b'\\'))
    };
    let refresh_token = tokens.refresh_token.as_ref().map(TokenSecret::expose);
    let scope = tokens.scope.as_str();
    let texts = [tokens.access_token.expose(), refresh_token.unwrap_or_default(), scope];
    let has_more = tokens.authorization_details.is_some() || !tokens.extra.is_empty();
    if has_more || !texts.iter().all(is_plain) {
        return None;
    }
    let expires_in = tokens.expires_in.to_string();
    let scope = Some(scope).filter(|scope| !scope.is_empty());
    let mut rest = [("", ""); 4];
    if let Some(token) = refresh_token {
        rest[..2].copy_from_slice(&[(",\"refresh_token\":\"", token), ("\"", "")]);
    }
    if let Some(scope) = scope {
        rest[2..].copy_from_slice(&[(",\"scope\":\"", scope), ("\"", "")]);
    }
    let parts = [
        ("{\"access_token\":\"", tokens.access_token.expose()),
        ("\",\"token_type\":\"", tokens.token_type),
        ("\",\"expires_in\":", &*expires_in),
    ];
    let parts = || parts.iter().chain(&rest).chain(&[("}", "")]);
    let length = parts().map(|(name, value)| name.len() + value.len()).sum();
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    for (name, value) in parts() {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    debug_assert_eq!(text.len(), length, "the buffer must not grow");
    Some(text)
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
    fn tokens_are_written_as_they_serialize() {
        let token = |text: &str| TokenSecret::new(text);
        for access in ["", "cr_at_AQ", "\"\\\u{1}", &"x".repeat(10_000), "é"] {
            for refresh in [None, Some("cr_rt_AQ"), Some("\n\n\n\n"), Some("\u{7f}")] {
                for (scope, details, extra) in [
                    ("", None, json!({})),
                    ("orders:read orders:write", None, json!({})),
                    ("orders:read", Some(json!([{ "type": "payment".repeat(100) }])), json!({})),
                    ("orders:read", None, json!({ "id_token": "eyJ" })),
                ] {
                    let extra = extra.as_object().unwrap().clone();
                    let has_more = details.is_some() || !extra.is_empty();
                    let response = TokenResponse {
                        access_token: token(access),
                        token_type: "Bearer",
                        expires_in: u64::MAX,
                        refresh_token: refresh.map(token),
                        scope: Scope::parse(scope).unwrap(),
                        authorization_details: details,
                        extra,
                        grant: GrantId::from_bytes([1; 16]),
                    };
                    let body = tokens(&response).unwrap().into_body();
                    assert_eq!(body, serde_json::to_string(&response).unwrap());
                    // A buffer that has to grow would leave tokens behind.
                    let mut length = Length(0);
                    serde_json::to_writer(&mut length, &response).unwrap();
                    assert_eq!(length.0, body.len());
                    let read: Value = serde_json::from_slice(&body).unwrap();
                    assert_eq!(read["access_token"], access);
                    let is_escaped = access.contains('"') || refresh == Some("\n\n\n\n");
                    assert_eq!(plain(&response).is_none(), is_escaped || has_more);
                }
            }
        }
    }
}
