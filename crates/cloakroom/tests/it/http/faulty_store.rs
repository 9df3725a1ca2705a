//! The in-memory store behind a connection that can be cut, and a log that can be held up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::keys::*;
use cloakroom::core::record::*;
use cloakroom::core::revocation::*;
use cloakroom::core::store::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::memory::MemoryStore;
use tokio::sync::Semaphore;

/// A store of tokens and keys, each of which cannot be reached while it is down.
#[derive(Debug)]
pub(super) struct FaultyStore {
    memory: MemoryStore,
    tokens_down: AtomicBool,
    keys_down: AtomicBool,
    /// How often the log was read.
    reads: AtomicUsize,
    /// Each read of the log takes one, and waits for it.
    permits: Semaphore,
    /// What is revoked right after the next read of the log.
    late: Mutex<Option<Revocation>>,
    wakeups: Mutex<WakeUp>,
    /// The newest bound at the time at which the log froze.
    frozen: Mutex<Option<Epoch>>,
    mute: AtomicBool,
    gap: AtomicBool,
    skips: AtomicBool,
}

/// How the store tells that its log grew.
#[derive(Debug, Clone, Copy)]
pub(super) enum WakeUp {
    /// As the in-memory store does.
    AtOnce,
    /// It is asked at this interval.
    Poll(Duration),
    /// It says nothing, ever.
    Never,
    /// It stops at once.
    Ends,
}

impl FaultyStore {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::with_clock(clock),
            tokens_down: AtomicBool::new(false),
            keys_down: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            late: Mutex::default(),
            wakeups: Mutex::new(WakeUp::AtOnce),
            frozen: Mutex::default(),
            mute: AtomicBool::new(false),
            gap: AtomicBool::new(false),
            skips: AtomicBool::new(false),
        })
    }

    /// How often the log has been read so far.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// Reads of the log wait until [`FaultyStore::let_go`].
    pub(super) fn hold_up(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(super) fn let_go(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Revokes this after the next read of the log has seen nothing of it.
    pub(super) fn revoke_late(&self, revocation: Revocation) {
        *self.late.lock().unwrap() = Some(revocation);
    }

    pub(super) fn wake_up(&self, how: WakeUp) {
        *self.wakeups.lock().unwrap() = how;
    }

    /// Whoever reads the log learns of nothing new, as from a part of the store that is cut off.
    pub(super) async fn freeze(&self, frozen: bool) {
        let newest_bound = self.memory.rules(Vec::new()).await.unwrap().newest_bound;
        *self.frozen.lock().unwrap() = frozen.then_some(newest_bound);
    }

    /// Each read of the log meets a gap, or none does any more.
    pub(super) fn lose_place(&self, gap: bool) {
        self.gap.store(gap, Ordering::SeqCst);
    }

    /// The next read of the log leads past its entries, and shows none of them.
    pub(super) fn skip_entries(&self) {
        self.skips.store(true, Ordering::SeqCst);
    }

    /// From now on no heartbeat can be written.
    pub(super) fn mute(&self) {
        self.mute.store(true, Ordering::SeqCst);
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
impl CheckValues for FaultyStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.tokens()?.check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        self.tokens()?.set_check_value(name, expected, value).await
    }
}

#[async_trait]
impl TokenStore for FaultyStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        self.tokens()?.create(grant, tokens).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.tokens()?.find(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.tokens()?.advance(step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.tokens()?.revoke(revocation).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.tokens()?.rules(keys).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.tokens()?.list(of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        let answer = self.tokens()?.revocations(after.clone(), limit).await;
        let late = self.late.lock().unwrap().take();
        if let Some(late) = late {
            self.memory.revoke(late).await.unwrap();
        }
        let frozen = *self.frozen.lock().unwrap();
        if let Some(newest_bound) = frozen {
            let next = after;
            return Ok(RevocationBatch::Entries {
                entries: Vec::new(),
                next,
                more: false,
                newest_bound,
            });
        }
        if self.gap.load(Ordering::SeqCst) {
            return Ok(RevocationBatch::Gap);
        }
        let skips = self.skips.swap(false, Ordering::SeqCst);
        match answer {
            Ok(RevocationBatch::Entries { next, more, newest_bound, .. }) if skips => {
                let entries = Vec::new();
                Ok(RevocationBatch::Entries { entries, next, more, newest_bound })
            }
            answer => answer,
        }
    }

    fn wakeups(&self) -> LogNotifications {
        match *self.wakeups.lock().unwrap() {
            WakeUp::AtOnce => self.memory.wakeups(),
            WakeUp::Poll(interval) => LogNotifications::Poll(interval),
            WakeUp::Never => LogNotifications::Stream(Box::pin(futures_util::stream::pending())),
            WakeUp::Ends => LogNotifications::Stream(Box::pin(futures_util::stream::empty())),
        }
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.unless(&self.mute)?;
        self.tokens()?.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
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
