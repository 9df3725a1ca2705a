//! The token in a request (RFC 6750 §2.1, RFC 9449 §7.1), and in a cookie where the app says so.

use cloakroom_core::{Confirmation, TokenSecret};
use http::header::{self, HeaderValue};
use http::{Extensions, HeaderMap};

use crate::MAX_TOKEN_BYTES;
use crate::challenge::Refusal;
use crate::proof::{Proof, Scheme};

/// The token of a request and what else the request proves; or why it goes no further.
#[derive(Debug)]
pub(crate) struct Presented {
    pub(crate) token: Result<TokenSecret, Refusal>,
    /// What a refusal is written in.
    pub(crate) scheme: Scheme,
    pub(crate) proof: Proof,
}

impl Presented {
    pub(crate) fn new(
        token: Result<Option<(Scheme, TokenSecret)>, Refusal>,
        extensions: &Extensions,
    ) -> Self {
        let key = extensions.get::<Confirmation>().cloned();
        let (scheme, token) = match token {
            Ok(Some((scheme, token))) => (scheme, Ok(token)),
            Ok(None) => (Scheme::Bearer, Err(Refusal::NoToken)),
            Err(refusal) => (Scheme::Bearer, Err(refusal)),
        };
        Self { token, scheme, proof: Proof { scheme: Some(scheme), key } }
    }
}

/// The token of the `Authorization` header, and the scheme it came in. No other place is looked at:
/// a token in a query ends up in logs and histories (RFC 9700 §4.3.2).
pub(crate) fn authorization(headers: &HeaderMap) -> Result<Option<(Scheme, TokenSecret)>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        // Two readers of one request might each believe another of them.
        return Err(Refusal::InvalidRequest);
    }
    let value = value.as_bytes();
    let end = value.iter().position(|byte| *byte == b' ');
    let (name, rest) = value.split_at(end.unwrap_or(value.len()));
    // RFC 9110 §11.1: the scheme is case-insensitive. One that is not ours is no credential here.
    let scheme = if name.eq_ignore_ascii_case(b"Bearer") {
        Scheme::Bearer
    } else if name.eq_ignore_ascii_case(b"DPoP") {
        Scheme::Dpop
    } else {
        return Ok(None);
    };
    token68(rest.trim_ascii_start()).map(|token| Some((scheme, token)))
}

/// The token in the cookie of this name.
pub(crate) fn cookie_token(
    headers: &HeaderMap,
    name: &str,
) -> Result<Option<TokenSecret>, Refusal> {
    let mut found = None;
    for pair in headers.get_all(header::COOKIE).iter().flat_map(pairs) {
        if let Some(value) = value_of(pair, name) {
            if found.is_some() {
                // A cookie set for a parent domain beside the app's own: which is whose?
                return Err(Refusal::InvalidRequest);
            }
            found = Some(token68(value)?);
        }
    }
    Ok(found)
}

/// Takes the cookie of this name out; the others stay, byte for byte.
pub(crate) fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    let cookies: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for cookie in &cookies {
        let kept: Vec<&[u8]> =
            pairs(cookie).filter(|pair| value_of(pair, name).is_none()).collect();
        if let (false, Ok(value)) =
            (kept.is_empty(), HeaderValue::from_bytes(&kept.join(&b"; "[..])))
        {
            headers.append(header::COOKIE, value);
        }
    }
}

fn pairs(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.trim_ascii_start();
    Some(value.strip_prefix(b"=")?.trim_ascii())
}

/// RFC 6750 §2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
fn token68(bytes: &[u8]) -> Result<TokenSecret, Refusal> {
    let end = bytes.iter().rposition(|byte| *byte != b'=');
    let body = &bytes[..end.map_or(0, |end| end + 1)];
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    if body.is_empty() || !body.iter().all(allowed) {
        return Err(Refusal::InvalidRequest);
    }
    if bytes.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::InvalidToken);
    }
    match std::str::from_utf8(bytes) {
        Ok(token) => Ok(TokenSecret::new(token)),
        Err(_) => Err(Refusal::InvalidRequest),
    }
}
