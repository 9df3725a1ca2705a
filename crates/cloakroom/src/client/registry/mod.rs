//! Clients that register themselves (RFC 7591), and the directory that knows them.

mod registered_client;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::ClientId;
use cloakroom_core::time::{Clock, SystemClock};

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::client::directory::{ClientDirectory, DirectoryError};
use store::InMemory;

pub(crate) use registered_client::MetadataFault;
pub use registered_client::RegisteredClient;
pub use store::{RegistrationStore, Replaceable};

/// How every identifier begins, so that no other is looked up.
pub(crate) const PREFIX: &str = "dyn-";
/// How long a new registration makes no room: as long as an authorization request waits for its user.
const FIRST_USE: Duration = Duration::from_secs(60 * 60);
/// How long a registration makes no room after its last grant: the default of
/// [`Lifetimes::grant`](crate::Lifetimes::grant).
const IDLE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

type Admit = dyn Fn(ClientBuilder, &RegisteredClient) -> Option<ClientBuilder> + Send + Sync;

/// A [`ClientDirectory`] whose clients register themselves (RFC 7591), over another directory whose clients
/// come first. [`Registration`](crate::http::Registration) is the endpoint over it.
///
/// You say what such a client may do: the closure gets a [`ClientBuilder`] with what the client said about
/// itself, and returns it with scope and audience, or `None` to refuse the client. It decides at each look-up,
/// so a change takes effect at once.
///
/// Registrations are kept in memory: a restart forgets them, clients register again, and their users sign in
/// again. Keep them in your database with [`store`](Self::store).
///
/// # How many
///
/// At most 10,000 registrations are kept ([`at_most`](Self::at_most)). If there are as many, one makes room
/// for a new one: of those that no user has let in for an hour, the one that registered first. If there are none, the
/// one whose last grant was made the longest time ago, at least 90 days ([`idle`](Self::idle)). If there is none
/// either, no more clients are taken.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use cloakroom::http::{Endpoints, Registration};
/// use cloakroom::{Format, Issuer, RegisteredClients, StaticClients};
///
/// let clients = Arc::new(RegisteredClients::new(StaticClients::default(), |client, _| {
///     Some(client.scope("notes:read").audience("https://notes.example", Format::Jwt))
/// }));
/// let issuer = Issuer::dev().clients(clients.clone()).build().await?;
/// let endpoints = Endpoints::new(issuer).registration(Registration::new(clients));
/// # Ok(()) }
/// ```
pub struct RegisteredClients {
    known: Box<dyn ClientDirectory>,
    admit: Box<Admit>,
    store: Arc<dyn RegistrationStore>,
    at_most: usize,
    idle: Duration,
    clock: Arc<dyn Clock>,
}

impl RegisteredClients {
    /// Registrations in memory, over another directory.
    pub fn new(
        known: impl ClientDirectory,
        admit: impl Fn(ClientBuilder, &RegisteredClient) -> Option<ClientBuilder>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            known: Box::new(known),
            admit: Box::new(admit),
            store: Arc::new(InMemory::default()),
            at_most: 10_000,
            idle: IDLE,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Keeps the registrations here instead of in memory.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn RegistrationStore>) -> Self {
        self.store = store;
        self
    }

    /// The most registrations that are kept (10,000).
    #[must_use]
    pub const fn at_most(mut self, clients: usize) -> Self {
        self.at_most = clients;
        self
    }

    /// How long after its last grant a registration may make room (90 days). If it is at least
    /// [`Lifetimes::grant`](crate::Lifetimes::grant), nobody who is signed in loses anything.
    #[must_use]
    pub const fn idle(mut self, life: Duration) -> Self {
        self.idle = life;
        self
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The registration with this identifier, to show what the client said about itself.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn registration(
        &self,
        id: &ClientId,
    ) -> Result<Option<RegisteredClient>, DirectoryError> {
        Ok(self.find(id).await?.map(|(client, _)| client))
    }

    /// A registration, and how many grants were counted.
    pub(crate) async fn find(
        &self,
        id: &ClientId,
    ) -> Result<Option<(RegisteredClient, u64)>, DirectoryError> {
        if id.as_str().starts_with(PREFIX) { self.store.find(id).await } else { Ok(None) }
    }

    /// What a client may do that says this about itself; `None` if it is refused.
    pub(crate) fn admit(&self, client: &RegisteredClient) -> Option<Client> {
        let built = (self.admit)(client.builder(), client)?.build();
        let built = built.inspect_err(|error| tracing::warn!(%error, "a registration is refused"));
        // A closure that begins with another builder could make it anybody.
        built.ok().filter(|built| built.id() == client.id())
    }

    /// Keeps a new registration; `false` if there is no room.
    pub(crate) async fn insert(&self, client: &RegisteredClient) -> Result<bool, DirectoryError> {
        while !self.store.insert(client.clone(), self.at_most).await? {
            let now = self.clock.now();
            let replaceable =
                Replaceable { registered_by: now - FIRST_USE, granted_by: now - self.idle };
            if !self.store.make_room(replaceable).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) async fn update(&self, client: &RegisteredClient) -> Result<bool, DirectoryError> {
        self.store.update(client.clone()).await
    }

    /// Deletes a registration, unless another grant was counted.
    pub(crate) async fn remove(&self, id: &ClientId, grants: u64) -> Result<bool, DirectoryError> {
        self.store.remove(id, grants).await
    }
}

impl fmt::Debug for RegisteredClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredClients")
            .field("known", &self.known)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ClientDirectory for RegisteredClients {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        if let Some(client) = self.known.client(id).await? {
            return Ok(Some(client));
        }
        let found = self.find(id).await?;
        Ok(found.and_then(|(registration, _)| self.admit(&registration)).map(Arc::new))
    }

    fn scopes(&self) -> Vec<String> {
        self.known.scopes()
    }

    fn takes_documents(&self) -> bool {
        self.known.takes_documents()
    }

    async fn count_grant(&self, id: &ClientId) -> Result<bool, DirectoryError> {
        if self.known.client(id).await?.is_some() {
            return self.known.count_grant(id).await;
        }
        if id.as_str().starts_with(PREFIX) {
            self.store.count_grant(id, self.clock.now()).await
        } else {
            Ok(false)
        }
    }
}
