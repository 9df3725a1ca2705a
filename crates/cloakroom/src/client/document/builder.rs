//! The settings of [`ClientDocuments`].

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom_core::time::{Clock, SystemClock};

use super::fetch::{self, Fetcher, Limits, SystemResolver};
use super::{Admit, Allow, ClientDocuments, DocumentRedirects, Shared, address};
use crate::client::directory::{ClientDirectory, DirectoryError};

/// Builds [`ClientDocuments`].
#[must_use = "a builder does nothing until it is built"]
pub struct ClientDocumentsBuilder {
    registered: Box<dyn ClientDirectory>,
    pub(super) admit: Box<Admit>,
    allow: Box<Allow>,
    redirects: DocumentRedirects,
    private_key_jwt: bool,
    max_documents: usize,
    max_bytes: usize,
    timeout: Duration,
    roots: Vec<Vec<u8>>,
    pub(super) allows: fetch::Allows,
    pub(super) resolver: Arc<dyn fetch::LookUp>,
    clock: Arc<dyn Clock>,
}

impl ClientDocumentsBuilder {
    pub(super) fn new(registered: Box<dyn ClientDirectory>, admit: Box<Admit>) -> Self {
        Self {
            registered,
            admit,
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
