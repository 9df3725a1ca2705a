//! Asking the authorization server: introspection (RFC 7662), and the swap of a handle for a JWT.

pub(crate) mod answer;
pub(crate) mod handle_keys;
pub(crate) mod limits;
pub(crate) mod phantom_jwt;
pub(crate) mod single_flight;
pub(crate) mod swap;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom_core::{Introspection, TokenSecret};
use http::{Response, StatusCode};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::client::credentials::ClientCredentials;
use crate::client::discovery::Metadata;
use crate::client::http::{HttpClient, is_media_type};
use crate::client::protected::{Protected, json};
use crate::error::{SetupError, UnavailableError};
use crate::introspect::phantom_jwt::PhantomJwt;

const WHAT: &str = "introspection_endpoint";

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
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError>;

    /// The JWT that stands for a token at `resource`; `None` if the token is not active, or not
    /// meant for it.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError>;
}

#[async_trait]
impl<T: Introspector + ?Sized> Introspector for Arc<T> {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        (**self).introspect(token).await
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        (**self).swap(token, resource).await
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
pub struct IntrospectionClient(Protected);

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
        Protected::new(WHAT, endpoint, credentials, client).map(Self)
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
        Protected::discover(WHAT, Metadata::introspection_endpoint, issuer, credentials, client)
            .await
            .map(Self)
    }

    async fn ask(
        &self,
        token: &TokenSecret,
        resource: Option<&str>,
        accept: &'static str,
    ) -> Result<Response<Bytes>, UnavailableError> {
        self.0.post(form(token, resource), accept).await
    }
}

fn form(token: &TokenSecret, resource: Option<&str>) -> Zeroizing<String> {
    // Room for all of it: a buffer that moves leaves the token where it was.
    let room = 3 * (token.expose().len() + resource.map_or(0, str::len)) + 32;
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(room));
    form.append_pair("token", token.expose());
    if let Some(resource) = resource {
        form.append_pair("resource", resource);
    }
    Zeroizing::new(form.finish())
}

#[async_trait]
impl Introspector for IntrospectionClient {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        let response = self.ask(token, None, "application/json").await?;
        serde_json::from_slice(&json(&response)?)
            .map_err(|_| UnavailableError::Malformed("it is no introspection response"))
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        let response = self.ask(token, Some(resource), "application/jwt").await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        // A body of any other type is no token, however it looks.
        if !is_media_type(&response, "application/jwt") {
            return Err(UnavailableError::Malformed("it is not application/jwt"));
        }
        let jwt = std::str::from_utf8(response.body())
            .map_err(|_| UnavailableError::Malformed("it is no JWT"))?;
        PhantomJwt::parse(TokenSecret::new(jwt)).map(Some)
    }
}
