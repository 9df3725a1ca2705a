//! The directory that knows the clients.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::ClientId;

use crate::client::Client;
use crate::client::registration::{Format, GrantType, Role, Serves};

/// Who may do what. Implement it over the app's own registry; [`StaticClients`] is built in.
#[async_trait]
pub trait ClientDirectory: fmt::Debug + Send + Sync + 'static {
    /// The client of this identifier.
    ///
    /// # Errors
    ///
    /// If the directory cannot be asked. That must never look like an unknown client.
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError>;
}

/// The client directory could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("the client directory is unavailable")]
pub struct DirectoryError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A client's registration contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("client `{client}`: {why}")]
pub struct ClientConfigError {
    /// The client.
    pub client: ClientId,
    /// What is wrong.
    pub why: &'static str,
}

/// A fixed set of clients.
#[derive(Debug, Clone, Default)]
pub struct StaticClients(HashMap<ClientId, Arc<Client>>);

impl StaticClients {
    /// These clients.
    ///
    /// # Errors
    ///
    /// If two have the same identifier, or if the registration of one contradicts itself.
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Result<Self, ClientConfigError> {
        let mut all = HashMap::new();
        for client in clients {
            let refused = |why| ClientConfigError { client: client.id.clone(), why };
            client.check()?;
            if all.contains_key(&client.id) {
                return Err(refused("two clients have this client_id"));
            }
            all.insert(client.id.clone(), Arc::new(client));
        }
        Ok(Self(all))
    }
}

impl StaticClients {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.0.values().map(|client| &**client)
    }
}

#[async_trait]
impl ClientDirectory for StaticClients {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Ok(self.0.get(id).cloned())
    }
}

impl Client {
    /// Refuses a registration that contradicts itself. [`StaticClients`] does this to each of its
    /// clients; a directory of the app's own must do it before it returns one.
    ///
    /// # Errors
    ///
    /// What contradicts itself.
    pub fn check(&self) -> Result<(), ClientConfigError> {
        match self.contradiction() {
            Some(why) => Err(ClientConfigError { client: self.id.clone(), why }),
            None => Ok(()),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let lifetimes =
            [self.lifetimes.access_token, self.lifetimes.refresh_idle, self.lifetimes.grant];
        let repeated = |(index, (resource, _)): (usize, &(Arc<str>, Format))| {
            self.audiences[..index].iter().any(|(other, _)| other == resource)
        };
        if self.is_public() && self.allows(GrantType::ClientCredentials) {
            // RFC 6749 §4.4: "MUST only be used by confidential clients"
            Some("client_credentials needs a secret")
        } else if self.allows(GrantType::AuthorizationCode) && self.redirect_uris.is_empty() {
            Some("authorization_code needs a redirect URI")
        } else if !self.redirect_uris.iter().all(|uri| is_absolute(uri)) {
            // RFC 6749 §3.1.2: "The redirection endpoint URI MUST be an absolute URI [...] MUST NOT
            // include a fragment component."
            Some("a redirect URI is absolute and has no fragment")
        } else if !self.grant_types.is_empty() && self.audiences.is_empty() {
            Some("it has grant types, but no audience to have tokens for")
        } else if self.audiences.iter().enumerate().any(repeated) {
            Some("an audience is listed twice")
        } else if lifetimes.contains(&Some(Duration::ZERO)) {
            Some("a lifetime is zero")
        } else if !self.has_role(Role::Introspect) && self.serves != Serves::Nothing {
            Some("it serves resources, but may not introspect")
        } else if self.has_role(Role::Introspect) && self.serves == Serves::Nothing {
            Some("it may introspect, but serves nothing")
        } else if self.is_public() && Role::ALL.iter().any(|role| self.has_role(*role)) {
            Some("a client with a role needs a secret")
        } else {
            None
        }
    }
}

fn is_absolute(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|uri| uri.fragment().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::registration::ClientLifetimes;

    #[test]
    fn registrations_that_contradict_themselves_are_refused() {
        let public = || Client::public("app").unwrap();
        let audience = |client: Client| client.audience("https://a", Format::Opaque).unwrap();
        let introspecting =
            || Client::confidential("app", &"s".repeat(32)).unwrap().role(Role::Introspect);
        let shortened = ClientLifetimes { grant: Some(Duration::ZERO), ..Default::default() };
        for (client, why) in [
            (audience(public().grant_types([GrantType::ClientCredentials])), "secret"),
            (audience(public().grant_types([GrantType::AuthorizationCode])), "redirect"),
            (public().redirect_uri("/callback"), "absolute"),
            (public().redirect_uri("https://app.example/#x"), "fragment"),
            (public().grant_types([GrantType::RefreshToken]), "audience"),
            (audience(audience(public())), "twice"),
            (public().lifetimes(shortened), "zero"),
            (introspecting(), "serves nothing"),
            (
                Client::confidential("app", &"s".repeat(32)).unwrap().serves(Serves::Everything),
                "may not introspect",
            ),
            (public().role(Role::Introspect).serves(Serves::Everything), "secret"),
            (public().role(Role::RevocationLog), "secret"),
            (public().role(Role::HandleKeys), "secret"),
        ] {
            let refused = StaticClients::new([client]).unwrap_err();
            assert!(refused.why.contains(why), "{refused}");
        }
        let double = StaticClients::new([public(), public()]).unwrap_err();
        assert_eq!(double.client.as_str(), "app");
    }

    #[tokio::test]
    async fn registrations_without_a_contradiction_are_taken() {
        let secret = "s".repeat(32);
        let confidential = |id| Client::confidential(id, &secret).unwrap();
        let audience = |client: Client| client.audience("https://a", Format::Opaque).unwrap();
        let shortened =
            ClientLifetimes { grant: Some(Duration::from_secs(1)), ..Default::default() };
        let clients = [
            Client::public("idle").unwrap(),
            Client::public("waiting").unwrap().redirect_uri("https://app.example/cb?x"),
            audience(Client::public("reader").unwrap()),
            audience(Client::public("app").unwrap().grant_types([GrantType::AuthorizationCode]))
                .redirect_uri("com.example.app:/cb")
                .lifetimes(shortened),
            audience(confidential("worker").grant_types([GrantType::ClientCredentials])),
            confidential("api").role(Role::Introspect).serves(Serves::Everything),
            confidential("gateway").role(Role::HandleKeys),
        ];
        let directory = StaticClients::new(clients).unwrap();
        assert_eq!(directory.iter().count(), 7);
        let found = directory.client(&ClientId::new("app").unwrap()).await.unwrap().unwrap();
        assert_eq!(found.id.as_str(), "app");
        assert!(directory.client(&ClientId::new("other").unwrap()).await.unwrap().is_none());
    }
}
