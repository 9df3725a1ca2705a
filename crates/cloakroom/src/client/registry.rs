//! Clients that register themselves (RFC 7591), and the directories that keep them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::ClientId;
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::client::directory::{ClientDirectory, DirectoryError};
use crate::client::metadata::{grant_types, name, text, texts};
use crate::client::registration::GrantType;
use crate::client::secret_hash::SecretHash;
use crate::client::uris::redirect_fault;

/// The most redirect URIs of a client.
const MAX_REDIRECT_URIS: usize = 16;
/// The members that are kept, beside those that the server decides about.
const KEPT: [&str; 8] = [
    "client_name",
    "client_uri",
    "logo_uri",
    "tos_uri",
    "policy_uri",
    "contacts",
    "software_id",
    "software_version",
];
/// How long a client is kept that nobody has looked up.
const UNUSED: Duration = Duration::from_secs(60 * 60);

/// A client as it registered itself (RFC 7591): what your database keeps. Secrets are in it as hashes only.
/// It serializes with serde, for a column of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisteredClient {
    id: ClientId,
    created_at: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretHash>,
    /// The hash of the registration access token (RFC 7592 §3).
    access: SecretHash,
    metadata: Map<String, Value>,
}

/// Why metadata cannot be registered, with the code of RFC 7591 §3.2.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataFault {
    pub(crate) code: &'static str,
    pub(crate) why: String,
}

impl From<String> for MetadataFault {
    fn from(why: String) -> Self {
        Self { code: "invalid_client_metadata", why }
    }
}

impl RegisteredClient {
    /// Reads metadata. The secret is set afterwards, if [`authenticates`](Self::authenticates).
    pub(crate) fn read(
        id: ClientId,
        created_at: UnixTime,
        access: SecretHash,
        members: &Map<String, Value>,
    ) -> Result<Self, MetadataFault> {
        let grants: Vec<&str> = grant_types(members)?.into_iter().map(GrantType::as_str).collect();
        let name = name(members)?;
        // RFC 7591 §2: "If unspecified or omitted, the default is "client_secret_basic"".
        let method = text(members, "token_endpoint_auth_method")?.unwrap_or("client_secret_basic");
        if !["none", "client_secret_basic", "client_secret_post"].contains(&method) {
            return Err("its token_endpoint_auth_method is not supported".to_owned().into());
        }
        let redirect_uris = texts(members, "redirect_uris")?.unwrap_or_default();
        let fault = match redirect_uris.len() {
            0 => Some("it has no redirect_uris"),
            1..=MAX_REDIRECT_URIS => redirect_uris.iter().find_map(|uri| redirect_fault(uri)),
            _ => Some("it has too many redirect_uris"),
        };
        if let Some(why) = fault {
            return Err(MetadataFault { code: "invalid_redirect_uri", why: why.into() });
        }
        let mut metadata: Map<String, Value> = members
            .iter()
            .filter(|(name, value)| KEPT.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for (member, value) in [
            ("redirect_uris", Value::from(redirect_uris)),
            ("grant_types", grants.into()),
            ("response_types", vec!["code"].into()),
            ("token_endpoint_auth_method", method.into()),
        ] {
            metadata.insert(member.into(), value);
        }
        if let Some(name) = name {
            metadata.insert("client_name".into(), name.into());
        }
        Ok(Self { id, created_at, secret: None, access, metadata })
    }

    /// The identifier, which the server chose.
    #[must_use]
    pub const fn id(&self) -> &ClientId {
        &self.id
    }

    /// When it registered.
    #[must_use]
    pub const fn created_at(&self) -> UnixTime {
        self.created_at
    }

    /// A member of the metadata, such as `client_name` or `redirect_uris`. Nobody has confirmed what it
    /// says.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.metadata.get(name)
    }

    /// A builder with what the client said about itself: its identifier, name, redirect URIs, grant types and secret.
    /// Add a scope and an audience.
    pub fn builder(&self) -> ClientBuilder {
        let client = match &self.secret {
            Some(secret) => Client::hashed(&self.id, [*secret]),
            None => Client::public(&self.id),
        };
        let name = self.metadata.get("client_name").and_then(Value::as_str);
        let client = name.into_iter().fold(client, ClientBuilder::name);
        let client = self.each("redirect_uris").fold(client, ClientBuilder::redirect_uri);
        client.grant_types(self.each("grant_types").filter_map(|name| name.parse().ok()))
    }

    fn each(&self, member: &str) -> impl Iterator<Item = &str> {
        let all = self.metadata.get(member).and_then(Value::as_array);
        all.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it is a confidential client, which has a secret.
    pub(crate) fn authenticates(&self) -> bool {
        self.member("token_endpoint_auth_method").is_some_and(|method| method != "none")
    }

    pub(crate) const fn set_secret(&mut self, secret: Option<SecretHash>) {
        self.secret = secret;
    }

    pub(crate) const fn secret(&self) -> Option<SecretHash> {
        self.secret
    }

    pub(crate) const fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Whether this is the token that may change the registration (RFC 7592).
    pub(crate) fn is_managed_by(&self, token: &str) -> bool {
        self.access.matches(&SecretHash::presented(token)).into()
    }

    pub(crate) const fn access(&self) -> SecretHash {
        self.access
    }
}

/// A [`ClientDirectory`] that clients can register themselves in (RFC 7591).
/// [`Registration`](crate::http::Registration) is the endpoint over it. [`RegisteredClients`] is one in
/// memory; implement this trait over your database, so that registrations outlive a restart and all nodes
/// know them.
#[async_trait]
pub trait ClientRegistry: ClientDirectory {
    /// Decides what a client that says this about itself may do; `None` refuses the client. Called before
    /// [`insert`](Self::insert) and [`update`](Self::update). [`client`](ClientDirectory::client) decides the same way.
    fn admit(&self, client: &RegisteredClient) -> Option<Client>;

