//! CORS, which is off by default.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;

use super::respond;

/// The origins whose scripts may call the endpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(Vec<Arc<str>>);

impl Origins {
    pub(super) fn allow(&mut self, origin: &str) {
        self.0.push(origin.into());
    }

    /// Whether any origin is allowed.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Answers a preflight request.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Response<Bytes> {
        let mut response = respond::empty(StatusCode::NO_CONTENT);
        if self.mark(request, response.headers_mut()) {
            let headers = response.headers_mut();
            let fixed = HeaderValue::from_static;
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                fixed("authorization, content-type, dpop"),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, fixed("600"));
        }
        response
    }

    /// Allows the script to read the response, if its origin is allowed.
    pub(super) fn mark(&self, request: &HeaderMap, response: &mut HeaderMap) -> bool {
        // The response depends on the origin.
        response.append(header::VARY, HeaderValue::from_static("origin"));
        let origin = request.get(header::ORIGIN);
        let allowed = origin
            .filter(|origin| self.0.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()));
        if let Some(origin) = allowed {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        allowed.is_some()
    }
}
