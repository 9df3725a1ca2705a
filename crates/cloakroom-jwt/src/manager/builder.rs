//! The settings of a key manager.

use std::collections::HashSet;
use std::sync::Arc;

use cloakroom_core::keys::{KeyPolicy, KeyStore};
use cloakroom_core::time::{Clock, SystemClock};

use crate::key::algorithm::Algorithm;
use crate::manager::KeyManager;
use crate::manager::error::KeyManagerError;
use crate::seal::KeySealer;

/// The settings of a [`KeyManager`]; see [`KeyManager::builder`].
#[derive(Debug)]
#[must_use]
pub struct KeyManagerBuilder {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) sealer: Arc<dyn KeySealer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: KeyPolicy,
    /// The algorithm of the main ring, and those of the further rings.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) issuer: String,
    pub(crate) former_issuers: Vec<String>,
}

impl KeyManagerBuilder {
    pub(crate) fn new(store: Arc<dyn KeyStore>, sealer: Arc<dyn KeySealer>) -> Self {
        Self {
            store,
            sealer,
            clock: Arc::new(SystemClock::new()),
            policy: KeyPolicy::default(),
            algorithms: vec![Algorithm::default()],
            issuer: String::new(),
            former_issuers: Vec::new(),
        }
    }

    /// The algorithm of new signing keys of the main ring (ES256). Existing keys keep theirs, so a change
    /// takes effect when the key that is published next signs.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms[0] = algorithm;
        self
    }

    /// Adds a ring of keys for an additional algorithm; see [`KeyManager::signer_for`].
    ///
    /// If the issuer has signed before, the ring signs when its first key has been published for
    /// [`publish_ahead`](KeyPolicy::publish_ahead).
    pub fn further_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms.push(algorithm);
        self
    }

    /// The schedule of keys.
    pub const fn policy(mut self, policy: KeyPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The clock (the system clock by default).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The issuer of the keys. Private keys are sealed for this issuer, and cannot be unsealed for another.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = issuer.into();
        self
    }

    /// Also unseals keys that were sealed for this former URL of the issuer.
    pub fn former_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.former_issuers.push(issuer.into());
        self
    }

    /// Loads the ring, unseals every published key, and makes the first keys if there are none.
    ///
    /// # Errors
    ///
    /// If a setting is inconsistent, the store fails, the sealer cannot unseal the keys of the ring, or
    /// one of its own keys has changed ([`KeySealer::checks`]). Keys that cannot be unsealed are never
    /// replaced with new ones.
    pub async fn build(mut self) -> Result<KeyManager, KeyManagerError> {
        self.policy.check()?;
        for algorithm in &self.algorithms {
            if algorithm.as_str().parse() != Ok(*algorithm) {
                return Err(KeyManagerError::NotPublic(*algorithm));
            }
        }
        let mut seen = HashSet::new();
        self.algorithms.retain(|algorithm| seen.insert(*algorithm));
        KeyManager::start(self).await
    }
}
