//! A small, plain store that keeps the contract, unless it is told what to do wrong.
//!
//! Every step is one section under one lock. Between the steps of an operation it pauses, as a
//! store does that waits for its database: there races meet, and there futures are dropped.

mod check_values;
pub(crate) mod database;
mod housekeeping;
pub(crate) mod keys;
mod listing;
mod log;
mod names;
mod operator;
mod revoking;
mod state;
mod store;
mod wrong;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Found, Housekeeping, Lookup, MaintenanceReport,
    RevokeOutcome, StoreError,
};
use cloakroom_core::{GrantId, TokenDigest};
use futures_util::stream::unfold;
use tokio::sync::watch;

use super::fault::Fault;
use check_values::Values;
use database::{Driver, Local};
use state::{Inserted, State, Sweep};

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
    /// Its bounds leave gaps.
    pub(crate) gaps: bool,
    /// Its newest bound is raised whenever it is asked for.
    pub(crate) raises: bool,
    /// Its cursors have a content of its own.
    pub(crate) own_cursors: bool,
    /// `maintain` wants to be called a few times more when nothing is left.
    pub(crate) more_for_a_while: bool,
}

#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) fault: Option<Fault>,
    pub(crate) manners: Manners,
    state: Arc<Mutex<State>>,
    pub(crate) values: Arc<Values>,
    pub(crate) driver: Arc<Driver>,
    local: Arc<Mutex<Local>>,
}

impl Plain {
    pub(crate) fn new(fault: Option<Fault>, mut manners: Manners) -> Self {
        // Wrong only where no sweep has come by.
        manners.lazy_sweeps |= matches!(
            fault,
            Some(
                Fault::RetrySkipsCheck
                    | Fault::ListShowsDenied
                    | Fault::SweepIsForgotten
                    | Fault::SweepingIsDenied
                    | Fault::UnknownSweepGoesOn
                    | Fault::UnknownSweepIsAnError
                    | Fault::SweepNamesNothing
                    | Fault::SweepsStarveDeletion
                    | Fault::DeletionStarvesSweeps
                    | Fault::AwaitedSweepWaitsItsTurn
                    | Fault::SweepsAreForgotten
                    | Fault::SweepsAreTheInstances
                    | Fault::StatusHidesSweeps
            )
        );
        manners.crashes |= fault == Some(Fault::CrashedRetrySkipsCheck);
        let state = Arc::new(Mutex::new(State::new(fault, manners)));
        let local = Arc::new(Mutex::new(Local::new()));
        Self { fault, manners, state, values: Arc::default(), driver: Arc::default(), local }
    }

    /// Another instance over the same data.
    pub(crate) fn another(&self) -> Self {
        Self { local: Arc::new(Mutex::new(Local::new())), ..self.clone() }
    }

    /// What is found after a restart.
    pub(crate) fn reborn(&self) -> Self {
        let state = Arc::new(Mutex::new(self.lock().reborn()));
        Self { state, values: Arc::new(self.values.reborn(self.fault)), ..self.another() }
    }

    pub(crate) fn driver(&self) -> Arc<Driver> {
        Arc::clone(&self.driver)
    }

