//! The stores without their writing methods, which only [`Write`](super::Write) may call.

use std::sync::Arc;

use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::revocation::{Cursor, Epoch, RevocationBatch, RuleKey, Rules};
use cloakroom_core::store::{CheckValue, Listing, Lookup, PageRequest, Selector, StoreError};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, Kid, TokenDigest};
use cloakroom_jwt::{KeyManager, KeyManagerError, KeyStatus, PublishedJwks};

use crate::revocation::remembering_store::{Memory, RememberingStore};

/// The token store without its writing methods, and with what this server remembers.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<RememberingStore>);

impl Store {
    pub(crate) fn new(store: RememberingStore) -> Self {
        Self(Arc::new(store))
    }

    /// The store with its writing methods.
    pub(super) fn writer(&self) -> &RememberingStore {
        &self.0
    }

    /// What this server remembers.
    pub(crate) fn memory(&self) -> &Memory {
        self.0.memory()
    }

    pub(crate) fn find(
        &self,
        grant: GrantId,
        token: Option<TokenDigest>,
    ) -> impl Future<Output = Result<Lookup, StoreError>> + Send {
        self.0.find(grant, token)
    }

    pub(crate) fn rules(
        &self,
        keys: Vec<RuleKey>,
    ) -> impl Future<Output = Result<Rules, StoreError>> + Send {
        self.0.rules(keys)
    }

    pub(crate) fn epoch(&self) -> impl Future<Output = Result<Epoch, StoreError>> + Send {
        self.0.epoch()
    }

    pub(crate) fn check_values(
        &self,
    ) -> impl Future<Output = Result<Vec<CheckValue>, StoreError>> + Send {
        self.0.check_values()
    }

    pub(crate) fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> impl Future<Output = Result<Listing, StoreError>> + Send {
        self.0.list(of, page, now)
    }

    pub(crate) fn revocations(
        &self,
        after: Cursor,
        limit: u32,
    ) -> impl Future<Output = Result<RevocationBatch, StoreError>> + Send {
        self.0.revocations(after, limit)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn status(
        &self,
        before: UnixTime,
    ) -> impl Future<Output = Result<cloakroom_core::store::StoreStatus, StoreError>> + Send {
        self.0.status(before)
    }

    pub(crate) fn wakeups(&self) -> cloakroom_core::revocation::LogNotifications {
        self.0.wakeups()
    }
}

/// The signing keys without the methods that change them.
#[derive(Debug, Clone)]
pub(crate) struct Keys(KeyManager);

impl Keys {
    pub(crate) const fn new(manager: KeyManager) -> Self {
        Self(manager)
    }

    /// The key manager with its writing methods.
    pub(super) const fn writer(&self) -> &KeyManager {
        &self.0
    }

    /// The key manager, for [`SigningKeys`](crate::SigningKeys) alone: it can change the keys.
    pub(crate) const fn manager(&self) -> &KeyManager {
        &self.0
    }

    /// Notes that a key is compromised. Nothing is written.
    pub(crate) fn note_compromised(&self, kid: &Kid, at: UnixTime) -> Result<(), KeyManagerError> {
        self.0.note_compromised(kid, at)
    }

    pub(crate) fn states(
        &self,
    ) -> impl Future<Output = Result<Vec<KeyStatus>, KeyManagerError>> + Send {
        self.0.states()
    }

    pub(crate) fn policy(&self) -> &KeyPolicy {
        self.0.policy()
    }

    pub(crate) fn jwks(
        &self,
    ) -> impl Future<Output = Result<Arc<PublishedJwks>, KeyManagerError>> + Send {
        self.0.jwks()
    }

    pub(crate) fn refresh(&self) -> impl Future<Output = Result<(), KeyManagerError>> + Send {
        self.0.refresh()
    }
}
