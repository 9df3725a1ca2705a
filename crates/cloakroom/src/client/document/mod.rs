//! Clients that nobody registered: their `client_id` is the URL of a document that describes them
//! (draft-ietf-oauth-client-id-metadata-document).

mod address;
mod fetch;
mod life;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::ClientId;
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use tokio::sync::watch;
use url::Url;

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::client::directory::{ClientDirectory, DirectoryError};
use fetch::{Failure, Fetched, Fetcher, Limits, SystemResolver};

pub use metadata::{ClientDocument, DocumentRedirects};

/// How long a failure is remembered.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a document still counts after its end, while its server cannot be reached.
const STALE: Duration = Duration::from_secs(60 * 60);
/// The most fetches at the same time.
const MAX_FLIGHTS: usize = 32;
/// The most failures that are remembered.
const MAX_FAILURES: usize = 1_000;

/// Makes a client of what a document says, or refuses it.
type Admit = dyn Fn(ClientBuilder, &ClientDocument) -> Option<ClientBuilder> + Send + Sync;
/// Whether a document may be fetched.
type Allow = dyn Fn(&str) -> bool + Send + Sync;

/// A [`ClientDirectory`] with clients that nobody registered. The `client_id` of such a client is an
/// `https` URL, and what is known about it is in the JSON document at this URL
/// (draft-ietf-oauth-client-id-metadata-document). The metadata of the server says
/// `client_id_metadata_document_supported`. Clients of another directory come first.
///
/// You say what such a client may do: the closure gets a [`ClientBuilder`] with the identifier, name,
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
/// - shared by all requests that wait for the same document; at most 32 go on at the same time.
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
/// kept; the one that was not used for the longest time makes room. A failure is remembered for 10 s. A
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

#[derive(Default)]
struct Known {
    documents: HashMap<ClientId, Kept>,
    failures: HashMap<ClientId, (UnixTime, Missing)>,
    flights: HashMap<ClientId, watch::Receiver<Option<Answer>>>,
    /// Counts the uses.
    uses: u64,
}

struct Kept {
    client: Arc<Client>,
    document: Arc<ClientDocument>,
    /// When it is fetched again.
    fresh_until: UnixTime,
    /// When it counts no more.
    ends: UnixTime,
    last_use: u64,
}

/// Why there is no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Refused,
    Unreachable,
}