    pub(crate) fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One operation of the driver.
    pub(crate) fn request<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        self.driver.run(|| work(&mut self.lock()))
    }

    /// What it answers if the driver fails: the error, unless that is what it does wrong.
    pub(crate) fn or_lie<T>(
        &self,
        fault: Fault,
        answer: Result<T, StoreError>,
        lie: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        match answer {
            Err(StoreError::Unavailable { .. }) if self.has(fault) => Ok(lie()),
            answer => answer,
        }
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
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if self.manners.own_tasks {
            return tokio::spawn(work).await.expect("the store's task ends");
        }
        work.await
    }

    pub(crate) async fn created(
        self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let foreign = tokens.iter().any(|token| token.grant != grant.id);
        if foreign && !self.has(Fault::CreateTakesForeignTokens) {
            return Err(StoreError::Misuse("a token names another grant"));
        }
        self.lock().see(grant.created_at);
        pause().await;
        if let Some(done) = self.created_wrongly(&grant, &tokens).await {
            return Ok(done);
        }
        let inserted = self.request(|state| state.insert(&grant, &tokens))??;
        if inserted == Inserted::Written {
            self.local().created.insert(grant.id);
        }
        if self.has(Fault::RetryIsKnownToTheInstance) && !self.local().created.contains(&grant.id) {
            return Ok(CreateOutcome::Exists);
        }
        match inserted {
            Inserted::Exists => return Ok(CreateOutcome::Exists),
            Inserted::Revoked => return Ok(CreateOutcome::Barred),
            Inserted::Present if self.skips_checks_of_retries() => {
                return Ok(CreateOutcome::Inserted);
            }
            Inserted::Present | Inserted::Written => {}
        }
        let unchecked = Unchecked { store: &self, grant: &grant, done: self.manners.crashes };
        pause().await;
        if self.has(Fault::CreateWritesTokensLater) {
            self.request(|state| state.put_tokens(tokens))?;
        }
        if inserted == Inserted::Written {
            self.lock().unindexed.remove(&grant.id);
        }
        if self.has(Fault::CreateAsksItsOwnRules) && self.local().lets_pass(&grant) {
            return Ok(CreateOutcome::Inserted);
        }
        let barred = self.request(|_| ()).map(|()| unchecked.check())?;
        pause().await;
        Ok(if barred { CreateOutcome::Barred } else { CreateOutcome::Inserted })
    }

    pub(crate) async fn found(
        self,
        grant: GrantId,
        token: Option<TokenDigest>,
    ) -> Result<Lookup, StoreError> {
        pause().await;
        let known = self.local().found.get(&(grant, token)).cloned();
        if let Some(known) = known.filter(|_| self.has(Fault::FindIsCached)) {
            return Ok(known);
        }
        let found = self.request(|state| {
            if state.damaged.contains(&grant) {
                return match self.fault {
                    Some(Fault::DamagedIsAbsent) => Ok(Lookup::Absent),
                    _ => Err(StoreError::corrupt("a grant", "it is damaged")),
                };
            }
            let found = state.find(grant, token);
            state.catch_up();
            Ok(found)
        })??;
        let found = match (found, token) {
            (Lookup::Found(found), Some(_)) if self.has(Fault::FindLosesTheToken) => {
                let token = self.request(|_| found.token.clone()).unwrap_or_default();
                Lookup::Found(Found { token, ..found })
            }
            (found, _) => found,
        };
        self.local().found.insert((grant, token), found.clone());
        pause().await;
        Ok(found)
    }

    pub(crate) async fn advanced(self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.lock().see(step.now);
        pause().await;
        if self.advances_wrongly() {
            return self.advanced_wrongly(step).await;
        }
        let done = self.request(|state| {
            state.catch_up();
            if state.damaged.contains(&step.grant) {
                return Err(StoreError::corrupt("a grant", "it is damaged"));
            }
            let refused = state.judge(&step)?;
            let is_own = self.local().stepped.contains(&step.grant);
            if refused == Some(AdvanceOutcome::Advanced)
                && self.has(Fault::RepeatIsKnownToTheInstance)
                && !is_own
            {
                return Ok(state.stale(&step).unwrap_or(AdvanceOutcome::Unknown));
            }
            if refused.is_none() {
                self.local().stepped.insert(step.grant);
                state.take(step);
            }
            Ok(refused.unwrap_or(AdvanceOutcome::Advanced))
        });
        if self.has(Fault::LockLeaksOnError) {
            if self.lock().busy {
                return Err(StoreError::unavailable("waiting for the lock", "it is held"));
            }
            self.lock().busy = done.is_err();
        }
        let done = done??;
        pause().await;
        Ok(done)
    }

    pub(crate) async fn revoked(self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.lock().see(revocation.at);
        pause().await;
        if let Some(done) = self.revoked_wrongly(&revocation).await {
            return done;
        }
        let Some(of) = revocation.target.selector() else {
            self.request(|state| state.revoke_one(&revocation))??;
            pause().await;
            return Ok(RevokeOutcome::Done);
        };
        // The entry, its bound, the rule and the record of the sweep are one step.
        let sweep = self.request(|state| {
            if self.has(Fault::BoundIsCountedByTheInstance) {
                state.revocation_log.allot_this(self.local().bound);
            }
            let bound = state.revocation_log.record(&revocation).unwrap_or_default();
            let entry = state.revocation_log.newest_entry();
            let owner = self.local().id;
            let sweep = Sweep { of, bound, at: revocation.at, entry, owner };
            if !self.has(Fault::DroppedSweepIsForgotten) && !self.has(Fault::SweepIsForgotten) {
                state.sweeps.push(sweep.clone());
            }
            self.local().bound = bound;
            if let Some(rule) = revocation.rule(Some(bound)) {
                self.local().known.insert(rule.key.clone(), rule);
            }
            sweep
        })?;
        pause().await;
        if self.has(Fault::SweepNamesNothing) {
            return Ok(RevokeOutcome::Sweeping(EntryId::from_bytes([9; 16])));
        }
        if self.manners.lazy_sweeps {
            return Ok(RevokeOutcome::Sweeping(sweep.entry));
        }
        let mut swept = 0;
        loop {
            let flagged = self.request(|state| state.sweep(&sweep, SWEEP_BATCH))?;
            swept += flagged;
            pause().await;
            let is_capped = self.has(Fault::SweepsAreCapped) && swept >= 1_000;
            if flagged < SWEEP_BATCH || self.has(Fault::SweepEndsEarly) || is_capped {
                self.request(|state| state.swept(sweep.bound))?;
                return Ok(RevokeOutcome::Done);
            }
        }
    }

    pub(crate) async fn maintained(
        self,
        mut task: Housekeeping,
    ) -> Result<MaintenanceReport, StoreError> {
        self.lock().see(task.now);
        if self.manners.small_steps {
            task.limit = 1;
        }
        pause().await;
        if self.has(Fault::MaintainLooksThenDeletes) {
            let found = self.lock().due(task.before);
            pause().await;
            pause().await;
            return Ok(self.lock().maintain(&task, Some(found)));
        }
        let maintained = self.request(|state| {
            let is_known = |entry| state.sweeps.iter().any(|sweep| sweep.entry == entry);
            if self.has(Fault::UnknownSweepIsAnError) && task.sweep.is_some_and(|id| !is_known(id))
            {
                return Err(StoreError::Misuse("there is no such sweep"));
            }
            let (mut hidden, own) = (Vec::new(), self.local().id);
            if self.has(Fault::SweepsAreTheInstances) {
                hidden = state.sweeps.extract_if(.., |sweep| sweep.owner != own).collect();
            }
            let done = state.maintain(&task, None);
            state.sweeps.append(&mut hidden);
            Ok(done)
        })??;
        self.values.housekept(self.fault);
        pause().await;
        Ok(maintained)
    }

    /// What it answers to `rules`, `list` and `revocations`, where it keeps something to itself.
    pub(crate) async fn ruled(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        let caches = match self.fault {
            Some(Fault::RulesAreCached) => !keys.is_empty(),
            Some(Fault::BoundIsCached) => keys.is_empty(),
            _ => false,
        };
        if let Some(known) = self.local().rules.get(&keys).filter(|_| caches) {
            return Ok(known.clone());
        }
        let early = self.request(|state| state.revocation_log.newest_bound())?;
        if self.has(Fault::RulesReadTheBoundFirst) {
            pause().await;
        }
        let mut rules = self.request(|state| state.revocation_log.rules(&keys, state.seen))?;
        if self.has(Fault::RulesEndShort) {
            rules.rules = std::mem::take(&mut rules.rules)
                .into_iter()
                .map_while(|rule| self.request(|_| rule).ok())
                .collect();
        }
        if self.has(Fault::RulesReadTheBoundFirst) {
            rules.newest_bound = early;
        }
        let mut local = self.local();
        for rule in &rules.rules {
            local.known.insert(rule.key.clone(), rule.clone());
        }
        local.rules.insert(keys, rules.clone());
        Ok(rules)
    }

    pub(crate) async fn read(
        &self,
        after: Cursor,
        limit: u32,
    ) -> Result<RevocationBatch, StoreError> {
        let early = self.request(|state| state.revocation_log.newest_bound())?;
        if self.has(Fault::BatchReadsTheBoundFirst) {
            pause().await;
        }
        let mut batch = self.request(|state| {
            if self.has(Fault::CursorsAreTheInstances) {
                state.revocation_log.incarnation = self.local().id;
            }
            state.revocation_log.read(&after, limit)
        })?;
        if let RevocationBatch::Entries { newest_bound, .. } = &mut batch
            && self.has(Fault::BatchReadsTheBoundFirst)
        {
            *newest_bound = early;
        }
        Ok(batch)
    }

    /// One wake-up at the start, and one whenever the log has grown since the last.
    pub(crate) fn wakes(&self) -> LogNotifications {
        if self.manners.polls {
            return LogNotifications::Poll(Duration::from_millis(100));
        }
        let grown = match self.fault {
            Some(Fault::WakeupsAreTheInstances) => self.local().grown.clone(),
            _ => self.lock().revocation_log.grown.clone(),
        };
        let driver = self.has(Fault::WakeupsEndWithTheOutage).then(|| self.driver());
        let reader = (!self.has(Fault::WakeupsBeginLate)).then(|| {
            let mut reader = grown.subscribe();
            if !self.has(Fault::WakeupsBeginWithTheStream) {
                reader.mark_changed();
            }
            reader
        });
        let (ends, misses) = (self.has(Fault::WakeupsEnd), self.has(Fault::WakeupsAreMissed));
        let start = (reader, grown, 0_u32);
        let has_failed = move || driver.as_ref().is_some_and(|driver| driver.has_failed());
        LogNotifications::Stream(Box::pin(unfold(start, move |(reader, grown, count)| {
            let is_over = ends && count > 0 || has_failed();
            async move {
                if is_over {
                    return None;
                }
                let mut reader: watch::Receiver<u64> = reader.unwrap_or_else(|| grown.subscribe());
                if misses && count > 0 {
                    reader.mark_unchanged();
                }
                reader.changed().await.ok()?;
                Some(((), (Some(reader), grown, count + 1)))
            }
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

/// Changes a check value, with what may go wrong on the way.
pub(crate) async fn set_value(
    values: &Values,
    driver: &Driver,
    fault: Option<Fault>,
    name: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<bool, StoreError> {
    let loses_answers = match driver.begin() {
        Err(_) if fault == Some(Fault::SetValueFailsAsRefused) => return Ok(false),
        begun => begun?,
    };
    let done = values.set(fault, name, expected, value).await;
    if loses_answers { Driver::failed() } else { Ok(done) }
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
