//! Introspection (RFC 7662), and the swap of a handle for a JWT.

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

use crate::client::discovery::Metadata;
use crate::client::http::check_media_type;
use crate::client::json::reason;
use crate::client::protected::{Protected, endpoint_constructors, json};
use crate::error::UnavailableError;
use crate::introspect::phantom_jwt::PhantomJwt;

/// Introspects tokens and swaps handles. [`IntrospectionClient`] does so over HTTP; an authorization
/// server in the same process can implement this trait itself. Implementations need
/// `#[async_trait]`, which is re-exported as [`async_trait`](crate::async_trait).
///
/// An implementation
///
/// - must report every outage as an error, never as an inactive token;
/// - must limit the time that it takes, since requests wait for it;
/// - must not cache: the layers cache, and know how old an answer may be.
#[async_trait]
pub trait Introspector: fmt::Debug + Send + Sync + 'static {
    /// Whether the token is active, and its claims if so.
    ///
    /// # Errors
    ///
    /// [`UnavailableError`] if there is no answer.
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError>;

    /// The JWT for this handle at `resource`; `None` if the handle is not active, or if its
    /// audience does not contain that resource.
    ///
    /// # Errors
    ///
    /// [`UnavailableError`] if there is no answer.
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

/// Introspects tokens at any RFC 7662 server, and swaps handles at a server that answers
/// `Accept: application/jwt`. Cheap to clone. Every call sends one request; nothing is cached.
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

endpoint_constructors!(
    IntrospectionClient,
    "introspection_endpoint",
    Metadata::introspection_endpoint
);

impl From<Protected> for IntrospectionClient {
    fn from(endpoint: Protected) -> Self {
        Self(endpoint)
    }
}

impl IntrospectionClient {
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
        serde_json::from_slice(&json(&response)?).map_err(|error| {
            UnavailableError::unreadable("it is not an introspection response", reason(&error))
        })
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
        check_media_type(&response, "application/jwt", "it is not application/jwt")?;
        let jwt = std::str::from_utf8(response.body())
            .map_err(|_| UnavailableError::Malformed("it is not a JWT"))?;
        PhantomJwt::parse(TokenSecret::new(jwt)).map(Some)
    }
}

#[cfg(test)]
mod tests;
