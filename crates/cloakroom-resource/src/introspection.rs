//! Asking the authorization server: introspection (RFC 7662), and the swap of a handle for a JWT.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom_core::{Introspection, TokenSecret};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use url::form_urlencoded;

use crate::discovery::Metadata;
use crate::endpoint::Endpoint;
use crate::error::{Outage, SetupError};
use crate::http_client::{HttpClient, exchange, is_media_type};
use crate::swapped::Swapped;

/// Somebody who knows what a token stands for. [`IntrospectionClient`] asks over HTTP; an
/// authorization server that lives in the same process may answer itself.
///
/// An implementation must report every outage as an error, never as an inactive token; it must
/// bound its own time, since requests wait for it; and it must not remember what it was told: the
/// layers do, and know how old that may be.
#[async_trait]
pub trait Introspector: fmt::Debug + Send + Sync + 'static {
    /// What a token stands for.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, Outage>;

    /// The JWT that stands for a token at `resource`; `None` if the token is not active, or not
    /// meant for it.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    async fn swap(&self, token: &TokenSecret, resource: &str) -> Result<Option<Swapped>, Outage>;
}

#[async_trait]
impl<T: Introspector + ?Sized> Introspector for Arc<T> {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, Outage> {
        (**self).introspect(token).await
    }

    async fn swap(&self, token: &TokenSecret, resource: &str) -> Result<Option<Swapped>, Outage> {
        (**self).swap(token, resource).await
    }
}

/// How a resource server shows the authorization server who it is: `client_secret_basic`
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
    pub(crate) fn basic(&self) -> Result<HeaderValue, Outage> {
        let encode = |text: &str| {
            let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            TokenSecret::new(encoded)
        };
        let (id, secret) = (encode(&self.client_id), encode(self.secret.expose()));
        let pair = TokenSecret::new(format!("{}:{}", id.expose(), secret.expose()));
        let value = TokenSecret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        let mut value = HeaderValue::from_str(value.expose()).map_err(Outage::other)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Introspects tokens over HTTP, at any RFC 7662 server; swaps them at one that answers
/// `Accept: application/jwt`. Cheap to clone. Every call is one request: nothing is cached, so a
/// revoked token is refused at once.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_resource::{ClientCredentials, IntrospectionClient, Introspector, TokenSecret};
///
/// let credentials = ClientCredentials::new("orders-api", std::env::var("ORDERS_API_SECRET")?);
/// let client = IntrospectionClient::discover("https://as.example", credentials).await?;
///
/// let answer = client.introspect(&TokenSecret::new("cr_at_...")).await?;
/// println!("{}", answer.is_active());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct IntrospectionClient {
    endpoint: Uri,
    credentials: ClientCredentials,
    client: Arc<dyn HttpClient>,
}

impl IntrospectionClient {
    /// A client of the introspection endpoint at this URL.
    ///
    /// # Errors
    ///
    /// If `endpoint` is no URL, or neither `https` nor on this machine.
    pub fn new(
        endpoint: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let endpoint = Endpoint::parse("introspection endpoint", endpoint)?;
        Self::at(&endpoint, credentials, Arc::new(client))
    }

    /// A client of the introspection endpoint that the issuer's metadata names (RFC 8414), with
    /// the built-in HTTP client. The metadata is fetched once, now.
    ///
    /// # Errors
    ///
    /// If the metadata cannot be fetched, is of another issuer, or names no usable
    /// `introspection_endpoint`.
    #[cfg(feature = "client")]
    pub async fn discover(
        issuer: &str,
        credentials: ClientCredentials,
    ) -> Result<Self, SetupError> {
        Self::discover_with(issuer, credentials, crate::ReqwestClient::new()?).await
    }

    /// Like `discover`, with an HTTP client of the app's own.
    ///
    /// # Errors
    ///
    /// If the metadata cannot be fetched, is of another issuer, or names no usable
    /// `introspection_endpoint`.
    pub async fn discover_with(
        issuer: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let client: Arc<dyn HttpClient> = Arc::new(client);
        let endpoint = Metadata::fetch(issuer, &*client).await?.introspection_endpoint()?;
        Self::at(&endpoint, credentials, client)
    }

    fn at(
        endpoint: &Endpoint,
        credentials: ClientCredentials,
        client: Arc<dyn HttpClient>,
    ) -> Result<Self, SetupError> {
        Ok(Self { endpoint: endpoint.uri("introspection endpoint")?, credentials, client })
    }

    fn request(
        &self,
        token: &TokenSecret,
        resource: Option<&str>,
        accept: &'static str,
    ) -> Result<Request<Bytes>, Outage> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token.expose());
        if let Some(resource) = resource {
            form.append_pair("resource", resource);
        }
        let mut request = Request::new(Bytes::from(form.finish()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(header::AUTHORIZATION, self.credentials.basic()?);
        Ok(request)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Outage> {
        let response = exchange(&*self.client, request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
            // RFC 7662 §2.3: these are about the caller's own credentials, not about the token.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(Outage::Credentials(status))
            }
            status => Err(Outage::Status(status)),
        }
    }
}

#[async_trait]
impl Introspector for IntrospectionClient {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, Outage> {
        let response = self.send(self.request(token, None, "application/json")?).await?;
        if response.status() != StatusCode::OK {
            return Err(Outage::Status(response.status()));
        }
        if !is_media_type(&response, "application/json") {
            return Err(Outage::Malformed("it is not application/json"));
        }
        serde_json::from_slice(response.body())
            .map_err(|_| Outage::Malformed("it is no introspection response"))
    }

    async fn swap(&self, token: &TokenSecret, resource: &str) -> Result<Option<Swapped>, Outage> {
        let response = self.send(self.request(token, Some(resource), "application/jwt")?).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        // A body of any other type is no token, however it looks.
        if !is_media_type(&response, "application/jwt") {
            return Err(Outage::Malformed("it is not application/jwt"));
        }
        let jwt =
            std::str::from_utf8(response.body()).map_err(|_| Outage::Malformed("it is no JWT"))?;
        Swapped::parse(TokenSecret::new(jwt)).map(Some)
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
