//! A store that watches: it writes down every call with all its arguments, fails on demand, and
//! lets a test put one thing between two others.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use async_trait::async_trait;
use cloakroom::core::keys::*;
use cloakroom::core::record::*;
use cloakroom::core::revocation::*;
use cloakroom::core::store::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::memory::MemoryStore;
use tokio::sync::{Barrier, Semaphore};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One call, and everything that a store learns from it.
pub(crate) struct Call {
    pub(crate) method: &'static str,
    /// The arguments as `{:?}` shows them, and every record among them as the bytes of its row.
    pub(crate) arguments: Vec<u8>,
}

/// When a call that is made to fail does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Nothing has happened.
    Before,
    /// It took effect, but the answer is lost.
    After,
}

/// What [`ProbeStore::copy`] kept.
pub(crate) struct Copy(MemoryStore);

/// The in-memory store, watched.
pub(crate) struct ProbeStore {
    clock: Arc<ManualClock>,
    memory: RwLock<MemoryStore>,
    calls: Mutex<Vec<Call>>,
    tokens_down: AtomicBool,
    keys_down: AtomicBool,
    sweeps_later: AtomicBool,
    /// What `find` does not show of every grant yet.
    unswept: Mutex<Vec<Target>>,
    unreadable: AtomicU64,
    value_reads: AtomicU64,
    status: Mutex<StoreStatus>,
    fault: Mutex<Option<(&'static str, When)>>,
    fails: Mutex<Option<&'static str>>,
    swallows: AtomicBool,
    damaged: Mutex<Option<&'static str>>,
    /// Everything that was ever created.
    created: Mutex<Vec<(GrantRecord, Vec<TokenRecord>)>>,
    between: Mutex<VecDeque<(&'static str, Boxed)>>,
    meeting: Mutex<Option<(&'static str, Arc<Barrier>)>>,
    gate: Mutex<Option<(&'static str, When, Arc<Gate>)>>,
}

/// Holds calls until it is opened.
pub(crate) struct Gate {
    held: Semaphore,
    open: Semaphore,
}

impl Gate {
    /// Waits until this many calls are held.
    pub(crate) async fn holds(&self, number: u32) {
        self.held.acquire_many(number).await.unwrap().forget();
    }

    pub(crate) fn open(&self) {
        self.open.close();
    }
}

impl ProbeStore {
    pub(crate) fn new(clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self {
            memory: RwLock::new(MemoryStore::with_clock(clock.clone())),
            clock,
            calls: Mutex::default(),
            tokens_down: AtomicBool::new(false),
            keys_down: AtomicBool::new(false),
            sweeps_later: AtomicBool::new(false),
            unswept: Mutex::default(),
            unreadable: AtomicU64::new(0),
            value_reads: AtomicU64::new(0),
            status: Mutex::default(),
            fault: Mutex::default(),
            fails: Mutex::default(),
            swallows: AtomicBool::new(false),
            damaged: Mutex::default(),
            created: Mutex::default(),
            between: Mutex::default(),
            meeting: Mutex::default(),
            gate: Mutex::default(),
        })
    }

    /// Leaves sweeps to housekeeping, one a round, as a store for millions of grants may.
    pub(crate) fn sweep_later(&self) {
        self.sweeps_later.store(true, Ordering::SeqCst);
    }

    /// From now on, the store says this of itself.
    pub(crate) fn describe(&self, status: StoreStatus) {
        *self.status.lock().unwrap() = status;
    }

    /// The next round of housekeeping meets this many rows that cannot be read, and more is to do.
    pub(crate) fn meet_damage(&self, rows: u64) {
        self.unreadable.store(rows, Ordering::SeqCst);
    }

    /// The calls of the token store since the last look, by name.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let names = calls.iter().map(|call| call.method);
        names.filter(|name| !name.starts_with("keys")).collect()
    }

    /// How often the check values were read since the last look.
    pub(crate) fn value_reads(&self) -> u64 {
        self.value_reads.swap(0, Ordering::SeqCst)
    }

    /// Every call since the last look, those of the key store too, with its arguments.
    pub(crate) fn seen(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Tokens cannot be reached, or can again.
    pub(crate) fn tokens_down(&self, down: bool) {
        self.tokens_down.store(down, Ordering::SeqCst);
    }

    /// Signing keys cannot be reached, or can again.
    pub(crate) fn keys_down(&self, down: bool) {
        self.keys_down.store(down, Ordering::SeqCst);
    }

    /// The next call of this method fails.
    pub(crate) fn fail_next(&self, method: &'static str, when: When) {
        *self.fault.lock().unwrap() = Some((method, when));
    }

    /// Does this right before the next call of that method takes effect.
    pub(crate) fn before_next(
        &self,
        method: &'static str,
        what: impl Future<Output = ()> + Send + 'static,
    ) {
        let what: Boxed = Box::pin(what);
        self.between.lock().unwrap().push_back((method, what));
    }

    /// From now on, calls of this method wait for each other: none returns before this many have
    /// their answers.
    pub(crate) fn meet_after(&self, method: &'static str, number: usize) {
        *self.meeting.lock().unwrap() = Some((method, Arc::new(Barrier::new(number))));
    }

    /// From now on, calls of this method are held, before they take effect or after.
    pub(crate) fn hold(&self, method: &'static str, when: When) -> Arc<Gate> {
        let gate = Arc::new(Gate { held: Semaphore::new(0), open: Semaphore::new(0) });
        *self.gate.lock().unwrap() = Some((method, when, gate.clone()));
        gate
    }

    async fn wait(&self, method: &'static str, when: When) {
        let gate = self.gate.lock().unwrap().clone();
        let gate = gate.filter(|(name, at, _)| (*name, *at) == (method, when));
        if let Some((_, _, gate)) = gate {
            gate.held.add_permits(1);
            gate.open.acquire().await.unwrap_err();
        }
    }

    /// No call waits for another any more.
    pub(crate) fn no_meeting(&self) {
        *self.meeting.lock().unwrap() = None;
    }

    /// The grant as it stands. Not counted as a call.
    pub(crate) async fn grant(&self, id: GrantId) -> GrantRecord {
        match self.memory().find(id, None).await.unwrap() {
            Lookup::Found(found) => GrantRecord::clone(&found.grant),
            other => panic!("no grant, but {other:?}"),
        }
    }

    /// A failover to a standby that had nothing but this record.
    pub(crate) async fn fail_over(&self, record: GrantRecord) {
        let standby = MemoryStore::with_clock(self.clock.clone());
        let created = standby.create(record, Vec::new()).await.unwrap();
        assert_eq!(created, CreateOutcome::Inserted);
        *self.memory.write().unwrap() = standby;
    }

    /// A copy of the grants, as they were created, and of the ring of keys.
    pub(crate) async fn copy(&self) -> Copy {
        let keys = self.memory().load().await.unwrap();
        let copy = MemoryStore::with_clock(self.clock.clone());
        let grants = self.created.lock().unwrap().clone();
        for (grant, tokens) in grants {
            let created = copy.create(grant, tokens).await.unwrap();
            assert_eq!(created, CreateOutcome::Inserted);
        }
        for key in keys {
            assert_eq!(copy.insert(key).await.unwrap(), KeyInserted::Inserted);
        }
        Copy(copy)
    }

    /// Puts a copy in the place of the store.
    pub(crate) fn put_back(&self, Copy(copy): Copy) {
        *self.memory.write().unwrap() = copy;
    }

    /// Every call of this method fails, or none does any more.
    pub(crate) fn fail_all(&self, method: &'static str, fails: bool) {
        *self.fails.lock().unwrap() = fails.then_some(method);
    }

    /// What calls of this method read is damaged, or is mended.
    pub(crate) fn damage(&self, method: &'static str, is_damaged: bool) {
        *self.damaged.lock().unwrap() = is_damaged.then_some(method);
    }

    /// The next revocation is acknowledged, and lost.
    pub(crate) fn swallow_revocation(&self) {
        self.swallows.store(true, Ordering::SeqCst);
    }

    /// The store itself, for looking into it.
    pub(crate) fn memory(&self) -> MemoryStore {
        self.memory.read().unwrap().clone()
    }

    async fn call<T>(
        &self,
        method: &'static str,
        arguments: Vec<u8>,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.lock().unwrap().push(Call { method, arguments });
        let between = {
            let mut queue = self.between.lock().unwrap();
            let at = queue.iter().position(|(name, _)| *name == method);
            at.and_then(|at| queue.remove(at))
        };
        if let Some((_, what)) = between {
            what.await;
        }
        // Lets racing tasks get in between everywhere.
        tokio::task::yield_now().await;
        self.wait(method, When::Before).await;
        self.check(method, When::Before)?;
        if *self.damaged.lock().unwrap() == Some(method) {
            return Err(StoreError::corrupt("a row", "for the test"));
        }
        let answer = operation.await;
        self.wait(method, When::After).await;
        let meeting = self.meeting.lock().unwrap().clone();
        if let Some((_, barrier)) = meeting.filter(|(name, _)| *name == method) {
            barrier.wait().await;
        }
        self.check(method, When::After)?;
        answer
    }

    fn check(&self, method: &'static str, when: When) -> Result<(), StoreError> {
        let down = if method.starts_with("keys") { &self.keys_down } else { &self.tokens_down };
        let mut fault = self.fault.lock().unwrap();
        let fails = down.load(Ordering::SeqCst)
            || *self.fails.lock().unwrap() == Some(method)
            || fault.take_if(|fault| *fault == (method, when)).is_some();
        if fails {
            return Err(StoreError::unavailable("test", "the store is down"));
        }
        Ok(())
    }
}

fn shown(arguments: &dyn fmt::Debug) -> Vec<u8> {
    format!("{arguments:?}").into_bytes()
}

/// The body of a grant's row, and its columns.
fn grant_bytes(grant: &GrantRecord) -> Vec<u8> {
    let row = grant.to_row();
    [shown(&row), row.body].concat()
}

fn token_bytes(tokens: &[TokenRecord]) -> Vec<u8> {
    let rows = tokens.iter().map(TokenRecord::to_row);
    rows.flat_map(|row| [shown(&row), row.body].concat()).collect()
}

#[async_trait]
impl CheckValues for ProbeStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.value_reads.fetch_add(1, Ordering::SeqCst);
        // Lets nodes that start at the same time race.
        tokio::task::yield_now().await;
        self.memory().check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        tokio::task::yield_now().await;
        self.memory().set_check_value(name, expected, value).await
    }
}

#[async_trait]
impl TokenStore for ProbeStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let (memory, tokens_seen) = (self.memory(), token_bytes(&tokens));
        self.created.lock().unwrap().push((grant.clone(), tokens.clone()));
        let seen = [shown(&(&grant, &tokens)), grant_bytes(&grant), tokens_seen].concat();
        self.call("create", seen, memory.create(grant, tokens)).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        let memory = self.memory();
        let mut seen = shown(&(grant, token));
        seen.extend(token.iter().flat_map(|digest| *digest.as_bytes()));
        let mut lookup = self.call("find", seen, memory.find(grant, token)).await?;
        if let Lookup::Found(found) = &mut lookup {
            let unswept = self.unswept.lock().unwrap();
            let mut unswept = unswept.iter().filter_map(Target::selector);
            if unswept.any(|of| of.selects(&found.grant)) {
                Arc::make_mut(&mut found.grant).revoked_at = None;
            }
        }
        Ok(lookup)
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        let memory = self.memory();
        let mut seen = [shown(&step), token_bytes(&step.tokens)].concat();
        if let ChainUpdate::Move(next) = &step.change {
            seen.extend(grant_bytes(next));
        }
        self.call("advance", seen, memory.advance(step)).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        if self.sweeps_later.load(Ordering::SeqCst) && revocation.target.has_bound() {
            let target = revocation.target.clone();
            let swept_later = async {
                let done = self.memory().revoke(revocation.clone()).await?;
                assert_eq!(done, RevokeOutcome::Done);
                self.unswept.lock().unwrap().push(target);
                Ok(RevokeOutcome::Sweeping(EntryId::from_bytes([1; 16])))
            };
            return self.call("revoke", shown(&revocation), swept_later).await;
        }
        if self.swallows.swap(false, Ordering::SeqCst) {
            return Ok(RevokeOutcome::Done);
        }
        let memory = self.memory();
        let target = serde_json::to_vec(&revocation.target).unwrap();
        let seen = [shown(&revocation), target].concat();
        self.call("revoke", seen, memory.revoke(revocation)).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        let memory = self.memory();
        self.call("rules", shown(&keys), memory.rules(keys)).await
    }

    /// Not counted as a call.
    async fn status(&self, _: UnixTime) -> Result<StoreStatus, StoreError> {
        Ok(self.status.lock().unwrap().clone())
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let (memory, seen) = (self.memory(), shown(&(&of, page, now)));
        self.call("list", seen, memory.list(of, page, now)).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        let (memory, seen) = (self.memory(), shown(&(&after, limit)));
        self.call("revocations", seen, memory.revocations(after, limit)).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.memory().wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let (memory, seen) = (self.memory(), shown(&(now, until)));
        self.call("heartbeat", seen, memory.heartbeat(now, until)).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        let swept = self.unswept.lock().unwrap().pop();
        if swept.is_some() {
            let sweep = async {
                let mut done = MaintenanceReport::default();
                done.more = true;
                done.sweeping = true;
                Ok(done)
            };
            return self.call("maintain", shown(&task), sweep).await;
        }
        let unreadable = self.unreadable.swap(0, Ordering::SeqCst);
        if unreadable > 0 {
            let met = async {
                let mut done = MaintenanceReport::default();
                done.unreadable = unreadable;
                done.more = true;
                Ok(done)
            };
            return self.call("maintain", shown(&task), met).await;
        }
        let memory = self.memory();
        self.call("maintain", shown(&task), TokenStore::maintain(&memory, task)).await
    }
}

#[async_trait]
impl KeyStore for ProbeStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let memory = self.memory();
        self.call("keys.load", Vec::new(), memory.load()).await
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        let memory = self.memory();
        let seen = [shown(&record), record.to_body()].concat();
        self.call("keys.insert", seen, memory.insert(record)).await
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        let memory = self.memory();
        let seen = [shown(&record), record.to_body()].concat();
        self.call("keys.update", seen, memory.update(record, expected)).await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        let (memory, seen) = (self.memory(), shown(&(generation, expected)));
        self.call("keys.delete", seen, memory.delete(generation, expected)).await
    }
}

impl fmt::Debug for ProbeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeStore").finish_non_exhaustive()
    }
}
