//! Which header fields are forwarded to a service, and which the gateway writes.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, Request, Version};
use hyper::body::Body;

use crate::allowed::Allowed;

/// RFC 9110 §7.6.1: fields about one connection. `Expect` is answered here: this server sends
/// `100 Continue` once the service reads the body, and never to a request that is refused.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "proxy-authentication-info",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What the gateway vouches for about the sender of a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) https: bool,
    /// The requested host, if the gateway has checked it against its names.
    pub(crate) host: Option<Authority>,
    pub(crate) request_id: HeaderValue,
}

/// Prepares the header of a request for the service.
pub(crate) fn to_service(
    headers: &mut HeaderMap,
    allowed: &Allowed,
    received: Version,
    caller: &Caller,
) {
    let trailers = names(headers, &header::TE).any(|name| name.eq_ignore_ascii_case(b"trailers"));
    remove_hop_by_hop(headers);
    allowed.retain(headers);
    join_cookies(headers);
    // RFC 9110 §6.5.1: trailers may be dropped, and without `Trailer` the HTTP client drops them. A
    // service that merges them into the header would read `X-User` there.
    headers.remove(header::TRAILER);
    // The HTTP client that forwards the request writes it from the URI.
    headers.remove(header::HOST);
    // And this from the body: a list of equal values is one length for this server, and perhaps not for
    // the service.
    headers.remove(header::CONTENT_LENGTH);
    if trailers {
        // RFC 9110 §10.1.4: a sender of `TE` "MUST also send a "TE" connection option".
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    introduce(headers, received, caller);
}

/// Removes the fields about one connection, and those that `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = names(headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 §6.3: an intermediary that forwards by the `Transfer-Encoding` "MUST first remove
        // the received Content-Length field".
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// RFC 9113 §8.2.3: the cookies of an HTTP/2 request may come in several fields, and "MUST be
/// concatenated into a single octet string" with `; ` on the way to anything else.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(mut joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// Names the caller: as RFC 7239 says, and in the fields that most services know.
fn introduce(headers: &mut HeaderMap, received: Version, caller: &Caller) {
    let proto = if caller.https { "https" } else { "http" };
    let node = match caller.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => quoted_ipv6(address),
    };
    let mut forwarded = format!("for={node};proto={proto}");
    if let Some(host) = &caller.host {
        forwarded.push_str(&format!(";host=\"{host}\""));
        insert(headers, "x-forwarded-host", host.as_str());
    }
    insert(headers, "forwarded", &forwarded);
    insert(headers, "x-forwarded-for", &caller.address.to_string());
    insert(headers, "x-forwarded-proto", proto);
    headers.insert("x-request-id", caller.request_id.clone());
    // RFC 9110 §7.6.3: a gateway "MUST send an appropriate Via header field in each inbound request
    // message".
    let via = match received {
        Version::HTTP_10 => "1.0 gateway",
        Version::HTTP_2 => "2.0 gateway",
        _ => "1.1 gateway",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// RFC 7239 §6: an IPv6 address is in brackets, and therefore in quotes.
fn quoted_ipv6(address: Ipv6Addr) -> String {
    format!("\"[{address}]\"")
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether this requests a WebSocket (RFC 6455 §4.1). No other upgrade passes: after an upgrade to
/// `h2c` a client could send requests that no layer of the gateway sees.
pub(crate) fn is_websocket<B: Body>(request: &Request<B>) -> bool {
    let has = |field, option: &[u8]| {
        names(request.headers(), &field).any(|name| name.eq_ignore_ascii_case(option))
    };
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && has(header::CONNECTION, b"upgrade")
        && has(header::UPGRADE, b"websocket")
}

/// The members of a comma-separated list, over all its field lines.
pub(crate) fn names<'a>(
    headers: &'a HeaderMap,
    field: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(field)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}
