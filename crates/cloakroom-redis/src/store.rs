//! The store: the methods of the contract.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Housekeeping, Listing, Lookup, MaintenanceReport,
    PageRequest, RevokeOutcome, Selector, StoreError, StoreStatus, TokenStore,
};
use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_core::{GrantId, Random, TokenDigest};

use crate::builder::RedisStoreBuilder;
use crate::connection::{Link, SharedConnection};
use crate::error::OpenError;
use crate::layout::Layout;
use crate::wakeups::{self, Wakeups};
use crate::work::{Close, Work};

/// How many grants a sweep looks at in one step.
const SWEEP_STEP: usize = 1_000;

/// How many steps of a sweep `revoke` takes before it leaves the rest to `maintain`.
const SWEEP_STEPS: u32 = 20;

/// A [`TokenStore`], [`KeyStore`](cloakroom_core::keys::KeyStore) and
/// [`SingleUseStore`](cloakroom_core::store::SingleUseStore) in Redis or Valkey: one server, the master that
/// sentinels name, or a cluster. A clone shares the connection. Call its methods on a tokio runtime.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use cloakroom_core::keys::KeyStore;
/// use cloakroom_core::store::TokenStore;
/// use cloakroom_redis::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1").await?;
/// let tokens: Arc<dyn TokenStore> = Arc::new(store.clone());
/// let keys: Arc<dyn KeyStore> = Arc::new(store);
/// assert!(keys.load().await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) link: Link,
    pub(crate) layout: Layout,
    /// `None` if there is no way to open a connection for reads that wait.
    pub(crate) wakeups: Option<Wakeups>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
}

impl RedisStore {
    /// Connects to the server at this URL, with the default settings.
    ///
    /// | URL | connects to |
    /// |---|---|
    /// | `redis://[user][:password@]host[:port][/database]` | one server |
    /// | `redis+unix:///path?db=0` | one server, over a Unix socket |
    /// | `redis+sentinel://[user][:password@]host[:port],…/master[/database]` | the master that sentinels name |
    /// | `redis+cluster://[user][:password@]host[:port],…` | a cluster; list some of its nodes |
    ///
    /// With `rediss` in place of `redis` the connection uses TLS. `valkey` and `valkeys` mean the same.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, is too old, is a replica, or may evict keys.
    pub async fn connect(url: &str) -> Result<Self, OpenError> {
        Self::builder(url).connect().await
    }

    /// Settings for a store on the server at this URL; see [`RedisStore::connect`].
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::url(url)
    }

    /// Settings for a store over an existing connection of your app. The store cannot wait for new
    /// revocations on it, so readers poll ten times a second.
    pub fn over(connection: impl Into<SharedConnection>) -> RedisStoreBuilder {
        RedisStoreBuilder::shared(connection.into())
    }

    /// 16 random bytes: the id of a log entry, or the incarnation of a log.
    pub(crate) fn entry_id(&self) -> Result<EntryId, StoreError> {
        EntryId::random(&self.0.random)
            .map_err(|error| StoreError::unavailable("generating the id of a log entry", error))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.0.layout.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for RedisStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        self.create_grant(&grant, &tokens).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.find_grant(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.advance_grant(&step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let (id, work) = (self.entry_id()?, Work::of(&revocation));
        // First the log, then the effect. If this future is dropped, `maintain` finds the record of the work.
        let bound = self.append_revocation(id, &revocation, work.as_ref()).await?;
        let Some(work) = work else { return Ok(RevokeOutcome::Done) };
        let mut after = None;
        for _ in 0..SWEEP_STEPS {
            let progress = self.take_effect(&self.0.link, &work, bound, after, SWEEP_STEP).await?;
            let Some(last) = progress.after else {
                self.close(id, Close::Closed).await?;
                return Ok(RevokeOutcome::Done);
            };
            self.close(id, Close::Progress(last)).await?;
            after = Some(last);
        }
        Ok(RevokeOutcome::Sweeping(id))
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.read_rules(keys).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.list_grants(&of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.read_log(&after, limit).await
    }

    fn wakeups(&self) -> LogNotifications {
        match &self.0.wakeups {
            Some(wakeups) => wakeups.listen(),
            None => wakeups::poll(),
        }
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.append_heartbeat(self.entry_id()?, now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.keep_house(&task).await
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        self.read_status(before).await
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        self.scan_grants(page).await.map(Some)
    }
}
