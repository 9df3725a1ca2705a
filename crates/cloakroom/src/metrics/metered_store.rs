//! A token store that measures how long each call takes.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CheckValue, CheckValues, CreateOutcome, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreError, StoreStatus, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

/// Measures every call of a store, and passes it on.
#[derive(Debug)]
pub(crate) struct MeteredStore(Arc<dyn TokenStore>);

impl MeteredStore {
    pub(crate) fn over(store: Arc<dyn TokenStore>) -> Arc<dyn TokenStore> {
        Arc::new(Self(store))
    }
}

/// Records how long a call took, and how it ended. A call whose caller went away is not recorded.
async fn measured<T>(
    method: &'static str,
    call: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let began = Instant::now();
    let result = call.await;
    metrics::histogram!("cloakroom_store_seconds", "method" => method)
        .record(began.elapsed().as_secs_f64());
    if let Err(error) = &result {
        let kind = match error {
            StoreError::Unavailable { .. } => "unavailable",
            StoreError::Corrupt { .. } => "corrupt",
            _ => "misuse",
        };
        metrics::counter!("cloakroom_store_errors_total", "method" => method, "kind" => kind)
            .increment(1);
    }
    result
}

#[async_trait]
impl CheckValues for MeteredStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        measured("check_values", self.0.check_values()).await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        measured("set_check_value", self.0.set_check_value(name, expected, value)).await
    }
}

#[async_trait]
impl TokenStore for MeteredStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        measured("create", self.0.create(grant, tokens)).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        measured("find", self.0.find(grant, token)).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        measured("advance", self.0.advance(step)).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        measured("revoke", self.0.revoke(revocation)).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        measured("rules", self.0.rules(keys)).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        measured("list", self.0.list(of, page, now)).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        measured("revocations", self.0.revocations(after, limit)).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.0.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        measured("heartbeat", self.0.heartbeat(now, until)).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        measured("maintain", self.0.maintain(task)).await
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        measured("status", self.0.status(before)).await
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        measured("scan", self.0.scan(page)).await
    }
}
