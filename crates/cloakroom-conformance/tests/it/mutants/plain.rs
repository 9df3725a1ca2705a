//! A small, plain store that keeps the contract, unless it is told what to do wrong.
//!
//! Every step is one section under one lock. Between the steps of an operation it pauses, as a
//! store does that waits for its database: there races meet, and there futures are dropped.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::{
    Advance, Advanced, CheckValue, CheckValues, Created, Cursor, GrantId, GrantRecord,
    Housekeeping, Listing, Lookup, Maintained, Page, Revocation, RevocationBatch, Revoked, RuleKey,
    Rules, Selector, StoreError, TokenDigest, TokenRecord, TokenStore, UnixTime, Wakeups,
};
use futures_util::stream::unfold;
use tokio::sync::watch;

use super::check_values::Values;
use super::fault::Fault;
use super::state::{Inserted, State, Sweep};
use super::wrong::selector;

/// How many grants one step of a sweep flags.
const SWEEP_BATCH: usize = 100;

/// How a store goes about it, where the contract leaves it the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Manners {
    /// It leaves every sweep to `maintain`.
    pub(crate) lazy_sweeps: bool,
    /// It cannot tell that its log grew.
    pub(crate) polls: bool,
    /// Its pages hold one candidate at most, live or not.
    pub(crate) short_pages: bool,
    /// Each operation runs in a task of its own: dropped, it goes on.
    pub(crate) own_tasks: bool,
    /// Where the memory store says that it chose, it chose otherwise: a digest that is taken stays
    /// as it is, and a row goes at its own end.
    pub(crate) other_choices: bool,
    /// A `create` that is dropped between its writes and its look for rules stays as it is: its
    /// tokens are held by nobody, and a retry looks.
    pub(crate) crashes: bool,
    /// `maintain` touches one row a call.
    pub(crate) small_steps: bool,
}

#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) fault: Option<Fault>,
    pub(crate) manners: Manners,
    state: Arc<Mutex<State>>,
    values: Arc<Values>,
}

impl Plain {
    pub(crate) fn new(fault: Option<Fault>, mut manners: Manners) -> Self {
        // Wrong only where no sweep has come by.
        manners.lazy_sweeps |= matches!(
            fault,
            Some(Fault::RetrySkipsCheck | Fault::ListShowsDenied | Fault::SweepIsForgotten)
        );
        manners.crashes |= fault == Some(Fault::CrashedRetrySkipsCheck);
        let state = Arc::new(Mutex::new(State::new(fault, manners)));
        Self { fault, manners, state, values: Arc::default() }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn skips_checks_of_retries(&self) -> bool {
        self.has(Fault::RetrySkipsCheck) || self.has(Fault::CrashedRetrySkipsCheck)
    }

    /// Does the work: here, or in a task of its own.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        if self.manners.own_tasks {
            return tokio::spawn(work).await.expect("the store's task ends");
        }
        work.await
    }

    async fn created(
        self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<Created, StoreError> {
        let foreign = tokens.iter().any(|token| token.grant != grant.id);
        if foreign && !self.has(Fault::CreateTakesForeignTokens) {
            return Err(StoreError::Misuse("a token names another grant"));
        }
        self.lock().see(grant.created_at);
        pause().await;
        if let Some(done) = self.created_wrongly(&grant, &tokens).await {
            return Ok(done);
        }
        let inserted = self.lock().insert(&grant, &tokens)?;
        match inserted {
            Inserted::Exists => return Ok(Created::Exists),
            Inserted::Revoked => return Ok(Created::Barred),
            Inserted::Present if self.skips_checks_of_retries() => return Ok(Created::Inserted),
            Inserted::Present | Inserted::Written => {}
        }
        let unchecked = Unchecked { store: &self, grant: &grant, done: self.manners.crashes };
        pause().await;
        if self.has(Fault::CreateWritesTokensLater) {
            self.lock().put_tokens(tokens);
        }
        if inserted == Inserted::Written {
            self.lock().unindexed.remove(&grant.id);
        }
        let barred = unchecked.check();
        pause().await;
        Ok(if barred { Created::Barred } else { Created::Inserted })
    }

    async fn found(self, grant: GrantId, token: Option<TokenDigest>) -> Lookup {
        pause().await;
        let found = {
            let mut state = self.lock();
            let found = state.find(grant, token);
            state.catch_up();
            found
        };
        pause().await;
        found
    }

    async fn advanced(self, step: Advance) -> Result<Advanced, StoreError> {
        self.lock().see(step.now);
        pause().await;
        if self.advances_wrongly() {
            return self.advanced_wrongly(step).await;
        }
        let done = {
            let mut state = self.lock();
            state.catch_up();
            match state.judge(&step)? {
                Some(refused) => refused,
                None => {
                    state.take(step);
                    Advanced::Advanced
                }
            }
        };
        pause().await;
        Ok(done)
    }

    async fn revoked(self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.lock().see(revocation.at);
        pause().await;
        if let Some(done) = self.revoked_wrongly(&revocation).await {
            return done;
        }
        let Some(of) = selector(&revocation.target) else {
            self.lock().revoke_one(&revocation)?;
            pause().await;
            return Ok(Revoked::Done);
        };
        // The entry, its bound, the rule and the record of the sweep are one step.
        let sweep = {
            let mut state = self.lock();
            let bound = state.journal.record(&revocation).unwrap_or_default();
            let entry = state.journal.newest_entry();
            let sweep = Sweep { of, bound, at: revocation.at, entry };
            if !self.has(Fault::DroppedSweepIsForgotten) && !self.has(Fault::SweepIsForgotten) {
                state.sweeps.push(sweep.clone());
            }
            sweep
        };
        pause().await;
        if self.manners.lazy_sweeps {
            return Ok(Revoked::Sweeping(sweep.entry));
        }
        loop {
            let done = self.lock().sweep(&sweep, SWEEP_BATCH) < SWEEP_BATCH;
            pause().await;
            if done || self.has(Fault::SweepEndsEarly) {
                self.lock().swept(sweep.bound);
                return Ok(Revoked::Done);
            }
        }
    }

    async fn maintained(self, mut task: Housekeeping) -> Maintained {
        self.lock().see(task.now);
        if self.manners.small_steps {
            task.limit = 1;
        }
        pause().await;
        if self.has(Fault::MaintainLooksThenDeletes) {
            let found = self.lock().due(task.before);
            pause().await;
            pause().await;
            return self.lock().maintain(&task, Some(found));
        }
        let maintained = self.lock().maintain(&task, None);
        pause().await;
        maintained
    }

    /// One wake-up at the start, and one whenever the log has grown since the last.
    fn wakes(&self) -> Wakeups {
        if self.manners.polls {
            return Wakeups::Poll(Duration::from_millis(100));
        }
        let grown = self.lock().journal.grown.clone();
        let reader = (!self.has(Fault::WakeupsBeginLate)).then(|| {
            let mut reader = grown.subscribe();
            if !self.has(Fault::WakeupsBeginWithTheStream) {
                reader.mark_changed();
            }
            reader
        });
        let (ends, misses) = (self.has(Fault::WakeupsEnd), self.has(Fault::WakeupsAreMissed));
        let start = (reader, grown, 0_u32);
        Wakeups::Stream(Box::pin(unfold(start, move |(reader, grown, count)| async move {
            if ends && count > 0 {
                return None;
            }
            let mut reader: watch::Receiver<u64> = reader.unwrap_or_else(|| grown.subscribe());
            if misses && count > 0 {
                reader.mark_unchanged();
            }
            reader.changed().await.ok()?;
            Some(((), (Some(reader), grown, count + 1)))
        })))
    }
}

