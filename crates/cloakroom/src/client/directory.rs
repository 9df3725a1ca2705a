//! The directory of registered clients.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::ClientId;

use crate::client::Client;
use crate::client::builder::ClientConfigError;

/// Finds the registration of a client. Implement it over your own registry with
/// [`#[async_trait]`](macro@crate::async_trait), or use [`StaticClients`].
///
/// ```
/// use std::sync::Arc;
/// use cloakroom::{Client, ClientDirectory, ClientId, DirectoryError, async_trait};
///
/// #[derive(Debug)]
/// struct Registry;
///
/// #[async_trait]
/// impl ClientDirectory for Registry {
///     async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
///         // Read the registration from your database.
///         let client = Client::public(id).build().map_err(DirectoryError::new)?;
///         Ok(Some(Arc::new(client)))
///     }
/// }
/// ```
#[async_trait]
pub trait ClientDirectory: fmt::Debug + Send + Sync + 'static {
    /// The client with this identifier; `None` if it is not registered.
    ///
    /// # Errors
    ///
    /// If the directory is unavailable. Return an error then, and never `None`.
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError>;

    /// The scope values that clients may be granted, as far as the directory can name them without
    /// reading all its clients. The metadata lists them as `scopes_supported` (RFC 8414 §2), and
    /// omits that member if the list is empty, which it is by default.
    fn scopes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether a `client_id` may be the URL of a client metadata document. The metadata then has
    /// `client_id_metadata_document_supported`.
    fn takes_documents(&self) -> bool {
        false
    }

    /// Called before a grant is made for a client. `false` if the client is not registered any more: there
    /// is no grant then. A revocation of the client that begins after this call covers the grant.
    ///
    /// By default, it returns `true` and does nothing else.
    /// [`RegisteredClients`](crate::RegisteredClients) counts grants, to know which registrations are in use. If yours
    /// is a directory over another one, hand the call on to it.
    ///
    /// # Errors
    ///
    /// If the directory is unavailable.
    async fn count_grant(&self, _id: &ClientId) -> Result<bool, DirectoryError> {
        Ok(true)
    }
}

#[async_trait]
impl<T: ClientDirectory + ?Sized> ClientDirectory for Arc<T> {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        (**self).client(id).await
    }

    fn scopes(&self) -> Vec<String> {
        (**self).scopes()
    }

    fn takes_documents(&self) -> bool {
        (**self).takes_documents()
    }

    async fn count_grant(&self, id: &ClientId) -> Result<bool, DirectoryError> {
        (**self).count_grant(id).await
    }
}

/// The client directory is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("the client directory is unavailable")]
pub struct DirectoryError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl DirectoryError {
    /// An outage with this cause.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// A fixed set of clients. [`scopes`](ClientDirectory::scopes) returns the scope values of all of
/// them, in alphabetical order.
#[derive(Debug, Clone, Default)]
pub struct StaticClients {
    by_id: HashMap<ClientId, Arc<Client>>,
    scopes: BTreeSet<String>,
}

impl StaticClients {
    /// A directory of these clients, given as clients or as their builders.
    ///
    /// # Errors
    ///
    /// If a builder fails, or if two clients have the same identifier.
    pub fn new(
        clients: impl IntoIterator<Item = impl TryInto<Client, Error: Into<ClientConfigError>>>,
    ) -> Result<Self, ClientConfigError> {
        let mut all = HashMap::new();
        for client in clients {
            let client = client.try_into().map_err(Into::into)?;
            let id = client.id().clone();
            if all.contains_key(&id) {
                let why = "two clients have this client_id".to_owned();
                return Err(ClientConfigError { client: id.to_string(), why });
            }
            all.insert(id, Arc::new(client));
        }
        let scopes = all.values().flat_map(|client| client.scope().iter().map(str::to_owned));
        Ok(Self { scopes: scopes.collect(), by_id: all })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values().map(|client| &**client)
    }
}

#[async_trait]
impl ClientDirectory for StaticClients {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Ok(self.by_id.get(id).cloned())
    }

    fn scopes(&self) -> Vec<String> {
        self.scopes.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::builder::ClientBuilder;
    use crate::client::registration::{ClientLifetimes, Format, GrantType, Role, Serves};

    #[test]
    fn two_clients_of_one_identifier_are_refused() {
        let app = || Client::public("app").build().unwrap();
        let refused = StaticClients::new([app(), app()]).unwrap_err();
        assert_eq!(refused.client, "app");
    }

    #[test]
    fn a_builder_is_built_on_the_way_in() {
        assert_eq!(StaticClients::new([Client::public("app")]).unwrap().iter().count(), 1);
        let refused = StaticClients::new([Client::public("app").redirect_uri("/cb")]).unwrap_err();
        assert!(refused.why.contains("absolute"), "{refused}");
    }

    #[tokio::test]
    async fn registrations_without_a_contradiction_are_accepted() {
        let secret = "s".repeat(32);
        let confidential = |id: &str| Client::confidential(id, &secret);
        let audience = |client: ClientBuilder| client.audience("https://a", Format::Opaque);
        let shortened = ClientLifetimes::default().grant(Duration::from_secs(1));
        let clients = [
            Client::public("idle"),
            Client::public("waiting").redirect_uri("https://app.example/cb?x"),
            audience(Client::public("reader")),
            audience(Client::public("app").grant_types([GrantType::AuthorizationCode]))
                .redirect_uri("com.example.app:/cb")
                .lifetimes(shortened),
            audience(confidential("worker").grant_types([GrantType::ClientCredentials])),
            confidential("api").role(Role::Introspect).serves(Serves::Everything),
            confidential("gateway").role(Role::HandleKeys),
        ];
        let directory = StaticClients::new(clients.map(|client| client.build().unwrap())).unwrap();
        assert_eq!(directory.iter().count(), 7);
        let found = directory.client(&ClientId::new("app").unwrap()).await.unwrap().unwrap();
        assert_eq!(found.id().as_str(), "app");
        assert!(directory.client(&ClientId::new("other").unwrap()).await.unwrap().is_none());
    }
}
