//! Where a request enters: it is refused here if it is malformed or not allowed, before its token is
//! checked; its outcome is traced and counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{counter, histogram};
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::headers::{Caller, is_websocket, names};
use crate::server::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What the gateway lets in.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// The names of this gateway; if it has none, every name is accepted.
    pub(crate) hosts: Vec<String>,
    /// The cookie that may carry the token, and the origins whose pages may send it.
    pub(crate) cookie: Option<String>,
    pub(crate) origins: Vec<String>,
    /// The proxies in front, whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted, read from the
    /// right: what a client sends is left of what they append.
    pub(crate) proxies: Vec<Network>,
}

/// The outermost layer.
pub(crate) async fn enter(
    State(rules): State<Arc<Rules>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let caller = rules.caller(&request);
    let method = known(request.method());
    // No query, since tokens end up there whatever RFC 6750 says. No header, either.
    let span = info_span!(
        "request",
        id = caller.request_id.to_str().unwrap_or_default(),
        client = %caller.address,
        method,
        path = request.uri().path(),
    );
    async move {
        let request_id = caller.request_id.clone();
        let mut response = match rules.refuses(&request) {
            Some((status, why)) => {
                tracing::debug!(why, "a request is refused");
                refusal(status)
            }
            None => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
        };
        response.headers_mut().insert("x-request-id", request_id);
        let (status, took) = (response.status(), began.elapsed());
        tracing::info!(status = status.as_u16(), ms = took.as_millis(), "answered");
        let labels = [("method", method.to_owned()), ("status", status.as_str().to_owned())];
        counter!("gateway_requests_total", &labels).increment(1);
        histogram!("gateway_head_seconds").record(took.as_secs_f64());
        response
    }
    .instrument(span)
    .await
}

impl Rules {
    /// Why a request is refused, whoever sends it.
    fn refuses(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let headers = request.headers();
        // This includes TRACE, which would show the JWT to the client.
        if known(request.method()) == "other" {
            return Some((StatusCode::METHOD_NOT_ALLOWED, "its method"));
        }
        // RFC 9112 §6.1: a server that does not understand a transfer coding "SHOULD respond with
        // 501", and a sender "MUST NOT apply the chunked transfer coding more than once". hyper decodes
        // `chunked` once, and refuses codings that do not end with it.
        let mut codings = names(headers, &header::TRANSFER_ENCODING);
        if !codings.all(|it| it.eq_ignore_ascii_case(b"chunked")) {
            return Some((StatusCode::NOT_IMPLEMENTED, "its transfer coding"));
        }
        if names(headers, &header::TRANSFER_ENCODING).count() > 1 {
            return Some((StatusCode::BAD_REQUEST, "its transfer coding"));
        }
        let Some(host) = host(request) else {
            return Some((StatusCode::BAD_REQUEST, "its host"));
        };
        if !self.hosts.is_empty() && !self.is_ours(&host) {
            return Some((StatusCode::MISDIRECTED_REQUEST, "it is for another host"));
        }
        if self.may_be_forged_by_a_page(request) {
            return Some((StatusCode::FORBIDDEN, "its origin"));
        }
        None
    }

    /// A browser also sends the cookie with requests that pages of other sites cause, including a
    /// `WebSocket`.
    fn may_be_forged_by_a_page(&self, request: &Request) -> bool {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let Some(cookie) = &self.cookie else { return false };
        if safe && !is_websocket(request) || !has_cookie(request.headers(), cookie) {
            return false;
        }
        let mut origins = request.headers().get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return true };
        !self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    fn is_ours(&self, host: &Authority) -> bool {
        self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host.as_str()))
    }

    /// The caller: the peer of the connection, or the address that a proxy in front names.
    fn caller(&self, request: &Request) -> Caller {
        let headers = request.headers();
        let peer = request.extensions().get::<Peer>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.address.ip());
        let peer = peer.to_canonical();
        let trusts = |address: IpAddr| self.proxies.iter().any(|network| network.contains(address));
        let mut address = peer;
        // Every proxy appends its peer: take the first from the right that is not one of our proxies.
        let seen: Vec<&[u8]> = names(headers, &FORWARDED_FOR).collect();
        for seen in seen.iter().rev() {
            match address_of(seen) {
                Some(named) if trusts(address) => address = named.to_canonical(),
                _ => break,
            }
        }
        // The last value is the proxy's; the earlier ones came with the request.
        let proto = names(headers, &FORWARDED_PROTO).last().unwrap_or_default();
        let https = trusts(peer) && proto.eq_ignore_ascii_case(b"https");
        let host = host(request).filter(|host| self.is_ours(host));
        Caller { address, https, host, request_id: request_id() }
    }
}

/// RFC 9112 §3.2: a request without `Host`, or with more than one, is answered with 400. RFC 9113
/// §8.3.1: so is one whose `Host` is not its `:authority`.
fn host(request: &Request) -> Option<Authority> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (field, more) = (fields.next(), fields.next());
    let field = match field {
        Some(field) => Some(Authority::try_from(field.as_bytes()).ok()?),
        None => None,
    };
    let target = request.uri().authority().cloned();
    let host = match (target, field, more) {
        (_, _, Some(_)) => return None,
        (Some(target), Some(field), None) => (target == field).then_some(target)?,
        (Some(host), None, None) if request.version() == Version::HTTP_2 => host,
        (None, Some(host), None) => host,
        _ => return None,
    };
    (!host.as_str().contains('@')).then_some(host)
}

/// An address, with or without a port: proxies differ.
fn address_of(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    node.parse().ok().or_else(|| node.parse().ok().map(|socket: SocketAddr| socket.ip()))
}

fn has_cookie(headers: &HeaderMap, name: &str) -> bool {
    let pairs = headers.get_all(header::COOKIE).iter();
    let mut pairs = pairs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.any(|pair| {
        let rest = pair.trim_ascii_start().strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
    })
}

/// The method if it is allowed; one word for all others, since each is a time series.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn refusal(status: StatusCode) -> Response {
    let mut response = status.into_response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The request id for traces and the answer, whatever the client calls its request.
fn request_id() -> HeaderValue {
    // An id that is not random is still better than no answer.
    let random = getrandom::u64().unwrap_or_default();
    HeaderValue::try_from(format!("{random:016x}")).unwrap_or(HeaderValue::from_static("none"))
}

/// Addresses, as `10.0.0.0/8` or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let differs = u32::from(ours) ^ u32::from(other);
                differs.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let differs = u128::from(ours) ^ u128::from(other);
                differs.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is no address"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = if prefix.is_empty() { Ok(longest) } else { prefix.parse() };
        match prefix {
            Ok(prefix) if prefix <= longest => Ok(Self { address, prefix }),
            _ => Err(format!("`{text}` has no prefix of 0 to {longest} bits")),
        }
    }
}