/// A grant that is written, but not yet held against the rules. Dropped, the check is made up for:
/// what has begun is certain to finish.
struct Unchecked<'a> {
    store: &'a Plain,
    grant: &'a GrantRecord,
    done: bool,
}

impl Unchecked<'_> {
    fn check(mut self) -> bool {
        self.done = true;
        self.store.lock().check(self.grant)
    }
}

impl Drop for Unchecked<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.store.lock().check(self.grant);
        }
    }
}

/// Where a store would wait for its database.
pub(crate) async fn pause() {
    tokio::task::yield_now().await;
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("fault", &self.fault)
            .field("manners", &self.manners)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl CheckValues for Plain {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        pause().await;
        Ok(self.values.all())
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        pause().await;
        Ok(self.values.set(name, expected, value))
    }
}

#[async_trait]
impl TokenStore for Plain {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<Created, StoreError> {
        self.run(self.clone().created(grant, tokens)).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        Ok(self.run(self.clone().found(grant, token)).await)
    }

    async fn advance(&self, step: Advance) -> Result<Advanced, StoreError> {
        self.run(self.clone().advanced(step)).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        self.run(self.clone().revoked(revocation)).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        pause().await;
        let rules = {
            let state = self.lock();
            state.journal.rules(&keys, state.seen)
        };
        pause().await;
        Ok(rules)
    }

    async fn list(
        &self,
        of: Selector,
        mut page: Page,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        pause().await;
        if self.manners.short_pages {
            page.limit = 1;
        }
        let listing = {
            let mut state = self.lock();
            state.see(now);
            state.catch_up();
            state.list(&of, page, now)
        };
        pause().await;
        Ok(listing)
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        pause().await;
        let batch = self.lock().journal.read(&after, limit);
        pause().await;
        Ok(batch)
    }

    fn wakeups(&self) -> Wakeups {
        self.wakes()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        pause().await;
        self.lock().journal.heartbeat(now, until);
        pause().await;
        Ok(())
    }

    async fn maintain(&self, task: Housekeeping) -> Result<Maintained, StoreError> {
        Ok(self.run(self.clone().maintained(task)).await)
    }
}
