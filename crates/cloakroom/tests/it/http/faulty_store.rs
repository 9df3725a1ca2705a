//! The in-memory store behind a connection that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cloakroom::core::*;
use cloakroom::memory::MemoryStore;

/// A store of tokens and keys, each of which cannot be reached while it is down.
#[derive(Debug)]
pub(super) struct FaultyStore {
    memory: MemoryStore,
    tokens_down: AtomicBool,
    keys_down: AtomicBool,
}

impl FaultyStore {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::with_clock(clock),
            tokens_down: AtomicBool::new(false),
            keys_down: AtomicBool::new(false),
        })
    }

    /// Cuts the connection to the tokens, or mends it.
    pub(super) fn tokens_down(&self, down: bool) {
        self.tokens_down.store(down, Ordering::SeqCst);
    }

    /// Cuts the connection to the signing keys, or mends it.
    pub(super) fn keys_down(&self, down: bool) {
        self.keys_down.store(down, Ordering::SeqCst);
    }

    fn tokens(&self) -> Result<&MemoryStore, StoreError> {
        self.unless(&self.tokens_down)
    }

    fn keys(&self) -> Result<&MemoryStore, StoreError> {
        self.unless(&self.keys_down)
    }

    /// The store, if it can be reached.
    fn unless(&self, down: &AtomicBool) -> Result<&MemoryStore, StoreError> {
        if down.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("test", "connection refused"));
        }
        Ok(&self.memory)
    }
}

#[async_trait]
impl TokenStore for FaultyStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<Created, StoreError> {
        self.tokens()?.create(grant, tokens).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.tokens()?.find(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<Advanced, StoreError> {
        self.tokens()?.advance(step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.tokens()?.revoke(revocation).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.tokens()?.rules(keys).await
    }

    async fn list(&self, of: Selector, page: Page, now: UnixTime) -> Result<Listing, StoreError> {
        self.tokens()?.list(of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.tokens()?.revocations(after, limit).await
    }

    fn wakeups(&self) -> Wakeups {
        self.memory.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.tokens()?.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<Maintained, StoreError> {
        TokenStore::maintain(self.tokens()?, task).await
    }
}

#[async_trait]
impl KeyStore for FaultyStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.keys()?.load().await
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.keys()?.insert(record).await
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.keys()?.update(record, expected).await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.keys()?.delete(generation, expected).await
    }
}
