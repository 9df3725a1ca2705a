//! Records the operations of a check, and the answers of its stores.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CheckValue, CheckValues, CreateOutcome, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, SingleUseStore, Spend, Spent,
    StoreError, StoreStatus, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

/// Operations and answers, in the order in which the answers came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story(Arc<Mutex<Vec<String>>>);

/// The most lines of a story that a failure shows, and the most characters of a line.
const MAX_LINES: usize = 40;
const MAX_CHARS: usize = 600;

impl Story {
    pub(crate) fn tell(&self, line: impl Into<String>) {
        let mut line: String = line.into();
        if let Some((end, _)) = line.char_indices().nth(MAX_CHARS) {
            line.truncate(end);
            line.push('…');
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// The last lines.
    pub(crate) fn told(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines[lines.len().saturating_sub(MAX_LINES)..].to_vec()
    }

    fn answer<T: Debug>(&self, asked: &str, answer: T) -> T {
        self.tell(format!("{asked} → {answer:?}"));
        answer
    }
}

/// A store that records every operation.
#[derive(Debug)]
pub(crate) struct Told<S: ?Sized> {
    pub(crate) story: Story,
    pub(crate) inner: Arc<S>,
}

#[async_trait]
impl<S: CheckValues + ?Sized> CheckValues for Told<S> {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        let answer = self.inner.check_values().await;
        self.story.answer("check_values()", answer)
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let answer = self.inner.set_check_value(name, expected, value).await;
        self.story.answer(&format!("set_check_value({name:?}, {expected:?}, {value:?})"), answer)
    }
}

#[async_trait]
impl TokenStore for Told<dyn TokenStore> {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let asked = format!("create({grant:?}, {tokens:?})");
        let answer = self.inner.create(grant, tokens).await;
        self.story.answer(&asked, answer)
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        let answer = self.inner.find(grant, token).await;
        self.story.answer(&format!("find({grant:?}, {token:?})"), answer)
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        let asked = format!("advance({step:?})");
        let answer = self.inner.advance(step).await;
        self.story.answer(&asked, answer)
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let asked = format!("revoke({revocation:?})");
        let answer = self.inner.revoke(revocation).await;
        self.story.answer(&asked, answer)
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        let asked = format!("rules({keys:?})");
        let answer = self.inner.rules(keys).await;
        self.story.answer(&asked, answer)
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let asked = format!("list({of:?}, {page:?}, {now:?})");
        let answer = self.inner.list(of, page, now).await;
        self.story.answer(&asked, answer)
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        let asked = format!("revocations({after:?}, {limit})");
        let answer = self.inner.revocations(after, limit).await;
        self.story.answer(&asked, answer)
    }

    fn wakeups(&self) -> LogNotifications {
        self.inner.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let answer = self.inner.heartbeat(now, until).await;
        self.story.answer(&format!("heartbeat({now:?}, {until:?})"), answer)
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        let answer = self.inner.maintain(task).await;
        self.story.answer(&format!("maintain({task:?})"), answer)
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        let answer = self.inner.status(before).await;
        self.story.answer(&format!("status({before:?})"), answer)
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        let answer = self.inner.scan(page).await;
        self.story.answer(&format!("scan({page:?})"), answer)
    }
}

#[async_trait]
impl KeyStore for Told<dyn KeyStore> {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let answer = self.inner.load().await;
        self.story.answer("load()", answer)
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        let asked = format!("insert({record:?})");
        let answer = self.inner.insert(record).await;
        self.story.answer(&asked, answer)
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        let asked = format!("update({record:?}, {expected})");
        let answer = self.inner.update(record, expected).await;
        self.story.answer(&asked, answer)
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        let answer = self.inner.delete(generation, expected).await;
        self.story.answer(&format!("delete({generation}, {expected})"), answer)
    }
}

#[async_trait]
impl SingleUseStore for Told<dyn SingleUseStore> {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        let answer = self.inner.spend(spend).await;
        self.story.answer(&format!("spend({spend:?})"), answer)
    }
}
