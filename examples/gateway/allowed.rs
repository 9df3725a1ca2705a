//! Which header fields of a client reach the service: only those that are listed here.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::header::{HeaderMap, HeaderName, InvalidHeaderName};

/// Fields that say what a client wants, and not who it is.
///
/// Services read in headers who is calling, from where, and what was requested (`X-User`, `Role`,
/// `Tenant`, `X-Forwarded-For`, `X-Original-URL`, …), each in words of its own. No list of what to drop is
/// ever complete, so this lists what to forward.
#[rustfmt::skip]
const STANDARD: &[&str] = &[
    // RFC 9110: content, its negotiation, conditions and ranges.
    "accept", "accept-charset", "accept-encoding", "accept-language", "content-disposition",
    "content-encoding", "content-language", "content-length", "content-location", "content-range",
    "content-type", "date", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "range", "referer", "user-agent", "via",
    // RFC 6265, RFC 9111, RFC 7240, RFC 9218, RFC 9530.
    "cache-control", "content-digest", "cookie", "pragma", "prefer", "priority", "repr-digest",
    "want-content-digest", "want-repr-digest",
    // What browsers add: CORS, Fetch Metadata, server-sent events, WebSockets.
    "access-control-request-headers", "access-control-request-method", "last-event-id", "origin",
    "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "sec-gpc",
    "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol",
    "sec-websocket-version", "upgrade-insecure-requests", "x-requested-with",
    // RFC 9449; Idempotency-Key; W3C Trace Context.
    "dpop", "idempotency-key", "traceparent", "tracestate",
    // The layer writes it: the JWT.
    "authorization",
];

/// The fields that are forwarded. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(Arc<HashSet<HeaderName>>);

impl Allowed {
    /// The standard fields, and these.
    pub(crate) fn and<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidHeaderName> {
        let standard = STANDARD.iter().copied().chain(names);
        let all = standard.map(|name| HeaderName::from_bytes(name.as_bytes()));
        all.collect::<Result<_, _>>().map(|all| Self(Arc::new(all)))
    }

    /// Removes all others.
    pub(crate) fn retain(&self, headers: &mut HeaderMap) {
        let others: Vec<HeaderName> =
            headers.keys().filter(|name| !self.0.contains(*name)).cloned().collect();
        for name in others {
            headers.remove(name);
        }
    }
}
