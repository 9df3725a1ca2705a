//! The store: the methods of the contract, over the grants, the revocation log and the keys.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules, Target,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Housekeeping, Listing, Lookup, MaintenanceReport,
    PageRequest, RevokeOutcome, Selector, StoreError, TokenStore,
};
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{GrantId, Random, TokenDigest};

use crate::grants::{Grants, Inserted};
use crate::keys::KeyRing;
use crate::revocation_log::RevocationLog;
use crate::shard::Reaped;
use crate::wakeups::wakeups;

/// A [`TokenStore`] and [`KeyStore`](cloakroom_core::keys::KeyStore) in memory. A clone shares the state.
///
/// ```
/// use std::sync::Arc;
/// use cloakroom_core::keys::KeyStore;
/// use cloakroom_core::store::TokenStore;
/// use cloakroom_memory::MemoryStore;
///
/// let store = MemoryStore::new();
/// let tokens: Arc<dyn TokenStore> = Arc::new(store.clone());
/// let keys: Arc<dyn KeyStore> = Arc::new(store);
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<State>);

// # Locks
//
// - One shard of the grants: one lock covers a grant, its tokens, and their places in the index on
//   expiry and in the list of its client.
// - One shard of the index on subjects.
// - The revocation_log: the log, its bounds and the rules.
// - The key ring, and the check values, which nothing else touches.
//
// They are taken in this order, and never two of one kind at once. Only the shard of a grant is held while
// another lock is taken.
//
// # Cancellation
//
// No method awaits. Every future is done at the first poll, so a dropped operation has either not begun or
// is finished, and no lock is held across an await.
struct State {
    clock: Arc<dyn Clock>,
    random: Random,
    grants: Grants,
    revocation_log: Arc<RevocationLog>,
    keys: Mutex<KeyRing>,
    check_values: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryStore {
    /// An empty store with the system clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store with this clock. It sets the times that the contract leaves to the store: the first bound
    /// of the log, and the time at which the store revokes a grant that was created too late.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use cloakroom_core::time::{ManualClock, UnixTime};
    /// use cloakroom_memory::MemoryStore;
    ///
    /// let clock = Arc::new(ManualClock::at(UnixTime::from_secs(1_700_000_000)));
    /// let store = MemoryStore::with_clock(clock);
    /// ```
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::with_random(clock, Random::system())
    }

    pub(crate) fn with_random(clock: Arc<dyn Clock>, random: Random) -> Self {
        let revocation_log = Arc::new(RevocationLog::new(clock.now()));
        Self(Arc::new(State {
            clock,
            random,
            grants: Grants::new(),
            revocation_log,
            keys: Mutex::default(),
            check_values: Mutex::default(),
        }))
    }

    pub(crate) fn keys(&self) -> &Mutex<KeyRing> {
        &self.0.keys
    }

    pub(crate) fn values(&self) -> &Mutex<BTreeMap<String, Vec<u8>>> {
        &self.0.check_values
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for MemoryStore {
    // As `async_trait` would write it, but the record moves to the heap only once.
    fn create<'a, 'future>(
        &'a self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Pin<Box<dyn Future<Output = Result<CreateOutcome, StoreError>> + Send + 'future>>
    where
        'a: 'future,
        Self: 'future,
    {
        let grant = Arc::new(grant);
        Box::pin(async move { self.0.create(&grant, tokens) })
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        Ok(self.0.grants.find(grant, token))
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.0.grants.advance(step)
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.0.revoke(&revocation)
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        Ok(self.0.revocation_log.rules(keys))
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        Ok(self.0.list(&of, page, now))
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        let (grants, next) = self.0.grants.scan(page);
        Ok(Some(Listing { grants, unreadable: Vec::new(), next }))
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        Ok(self.0.revocation_log.read(&after, limit))
    }

    fn wakeups(&self) -> LogNotifications {
        wakeups(&self.0.revocation_log)
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let id = self.0.entry_id()?;
        self.0.revocation_log.heartbeat(id, now, until);
        self.0.revocation_log.wake_readers();
        Ok(())
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        Ok(self.0.maintain(&task))
    }
}

impl State {
    fn create(
        &self,
        grant: &Arc<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        match self.grants.insert(grant, tokens)? {
            Inserted::Present => {}
            Inserted::Exists => return Ok(CreateOutcome::Exists),
            Inserted::Revoked => return Ok(CreateOutcome::Barred),
        }
        // The grant and its index entries are visible now. If a revocation of its subject or client wrote
        // its rule before this look, the rule is seen here. Otherwise the sweep finds the grant.
        if !self.revocation_log.denies(grant) {
            return Ok(CreateOutcome::Inserted);
        }
        self.grants.flag(grant.id, self.clock.now(), |_| true);
        Ok(CreateOutcome::Barred)
    }

    fn revoke(&self, revocation: &Revocation) -> Result<RevokeOutcome, StoreError> {
        // This is the only step that can fail, so it comes first.
        let id = self.entry_id()?;
        let at = revocation.at;
        let log = || self.revocation_log.record(id, revocation);
        let bound = match &revocation.target {
            Target::Grant(grant) => {
                self.grants.revoke(*grant, at, revocation.until, log);
                None
            }
            Target::Token { grant, digest } => {
                self.grants.revoke_token(*grant, digest, at, log);
                None
            }
            _ => log(),
        };
        self.revocation_log.wake_readers();
        if let Some((of, bound)) = revocation.target.selector().zip(bound) {
            self.grants.sweep(&of, bound, at);
        }
        Ok(RevokeOutcome::Done)
    }

    fn list(&self, of: &Selector, page: PageRequest, now: UnixTime) -> Listing {
        let (mut grants, next) = self.grants.page(of, page);
        grants.retain(|grant| grant.is_live(now));
        // This follows the reading of grants, so that every rule that was in force then counts.
        self.revocation_log.retain_allowed(&mut grants);
        Listing { grants, unreadable: Vec::new(), next }
    }

    fn maintain(&self, task: &Housekeeping) -> MaintenanceReport {
        let limit = u64::from(task.limit.max(1));
        // At most half for each: a flood of revocations must not stop the deletion of grants.
        let trimmed = self.revocation_log.trim(task.before, limit.div_ceil(2));
        let Reaped { grants, tokens, tombstones } = self.grants.reap(task.before, limit - trimmed);
        // No sweep is open: each is done before its revocation is acknowledged.
        let mut report = MaintenanceReport::default();
        report.grants = grants;
        report.tokens = tokens;
        report.revocations = trimmed + tombstones;
        report.more = self.revocation_log.is_due(task.before) || self.grants.is_due(task.before);
        report
    }

    fn entry_id(&self) -> Result<EntryId, StoreError> {
        EntryId::random(&self.random)
            .map_err(|error| StoreError::unavailable("generating the id of a log entry", error))
    }
}

#[cfg(test)]
mod tests;
