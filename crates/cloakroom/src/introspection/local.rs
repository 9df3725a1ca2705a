//! Introspection for a gateway or an API in the same process.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::{ClientId, Introspection, TokenSecret};
use cloakroom_resource::{BearerLayer, Introspector, PhantomJwt, UnavailableError};

use crate::client::Client;
use crate::client::registration::Role;
use crate::error::TokenError;
use crate::introspection::Caller;
use crate::issuer::Issuer;

/// Introspects and swaps tokens without HTTP, for a gateway or an API in the same process as its
/// [`Issuer`]. It sees only the tokens that its client, a resource server, may see.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::resource::PhantomLayer;
/// use cloakroom::{Client, Issuer, LocalIntrospector, Serves};
///
/// let secret = "gateway-demo-secret-0123456789";
/// let issuer = Issuer::dev()
///     .static_clients([Client::resource_server("gateway", secret, Serves::Everything)])?
///     .build()
///     .await?;
/// let local = LocalIntrospector::new(issuer, &"gateway".parse()?).await?;
/// let gateway = PhantomLayer::new(local, "https://orders.example");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct LocalIntrospector {
    issuer: Issuer,
    /// `None` for the issuer's own process, which may see every token.
    client: Option<ClientId>,
}

impl LocalIntrospector {
    /// An introspector that acts as this client.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidClient`] if the client is not registered,
    /// [`TokenError::UnauthorizedClient`] if it lacks [`Role::Introspect`], or an error of the
    /// client directory.
    pub async fn new(issuer: Issuer, client: &ClientId) -> Result<Self, TokenError> {
        if !issuer.inner.client(client).await?.has_role(Role::Introspect) {
            return Err(TokenError::UnauthorizedClient("it lacks the role to introspect"));
        }
        Ok(Self { issuer, client: Some(client.clone()) })
    }

    /// Introspects as the issuer's own process: it sees every access token. Use it for services that you
    /// trust as much as the issuer.
    #[must_use]
    pub const fn internal(issuer: Issuer) -> Self {
        Self { issuer, client: None }
    }

    /// The client as it is registered now.
    async fn client(&self) -> Result<Option<Arc<Client>>, UnavailableError> {
        let Some(client) = &self.client else { return Ok(None) };
        self.issuer.inner.client(client).await.map(Some).map_err(UnavailableError::other)
    }
}

impl Issuer {
    /// Protects an API in the issuer's own process, whose name in `aud` is `audience`. Handles and JWTs
    /// pass alike, and nothing has to be registered or configured.
    ///
    /// Each request looks at the store: a revocation takes effect at the next one, and every signing key
    /// counts as soon as it signs. To answer from memory, add a [`cache`](BearerLayer::cache) and a
    /// [`freshness`](BearerLayer::freshness).
    ///
    /// A JWT that a gateway swapped for a handle is refused. Behind a gateway, use a
    /// [`Verifier`](cloakroom_resource::Verifier).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use axum::{Router, routing::get};
    /// use cloakroom::resource::VerifiedToken;
    /// use cloakroom::{Client, Format, Issuer};
    ///
    /// async fn orders(token: VerifiedToken) -> String {
    ///     format!("orders of {:?}", token.subject())
    /// }
    ///
    /// let issuer = Issuer::dev()
    ///     .static_clients([Client::public("app")
    ///         .scope("orders:read")
    ///         .audience("https://orders.example", Format::Opaque)])?
    ///     .build()
    ///     .await?;
    /// let bearer = issuer.protect("https://orders.example").require_scope("orders:read")?;
    /// let api: Router = Router::new().route("/orders", get(orders)).route_layer(bearer);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn protect(&self, audience: &str) -> BearerLayer {
        let introspector = LocalIntrospector::internal(self.clone());
        BearerLayer::introspecting(introspector, self.url(), audience)
            .clock(Arc::clone(self.clock()))
    }
}

#[async_trait]
impl Introspector for LocalIntrospector {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        let client = self.client().await?;
        let caller = client.as_deref().map_or(Caller::Internal, Caller::Client);
        self.issuer.introspect(token, caller).await.map_err(UnavailableError::other)
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        let client = self.client().await?;
        let caller = client.as_deref().map_or(Caller::Internal, Caller::Client);
        let swapped = self.issuer.swap(token, Some(resource), caller).await;
        swapped
            .map_err(UnavailableError::other)?
            .map(|swapped| PhantomJwt::parse(swapped.jwt))
            .transpose()
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::client::registration::Serves;

    #[tokio::test]
    async fn a_client_that_may_not_introspect_is_refused_at_once() {
        let secret = "s".repeat(22);
        let clients = [
            Client::resource_server("api", &secret, Serves::Everything),
            Client::confidential("app", &secret),
        ];
        let clients = clients.map(|client| client.build().unwrap());
        let issuer = Issuer::dev().static_clients(clients).unwrap().build().await.unwrap();
        let local =
            async |id: &str| LocalIntrospector::new(issuer.clone(), &id.parse().unwrap()).await;
        assert!(local("api").await.is_ok());
        assert!(matches!(local("app").await, Err(TokenError::UnauthorizedClient(_))));
        assert!(matches!(local("nobody").await, Err(TokenError::InvalidClient(_))));
    }
}
