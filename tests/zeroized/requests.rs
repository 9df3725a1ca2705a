//! Requests that wipe themselves: they belong to the caller, not to the library.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request};
use zeroize::Zeroizing;

/// More than any request here takes: nothing grows, and so nothing is left behind.
const ROOM: usize = 16 * 1024;

/// A form as its most talkative writer spells it: nothing but letters and digits as it is.
pub(crate) fn encoded(parameters: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(ROOM));
    for (name, value) in parameters {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        for byte in value.bytes() {
            match byte {
                b' ' => body.push(b'+'),
                _ if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) => body.push(byte),
                _ => {
                    let digit = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                    body.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
    }
    body
}

/// The credentials of a client (RFC 6749 §2.3.1).
pub(crate) fn basic(client: &str, secret: &str) -> HeaderValue {
    let mut plain = encoded(&[(client, secret)]);
    let colon = client.len();
    plain[colon] = b':';
    let mut value = Zeroizing::new(String::with_capacity(ROOM));
    value.push_str("Basic ");
    STANDARD.encode_string(&*plain, &mut value);
    HeaderValue::from_maybe_shared(Bytes::from_owner(value)).expect("visible characters")
}

/// A request to an endpoint.
pub(crate) fn post(
    path: &str,
    credentials: Option<HeaderValue>,
    parameters: &[(&str, &str)],
) -> Request<Bytes> {
    let mut request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from_owner(encoded(parameters)))
        .expect("a request");
    if let Some(credentials) = credentials {
        request.headers_mut().insert("authorization", credentials);
    }
    request
}
