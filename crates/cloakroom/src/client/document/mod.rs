//! Clients that nobody registered: their `client_id` is the URL of a document that describes them
//! (draft-ietf-oauth-client-id-metadata-document).

mod address;
mod builder;
mod fetch;
mod known;
mod life;
mod metadata;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::ClientId;
use cloakroom_core::time::Clock;
use url::Url;

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::client::directory::{ClientDirectory, DirectoryError};
use fetch::{Failure, Fetched, Fetcher};
use known::{Answer, Known, Landing, LookUp, Missing};

pub use builder::ClientDocumentsBuilder;
pub use metadata::{ClientDocument, DocumentRedirects};

/// Makes a client of what a document says, or refuses it.
type Admit = dyn Fn(ClientBuilder, &ClientDocument) -> Option<ClientBuilder> + Send + Sync;
/// Whether a document may be fetched.
type Allow = dyn Fn(&str) -> bool + Send + Sync;

/// A [`ClientDirectory`] with clients that nobody registered. The `client_id` of such a client is an
/// `https` URL, and what is known about it is in the JSON document at this URL
/// (draft-ietf-oauth-client-id-metadata-document). The metadata of the server says
/// `client_id_metadata_document_supported`. Clients of another directory come first.
///
/// You say what such a client may do: the closure gets a [`ClientBuilder`] with the identifier, name, home page,
/// redirect URIs and grant types of the document, and returns it with scope and audience, or `None` to
/// refuse the client.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use cloakroom::{ClientDocuments, Format, Issuer, StaticClients};
///
/// let clients = ClientDocuments::builder(StaticClients::default(), |client, document| {
///     let banned = document.host().ends_with(".evil.example");
///     (!banned).then(|| client.scope("notes:read").audience("https://notes.example", Format::Jwt))
/// });
/// let issuer = Issuer::dev().clients(Arc::new(clients.build()?)).build().await?;
/// # Ok(()) }
/// ```
///
/// # What a stranger can do
///
/// Anyone can make this server fetch a URL, so a fetch is
///
/// - only of `https` URLs that [`allow`](ClientDocumentsBuilder::allow) accepts,
/// - only from public addresses: a name is resolved once, its private, loopback, link-local, shared and
///   other special addresses are dropped, and the connection goes to one of the rest. No proxy is used,
/// - without redirects,
/// - of at most 5 KiB of `application/json` (or `application/…+json`), within 5 s,
/// - shared by all requests that wait for the same document; at most 32 go on at the same time, and at most
///   4 of one host.
///
/// A document counts only if its `client_id` is its URL, byte for byte. It cannot have a secret: the client is
/// public, or authenticates with `private_key_jwt` if
/// [`private_key_jwt`](ClientDocumentsBuilder::private_key_jwt) allows that. Its redirect URIs have its
/// origin, or are on the user's machine ([`DocumentRedirects`]).
///
/// # What is remembered
///
/// A document is kept for as long as its HTTP headers say, at least a minute and at most a day, or an hour
/// if they do not say; and for another hour while its server cannot be reached. Up to 1,000 documents are
/// kept; of the host that has the most, the one that was not used for the longest time makes room. A failure is remembered for 10 s. A
/// client whose document is refused is unknown; if its server cannot be reached, the directory is
/// unavailable ([`DirectoryError`]), so that clients keep their tokens.
pub struct ClientDocuments(Arc<Shared>);

struct Shared {
    registered: Box<dyn ClientDirectory>,
    admit: Box<Admit>,
    allow: Box<Allow>,
    redirects: DocumentRedirects,
    private_key_jwt: bool,
    max_documents: usize,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
}

/// The server of a document cannot be reached, or too many documents are being fetched.
#[derive(Debug, thiserror::Error)]
#[error("the client metadata document cannot be fetched now")]
struct DocumentUnavailable;

impl ClientDocuments {
    /// Starts a directory over another one, whose clients come first. `admit` says what a client with a
    /// document may do.
    pub fn builder(
        registered: impl ClientDirectory,
        admit: impl Fn(ClientBuilder, &ClientDocument) -> Option<ClientBuilder> + Send + Sync + 'static,
    ) -> ClientDocumentsBuilder {
        ClientDocumentsBuilder::new(Box::new(registered), Box::new(admit))
    }

