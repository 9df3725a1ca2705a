//! Client authentication (RFC 6749 §2.3).

use std::fmt;
use std::ops::{Range, RangeFrom};
use std::sync::{Arc, LazyLock};

use ::http::{Request, header};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom_core::ClientId;
use zeroize::Zeroizing;

use super::credentials;
use super::form::Form;
use crate::client::Client;
use crate::client::directory::ClientDirectory;
use crate::client::secret_hash::SecretHash;
use crate::error::{AuthenticationFailure, TokenError};
use crate::form::decoded;

/// Authenticates the client that calls an endpoint.
///
/// [`SecretAuthenticator`] is built in. Implement your own with
/// [`#[async_trait]`](macro@crate::async_trait), for mutual TLS (RFC 8705) or signed assertions
/// (RFC 7523), and fall back on the built-in one. Every endpoint that needs a client calls it.
///
/// ```
/// use std::sync::Arc;
///
/// use cloakroom::http::{Bytes, ClientAuthenticator, Form, Request, SecretAuthenticator};
/// use cloakroom::{AuthenticationFailure, Client, ClientDirectory, ClientId, TokenError, async_trait};
///
/// /// The subject of a client certificate. The app's TLS listener has verified the certificate, and
/// /// puts this into the extensions of the request, in axum with a middleware.
/// #[derive(Clone)]
/// struct CertificateSubject(String);
///
/// /// Authenticates clients by certificate (`tls_client_auth`, RFC 8705 §2.1), else by secret.
/// #[derive(Debug)]
/// struct Certificates;
///
/// #[async_trait]
/// impl ClientAuthenticator for Certificates {
///     async fn authenticate(
///         &self,
///         request: &Request<Bytes>,
///         form: &Form,
///         clients: &dyn ClientDirectory,
///     ) -> Result<Arc<Client>, TokenError> {
///         let Some(CertificateSubject(subject)) = request.extensions().get() else {
///             return SecretAuthenticator.authenticate(request, form, clients).await;
///         };
///         let id = form.get("client_id").ok_or(AuthenticationFailure::Malformed)?;
///         let id = ClientId::new(id).map_err(|_| AuthenticationFailure::UnknownClient)?;
///         // A real one reads the subject from the client's registration.
///         if *subject != format!("CN={id}") {
///             return Err(AuthenticationFailure::WrongCredentials.into());
///         }
///         clients.client(&id).await?.ok_or(AuthenticationFailure::UnknownClient.into())
///     }
///
///     fn methods(&self) -> Vec<&'static str> {
///         vec!["tls_client_auth", "client_secret_basic", "client_secret_post", "none"]
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::{Issuer, Role, http::Endpoints};
///
/// let gateway = Client::authenticated_by_app("gateway").role(Role::HandleKeys);
/// let issuer = Issuer::dev().static_clients([gateway])?.build().await?;
/// let endpoints = Endpoints::new(issuer).authenticator(Arc::new(Certificates));
///
/// let request = || Request::get("/handle-keys?client_id=gateway");
/// let certificate = CertificateSubject("CN=gateway".into());
/// let with = request().extension(certificate).body(Bytes::new())?;
/// assert_eq!(endpoints.handle(with).await.status(), 200);
/// let without = request().body(Bytes::new())?;
/// assert_eq!(endpoints.handle(without).await.status(), 401);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait ClientAuthenticator: fmt::Debug + Send + Sync + 'static {
    /// Authenticates the client of a request.
    ///
    /// `request` has the headers, and the extensions that your server and middleware have set. `form`
    /// holds the parameters that the client may authenticate with: those of the body, or `client_id` of
    /// the query if the request is a GET.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidClient`] with the reason, if the client is unknown or its credentials
    /// are wrong. Both cases must take the same time. The response does not contain the reason.
    /// [`TokenError::InvalidRequest`] if the client authenticates twice; [`TokenError::Directory`]
    /// if the directory fails.
    async fn authenticate(
        &self,
        request: &Request<Bytes>,
        form: &Form,
        clients: &dyn ClientDirectory,
    ) -> Result<Arc<Client>, TokenError>;

    /// The methods that it supports, by their names in the metadata (RFC 8414 §2), such as
    /// `client_secret_basic`, and `none` if it accepts public clients.
    fn methods(&self) -> Vec<&'static str>;
}

/// `client_secret_basic`, `client_secret_post` (RFC 6749 §2.3.1), and `none` for public clients.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct SecretAuthenticator;

