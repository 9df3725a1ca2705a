//! A store that counts its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use cloakroom::core::record::{GrantRecord, TokenRecord};
use cloakroom::core::revocation::{
    Cursor, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom::core::store::{
    Advance, AdvanceOutcome, CheckValue, CheckValues, CreateOutcome, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreError, TokenStore,
};
use cloakroom::core::time::UnixTime;
use cloakroom::core::{GrantId, TokenDigest};

/// Counts the calls that requests cause, but not those of the log's readers, nor the work of
/// [`Issuer::run_maintenance`](cloakroom::Issuer::run_maintenance).
#[derive(Debug)]
pub(crate) struct CountingStore {
    inner: Arc<dyn TokenStore>,
    calls: AtomicU64,
}

impl CountingStore {
    pub(crate) fn new(inner: Arc<dyn TokenStore>) -> Self {
        Self { inner, calls: AtomicU64::new(0) }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn counted(&self) -> &dyn TokenStore {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &*self.inner
    }
}

#[async_trait]
impl CheckValues for CountingStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.inner.check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        self.inner.set_check_value(name, expected, value).await
    }
}

#[async_trait]
impl TokenStore for CountingStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        self.counted().create(grant, tokens).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.counted().find(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.counted().advance(step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.counted().revoke(revocation).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.counted().rules(keys).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.counted().list(of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.inner.revocations(after, limit).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.inner.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.inner.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.inner.maintain(task).await
    }
}