    /// The document of a client that was looked up a moment ago. A consent page shows its
    /// [`host`](ClientDocument::host), and an authenticator finds its `jwks` in it. `None` for a client without a
    /// document, and for one that is not remembered.
    #[must_use]
    pub fn document(&self, id: &ClientId) -> Option<Arc<ClientDocument>> {
        self.0.known().documents.get(id).map(|kept| Arc::clone(&kept.document))
    }
}

impl Clone for ClientDocuments {
    /// The same directory: clones share what is remembered.
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl fmt::Debug for ClientDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDocuments")
            .field("registered", &self.0.registered)
            .field("documents", &self.0.known().documents.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ClientDirectory for ClientDocuments {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        if let Some(client) = self.0.registered.client(id).await? {
            return Ok(Some(client));
        }
        let Some(url) = metadata::document_url(id.as_str()) else { return Ok(None) };
        if !(self.0.allow)(id.as_str()) {
            tracing::debug!(client = %id, "a client metadata document is not allowed");
            return Ok(None);
        }
        match self.0.find(id, url).await {
            Ok(client) => Ok(Some(client)),
            Err(Missing::Refused) => Ok(None),
            Err(Missing::Unreachable) => Err(DirectoryError::new(DocumentUnavailable)),
        }
    }

    fn scopes(&self) -> Vec<String> {
        self.0.registered.scopes()
    }

    fn takes_documents(&self) -> bool {
        true
    }

    async fn count_grant(&self, id: &ClientId) -> Result<bool, DirectoryError> {
        let is_document = metadata::document_url(id.as_str()).is_some()
            && self.0.registered.client(id).await?.is_none();
        if is_document { Ok(true) } else { self.0.registered.count_grant(id).await }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(self: &Arc<Self>, id: &ClientId, url: Url) -> Answer {
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut flight = match self.known().look_up(id, &host, self.clock.now()) {
            LookUp::Known(answer) => return answer,
            LookUp::Joined(flight) => flight,
            LookUp::Started(landing, flight) => {
                // In a task, so that a caller that goes away takes nothing from those who wait.
                let (shared, id) = (Arc::clone(self), id.clone());
                tokio::spawn(async move {
                    let asked = shared.clock.now();
                    let landing = Landing { shared: &shared, id: &id, host: &host, landing, asked };
                    let fetched = shared.fetcher.fetch(&url).await;
                    let read = fetched.and_then(|fetched| shared.read(&url, &fetched));
                    landing.land(read);
                });
                flight
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        landed.ok().and_then(|answer| answer.clone()).unwrap_or(Err(Missing::Unreachable))
    }

    /// The client that a document describes, if the app admits it.
    fn read(&self, url: &Url, fetched: &Fetched) -> Result<Read, Failure> {
        let document = ClientDocument::read(url, &fetched.body, self.redirects);
        let document = document.map_err(Failure::Refused)?;
        let client = match (document.authenticates(), self.private_key_jwt) {
            (false, _) => Client::public(url),
            (true, true) => Client::authenticated_by_app(url),
            (true, false) => return Err(Failure::refused("private_key_jwt is not allowed")),
        };
        let client = client.grant_types(document.grant_types().iter().copied());
        let client = document.name().into_iter().fold(client, ClientBuilder::name);
        let client = document.redirect_uris().fold(client, ClientBuilder::redirect_uri);
        let client = document.uri().into_iter().fold(client, ClientBuilder::uri);
        let client =
            (self.admit)(client, &document).ok_or(Failure::refused("the app refuses it"))?;
        let client = client.build().map_err(|error| Failure::Refused(error.to_string()))?;
        // A closure that begins with another builder could make it anybody.
        if client.id().as_str() != url.as_str() {
            return Err(Failure::refused("the app gives it another client_id"));
        }
        let life = fetched.life;
        Ok(Read { client: Arc::new(client), document: Arc::new(document), life })
    }
}

/// A document that was fetched and read.
struct Read {
    client: Arc<Client>,
    document: Arc<ClientDocument>,
    life: Duration,
}
