//! The credentials of a resource server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom_core::TokenSecret;
use http::header::HeaderValue;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::error::UnavailableError;

/// How a resource server authenticates at the authorization server: `client_secret_basic`
/// (RFC 6749 §2.3.1). The secret is wiped from memory on drop and redacted in `Debug`.
///
/// ```
/// use cloakroom_resource::ClientCredentials;
///
/// let credentials = ClientCredentials::new("orders-api", "s3cret");
/// assert!(!format!("{credentials:?}").contains("s3cret"));
/// ```
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    client_id: String,
    secret: TokenSecret,
}

impl ClientCredentials {
    /// An identifier and its secret, as the authorization server registered them.
    #[must_use]
    pub fn new(client_id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), secret: TokenSecret::new(secret) }
    }

    /// RFC 6749 §2.3.1: both are "encoded using the "application/x-www-form-urlencoded" encoding
    /// algorithm", and only then used as user name and password of HTTP Basic.
    ///
    /// The value's bytes are wiped when its last copy is dropped.
    pub(crate) fn basic(&self) -> Result<HeaderValue, UnavailableError> {
        let (id, secret) = (self.client_id.as_bytes(), self.secret.expose().as_bytes());
        // Room for all of it: a buffer that moves leaves the secret where it was.
        let room = 3 * (id.len() + secret.len()) + 1;
        let mut pair = Zeroizing::new(String::with_capacity(room));
        pair.extend(byte_serialize(id));
        pair.push(':');
        pair.extend(byte_serialize(secret));
        let mut value =
            Zeroizing::new(String::with_capacity("Basic ".len() + pair.len() * 4 / 3 + 4));
        value.push_str("Basic ");
        STANDARD.encode_string(pair.as_bytes(), &mut value);
        let shared = Bytes::from_owner(value);
        let mut value = HeaderValue::from_maybe_shared(shared).map_err(UnavailableError::other)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_form_encoded_before_basic() {
        let credentials = ClientCredentials::new("orders:api", "a b+c/ü%");
        let value = credentials.basic().unwrap();
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        let plain = STANDARD.decode(encoded).unwrap();
        assert_eq!(plain, b"orders%3Aapi:a+b%2Bc%2F%C3%BC%25");
        assert!(value.is_sensitive());
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = ClientCredentials::new("gateway", "do-not-print");
        let debug = format!("{credentials:?} {:?}", credentials.basic().unwrap());
        assert!(debug.contains("gateway"));
        assert!(!debug.contains("do-not-print") && !debug.contains("Basic"), "{debug}");
    }
}