#[async_trait]
impl ClientAuthenticator for SecretAuthenticator {
    async fn authenticate(
        &self,
        request: &Request<Bytes>,
        form: &Form,
        clients: &dyn ClientDirectory,
    ) -> Result<Arc<Client>, TokenError> {
        let mut authorization = request.headers().get_all(header::AUTHORIZATION).iter();
        let basic;
        let (id, secret) = match (authorization.next(), authorization.next()) {
            (None, _) => {
                let id = form.get("client_id").ok_or(AuthenticationFailure::Malformed)?;
                (id, form.get("client_secret"))
            }
            (Some(_), Some(_)) => {
                return Err(TokenError::InvalidRequest("the client authenticates twice"));
            }
            (Some(header), None) => {
                // RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in
                // each request."
                if form.get("client_secret").is_some() {
                    return Err(TokenError::InvalidRequest("the client authenticates twice"));
                }
                basic = Basic::parse(header.as_bytes()).ok_or(AuthenticationFailure::Malformed)?;
                if form.get("client_id").is_some_and(|other| other != basic.id()) {
                    return Err(TokenError::InvalidRequest("client_id differs from the header's"));
                }
                (basic.id(), Some(basic.secret()))
            }
        };
        // Some libraries send `Basic id:` or an empty `client_secret` for a client that has no secret.
        let secret = secret.filter(|secret| !secret.is_empty());
        let id = ClientId::new(id).map_err(|_| AuthenticationFailure::UnknownClient)?;
        let client = clients.client(&id).await?;
        let Some(secret) = secret else {
            let client = client.ok_or(AuthenticationFailure::UnknownClient)?;
            return if client.is_public() {
                Ok(client)
            } else {
                Err(AuthenticationFailure::MissingCredentials.into())
            };
        };
        // An unknown client costs the same hash and comparison as a known one.
        let matches = client.as_deref().unwrap_or(&DECOY).has_secret(secret);
        match client {
            Some(client) if matches => Ok(client),
            Some(_) => Err(AuthenticationFailure::WrongCredentials.into()),
            None => Err(AuthenticationFailure::UnknownClient.into()),
        }
    }

    fn methods(&self) -> Vec<&'static str> {
        vec!["client_secret_basic", "client_secret_post", "none"]
    }
}

/// The identifier that a caller claims which failed to authenticate, and the method that it tried.
/// Only for refused requests: the form is parsed again.
pub(super) fn claimed(request: &Request<Bytes>) -> (Option<Zeroizing<String>>, &'static str) {
    let form = credentials(request).ok();
    let field = |name| form.as_ref().and_then(|form| form.get(name));
    let named = || field("client_id").map(|id| Zeroizing::new(id.to_owned()));
    match request.headers().get(header::AUTHORIZATION) {
        Some(header) => match Basic::parse(header.as_bytes()) {
            Some(basic) => (Some(Zeroizing::new(basic.id().to_owned())), "client_secret_basic"),
            None => (named(), "other"),
        },
        None if field("client_secret").is_some() => (named(), "client_secret_post"),
        None if field("client_assertion").is_some() => (named(), "other"),
        None => (named(), "none"),
    }
}

/// A client whose secret nobody knows.
static DECOY: LazyLock<Client> = LazyLock::new(|| {
    let Ok(client) = Client::hashed("decoy", [SecretHash::from_bytes([0; 32])]).build() else {
        unreachable!("the registration is valid")
    };
    client
});

/// The identifier and secret of a `Basic` header: both are form-encoded before they are joined (RFC
/// 6749 §2.3.1).
struct Basic {
    /// The identifier and the secret, one after the other.
    joined: Zeroizing<String>,
    id: Range<usize>,
    secret: RangeFrom<usize>,
}

impl Basic {
    fn parse(header: &[u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok()?;
        let (scheme, credentials) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let credentials = credentials.trim_start();
        // A buffer of our own is wiped even if decoding fails.
        let mut joined = Zeroizing::new(vec![0; credentials.len()]);
        let length = STANDARD.decode_slice(credentials, &mut joined).ok()?;
        joined.truncate(length);
        let colon = joined.iter().position(|byte| *byte == b':')?;
        if !joined.iter().any(|byte| matches!(byte, b'+' | b'%')) {
            // Nothing to decode, as in most identifiers and secrets: the buffer becomes the text.
            std::str::from_utf8(&joined).ok()?;
            let joined = String::from_utf8(std::mem::take(&mut *joined)).ok()?;
            return Some(Self {
                joined: Zeroizing::new(joined),
                id: 0..colon,
                secret: colon + 1..,
            });
        }
        let (id, secret) = (decoded(&joined[..colon])?, decoded(&joined[colon + 1..])?);
        let mut joined = Zeroizing::new(String::with_capacity(id.len() + secret.len()));
        joined.push_str(&id);
        joined.push_str(&secret);
        Some(Self { joined, id: 0..id.len(), secret: id.len().. })
    }

    fn id(&self) -> &str {
        &self.joined[self.id.clone()]
    }

    fn secret(&self) -> &str {
        &self.joined[self.secret.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_decoded() {
        let header = |text: &str| format!("bAsIc {}", STANDARD.encode(text));
        let basic = |header: &[u8]| Basic::parse(header);
        for (encoded, id, secret) in [
            ("a%20b+c:p%3Aq%25&r=s", "a b c", "p:q%&r=s"),
            ("app:hush:hush", "app", "hush:hush"),
            ("%C3%A9:", "é", ""),
            (":", "", ""),
        ] {
            let basic = basic(header(encoded).as_bytes()).unwrap();
            assert_eq!((basic.id(), basic.secret()), (id, secret));
        }
        assert!(basic(header("no colon").as_bytes()).is_none());
        assert!(basic(header("a:%ff").as_bytes()).is_none());
        assert!(basic(b"Basic !!!").is_none());
        assert!(basic(b"Bearer abc").is_none());
        assert!(basic(b"Basic").is_none());
    }
}
