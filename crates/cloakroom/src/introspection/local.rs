//! The resource side in the process of the authorization server.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::{ClientId, Introspection, TokenSecret};
use cloakroom_resource::{Introspector, PhantomJwt, UnavailableError};

use crate::client::Client;
use crate::error::TokenError;
use crate::introspection::Caller;
use crate::issuer::Issuer;

/// Introspects and swaps without HTTP: for a gateway or an API that runs in the same process as its
/// [`Issuer`]. It sees what its client, a resource server, may see.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::resource::PhantomLayer;
/// use cloakroom::{Client, Issuer, LocalIntrospector, Serves};
///
/// let secret = "gateway-demo-secret-0123456789";
/// let issuer = Issuer::dev()
///     .static_clients([Client::resource_server("gateway", secret, Serves::Everything)?])?
///     .build()
///     .await?;
/// let local = LocalIntrospector::new(issuer, &"gateway".parse()?).await?;
/// let gateway = PhantomLayer::new(local, "https://orders.example");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct LocalIntrospector {
    issuer: Issuer,
    client: ClientId,
}

impl LocalIntrospector {
    /// Introspects as this client.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidClient`] if there is none, or if the client directory fails.
    pub async fn new(issuer: Issuer, client: &ClientId) -> Result<Self, TokenError> {
        issuer.inner.client(client).await?;
        Ok(Self { issuer, client: client.clone() })
    }

    /// The client as it is registered now.
    async fn client(&self) -> Result<Arc<Client>, UnavailableError> {
        self.issuer.inner.client(&self.client).await.map_err(UnavailableError::other)
    }
}

#[async_trait]
impl Introspector for LocalIntrospector {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        let client = self.client().await?;
        let caller = Caller::Client(&client);
        self.issuer.introspect(token, caller).await.map_err(UnavailableError::other)
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        let client = self.client().await?;
        let caller = Caller::Client(&client);
        let swapped = self.issuer.swap(token, Some(resource), caller).await;
        swapped
            .map_err(UnavailableError::other)?
            .map(|swapped| PhantomJwt::parse(swapped.jwt))
            .transpose()
    }
}