    /// Keeps a new client. `false` if there is no room for it.
    ///
    /// # Errors
    ///
    /// If the directory is unavailable.
    async fn insert(&self, client: RegisteredClient) -> Result<bool, DirectoryError>;

    /// The registration with this identifier.
    ///
    /// # Errors
    ///
    /// If the directory is unavailable.
    async fn registration(&self, id: &ClientId)
    -> Result<Option<RegisteredClient>, DirectoryError>;

    /// Replaces the registration with the same identifier. `false` if there is none.
    ///
    /// # Errors
    ///
    /// If the directory is unavailable.
    async fn update(&self, client: RegisteredClient) -> Result<bool, DirectoryError>;

    /// Deletes the registration with this identifier. `false` if there is none.
    ///
    /// # Errors
    ///
    /// If the directory is unavailable.
    async fn remove(&self, id: &ClientId) -> Result<bool, DirectoryError>;
}

type Admit = dyn Fn(ClientBuilder, &RegisteredClient) -> Option<ClientBuilder> + Send + Sync;

/// A [`ClientRegistry`] in memory, over another directory whose clients come first. A restart forgets the
/// registrations; clients then register again, and their users sign in again.
///
/// You say what such a client may do: the closure gets a [`ClientBuilder`] with what the client said about
/// itself, and returns it with scope and audience, or `None` to refuse the client.
///
/// It holds at most 10,000 clients. If it is full, clients that nobody looked up within an hour of their registration
/// make room; if there are none, no more clients are accepted.
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
    registered: Box<dyn ClientDirectory>,
    admit: Box<Admit>,
    at_most: usize,
    clock: Arc<dyn Clock>,
    clients: Mutex<HashMap<ClientId, Kept>>,
}

struct Kept {
    registration: RegisteredClient,
    is_used: bool,
}

impl RegisteredClients {
    /// An empty registry over another directory.
    pub fn new(
        registered: impl ClientDirectory,
        admit: impl Fn(ClientBuilder, &RegisteredClient) -> Option<ClientBuilder>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            registered: Box::new(registered),
            admit: Box::new(admit),
            at_most: 10_000,
            clock: Arc::new(SystemClock::new()),
            clients: Mutex::default(),
        }
    }

    /// The most clients that it holds (10,000).
    #[must_use]
    pub const fn at_most(mut self, clients: usize) -> Self {
        self.at_most = clients;
        self
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientId, Kept>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RegisteredClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredClients")
            .field("registered", &self.registered)
            .field("clients", &self.clients().len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ClientDirectory for RegisteredClients {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        if let Some(client) = self.registered.client(id).await? {
            return Ok(Some(client));
        }
        let registration = self.clients().get_mut(id).map(|kept| {
            kept.is_used = true;
            kept.registration.clone()
        });
        Ok(registration.and_then(|registration| self.admit(&registration)).map(Arc::new))
    }

    fn scopes(&self) -> Vec<String> {
        self.registered.scopes()
    }

    fn takes_documents(&self) -> bool {
        self.registered.takes_documents()
    }
}

#[async_trait]
impl ClientRegistry for RegisteredClients {
    fn admit(&self, client: &RegisteredClient) -> Option<Client> {
        let built = (self.admit)(client.builder(), client)?.build();
        let built = built.inspect_err(|error| tracing::warn!(%error, "a registration is refused"));
        // A closure that begins with another builder could make it anybody.
        built.ok().filter(|built| built.id() == client.id())
    }

    async fn insert(&self, client: RegisteredClient) -> Result<bool, DirectoryError> {
        let now = self.clock.now();
        let mut clients = self.clients();
        if clients.len() >= self.at_most {
            clients.retain(|_, kept| kept.is_used || now < kept.registration.created_at + UNUSED);
        }
        if clients.len() >= self.at_most {
            return Ok(false);
        }
        clients.insert(client.id.clone(), Kept { registration: client, is_used: false });
        Ok(true)
    }

    async fn registration(
        &self,
        id: &ClientId,
    ) -> Result<Option<RegisteredClient>, DirectoryError> {
        Ok(self.clients().get(id).map(|kept| kept.registration.clone()))
    }

    async fn update(&self, client: RegisteredClient) -> Result<bool, DirectoryError> {
        let mut clients = self.clients();
        let Some(kept) = clients.get_mut(&client.id) else { return Ok(false) };
        kept.registration = client;
        Ok(true)
    }

    async fn remove(&self, id: &ClientId) -> Result<bool, DirectoryError> {
        Ok(self.clients().remove(id).is_some())
    }
}
