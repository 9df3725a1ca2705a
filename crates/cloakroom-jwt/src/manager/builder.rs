//! The settings of a key manager.

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
    pub(crate) algorithm: Algorithm,
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
            algorithm: Algorithm::default(),
            issuer: String::new(),
            former_issuers: Vec::new(),
        }
    }

    /// The algorithm of new signing keys (ES256 by default). Existing keys keep theirs.
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
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
    /// If a setting is inconsistent, the store fails, the sealer cannot unseal the keys of the
    /// ring, or one of the sealer's own keys has changed ([`KeySealer::checks`]). Keys that cannot
    /// be unsealed are never replaced with new ones.
    pub async fn build(self) -> Result<KeyManager, KeyManagerError> {
        self.policy.check()?;
        if self.algorithm.as_str().parse() != Ok(self.algorithm) {
            return Err(KeyManagerError::NotPublic(self.algorithm));
        }
        KeyManager::start(self).await
    }
}