type Answer = Result<Arc<Client>, Missing>;

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
        ClientDocumentsBuilder {
            registered: Box::new(registered),
            admit: Box::new(admit),
            allow: Box::new(|_| true),
            redirects: DocumentRedirects::default(),
            private_key_jwt: false,
            max_documents: 1_000,
            max_bytes: 5 * 1024,
            timeout: Duration::from_secs(5),
            roots: Vec::new(),
            allows: address::is_public,
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(SystemClock::new()),
        }
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
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(self: &Arc<Self>, id: &ClientId, url: Url) -> Answer {
        let mut flight = match self.known().look_up(id, self.clock.now()) {
            LookUp::Known(answer) => return answer,
            LookUp::Joined(flight) => flight,
            LookUp::Started(landing, flight) => {
                // In a task, so that a caller that goes away takes nothing from those who wait.
                let (shared, id) = (Arc::clone(self), id.clone());
                tokio::spawn(async move {
                    let asked = shared.clock.now();
                    let landing = Landing { shared: &shared, id: &id, landing, asked };
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

enum LookUp {
    Known(Answer),
    Joined(watch::Receiver<Option<Answer>>),
    Started(watch::Sender<Option<Answer>>, watch::Receiver<Option<Answer>>),
}

impl Known {
    fn look_up(&mut self, id: &ClientId, now: UnixTime) -> LookUp {
        self.uses += 1;
        if let Some(kept) = self.documents.get_mut(id).filter(|kept| now < kept.fresh_until) {
            kept.last_use = self.uses;
            return LookUp::Known(Ok(Arc::clone(&kept.client)));
        }
        if let Some((_, missing)) = self.failures.get(id).filter(|(until, _)| now < *until) {
            return LookUp::Known(Err(*missing));
        }
        if let Some(flight) = self.flights.get(id) {
            return LookUp::Joined(flight.clone());
        }
        if self.flights.len() >= MAX_FLIGHTS {
            // Strangers can cause as many fetches as there may be. Known clients go on meanwhile.
            let kept = self.documents.get(id).filter(|kept| now < kept.ends);
            return LookUp::Known(match kept {
                Some(kept) => Ok(Arc::clone(&kept.client)),
                None => Err(Missing::Unreachable),
            });
        }
        let (landing, flight) = watch::channel(None);
        self.flights.insert(id.clone(), flight.clone());
        LookUp::Started(landing, flight)
    }

    fn keep(&mut self, id: &ClientId, kept: Kept, at_most: usize) {
        if self.documents.len() >= at_most && !self.documents.contains_key(id) {
            let oldest = self.documents.iter().min_by_key(|(_, kept)| kept.last_use);
            let oldest = oldest.map(|(id, _)| id.clone());
            oldest.and_then(|oldest| self.documents.remove(&oldest));
        }
        if at_most > 0 {
            self.documents.insert(id.clone(), kept);
        }
    }

    fn fail(&mut self, id: &ClientId, missing: Missing, now: UnixTime) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.retain(|_, (until, _)| now < *until);
        }
        // If all are recent, this one is fetched again: a flood must not grow the map.
        if self.failures.len() < MAX_FAILURES {
            self.failures.insert(id.clone(), (now + PAUSE, missing));
        }
    }
}

/// Ends a flight, even if its task panics.
struct Landing<'a> {
    shared: &'a Shared,
    id: &'a ClientId,
    landing: watch::Sender<Option<Answer>>,
    /// When the fetch began.
    asked: UnixTime,
}

impl Landing<'_> {
    fn land(self, read: Result<Read, Failure>) {
        let (shared, id) = (self.shared, self.id);
        let now = shared.clock.now();
        let mut known = shared.known();
        known.failures.remove(id);
        let answer = match read {
            Ok(Read { client, document, life }) => {
                let answer = Arc::clone(&client);
                let fresh_until = self.asked + life;
                let last_use = known.uses;
                let ends = fresh_until + STALE;
                let kept = Kept { client, document, fresh_until, ends, last_use };
                known.keep(id, kept, shared.max_documents);
                Ok(answer)
            }
            Err(Failure::Refused(why)) => {
                tracing::debug!(client = %id, why, "a client metadata document is refused");
                known.documents.remove(id);
                known.fail(id, Missing::Refused, now);
                Err(Missing::Refused)
            }
            Err(Failure::Unreachable(error)) => {
                let error: &dyn std::error::Error = &*error;
                tracing::debug!(client = %id, error, "a client metadata document cannot be fetched");
                match known.documents.get_mut(id).filter(|kept| now < kept.ends) {
                    Some(kept) => {
                        kept.fresh_until = now + PAUSE;
                        Ok(Arc::clone(&kept.client))
                    }
                    None => {
                        known.documents.remove(id);
                        known.fail(id, Missing::Unreachable, now);
                        Err(Missing::Unreachable)
                    }
                }
            }
        };
        // Together with the answer: nobody starts another flight in between.
        known.flights.remove(id);
        drop(known);
        self.landing.send_replace(Some(answer));
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // After a panic. Otherwise the next flight may be there already.
        let (mut known, own) = (self.shared.known(), self.landing.subscribe());
        if known.flights.get(self.id).is_some_and(|flight| flight.same_channel(&own)) {
            known.flights.remove(self.id);
        }
    }
}

/// Builds [`ClientDocuments`].
#[must_use = "a builder does nothing until it is built"]
pub struct ClientDocumentsBuilder {
    registered: Box<dyn ClientDirectory>,
    admit: Box<Admit>,
    allow: Box<Allow>,
    redirects: DocumentRedirects,
    private_key_jwt: bool,
    max_documents: usize,
    max_bytes: usize,
    timeout: Duration,
    roots: Vec<Vec<u8>>,
    allows: fetch::Allows,
    resolver: Arc<dyn fetch::LookUp>,
    clock: Arc<dyn Clock>,
}

impl ClientDocumentsBuilder {
    /// Fetches only documents whose URL this accepts, such as those of an allow-list. Nothing is fetched,
    /// and no name resolved, for any other.
    pub fn allow(mut self, allow: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.allow = Box::new(allow);
        self
    }

    /// Which redirect URIs of a document are accepted.
    pub const fn redirects(mut self, redirects: DocumentRedirects) -> Self {
        self.redirects = redirects;
        self
    }

    /// Also takes clients that authenticate with `private_key_jwt` (RFC 7523). Set an authenticator that
    /// verifies the assertion with the keys of the document
    /// ([`ClientDocuments::document`]): without one, such a client gets no tokens.
    pub const fn private_key_jwt(mut self) -> Self {
        self.private_key_jwt = true;
        self
    }

    /// The most documents that are remembered (1,000).
    pub const fn max_documents(mut self, at_most: usize) -> Self {
        self.max_documents = at_most;
        self
    }

    /// The largest document, in bytes (5 KiB, at most 64 KiB).
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes.min(64 * 1024);
        self
    }

    /// How long a fetch may take, from the look-up of the name to the last byte (5 s, at most 30 s).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit.min(Duration::from_secs(30));
        self
    }

    /// Trusts this root certificate (PEM) instead of those of the system.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Takes the time from this clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// **For tests.** Also fetches documents from this machine (`127.0.0.0/8`, `::1`). Anyone can then make this server
    /// send requests to services on the machine.
    pub fn danger_allow_loopback(mut self) -> Self {
        self.allows = |address| address.is_loopback() || address::is_public(address);
        self
    }

    /// Builds the directory.
    ///
    /// # Errors
    ///
    /// If a root certificate cannot be read, or those of the system cannot be loaded.
    pub fn build(self) -> Result<ClientDocuments, DirectoryError> {
        let roots = self.roots.iter().map(|pem| reqwest::Certificate::from_pem(pem));
        let limits = Limits {
            timeout: self.timeout,
            bytes: self.max_bytes,
            allows: self.allows,
            resolver: self.resolver,
            roots: roots.collect::<Result<_, _>>().map_err(DirectoryError::new)?,
        };
        Ok(ClientDocuments(Arc::new(Shared {
            registered: self.registered,
            admit: self.admit,
            allow: self.allow,
            redirects: self.redirects,
            private_key_jwt: self.private_key_jwt,
            max_documents: self.max_documents,
            fetcher: Fetcher::new(limits).map_err(DirectoryError::new)?,
            clock: self.clock,
            known: Mutex::default(),
        })))
    }
}

impl fmt::Debug for ClientDocumentsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDocumentsBuilder")
            .field("registered", &self.registered)
            .field("redirects", &self.redirects)
            .finish_non_exhaustive()
    }
}
