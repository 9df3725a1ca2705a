//! A token store that remembers revocations, and notices when the store below goes back in time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, Epoch, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules, Target,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CheckValue, CreateOutcome, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreError, TokenStore,
};
use cloakroom_core::time::{Clock, ClockReading, UnixTime};
use cloakroom_core::{ClientId, GrantId, Subject, TokenDigest};

use crate::revocation::known_revocations::KnownRevocations;
use crate::revocation::store_regression::Regression;

/// How many noticed regressions wait to be reported.
const MAX_NOTICED: usize = 16;

/// Reads and writes the store. What this server knows to be revoked is revoked in every answer.
#[derive(Debug)]
pub(crate) struct RememberingStore {
    store: Arc<dyn TokenStore>,
    memory: Memory,
}

/// What this server remembers, independent of its store.
#[derive(Debug)]
pub(crate) struct Memory {
    clock: Arc<dyn Clock>,
    pub(crate) known: KnownRevocations,
    /// The newest revocation bound that was seen.
    newest: AtomicU64,
    /// How long a read of the log counts as current.
    fresh_for: Duration,
    /// When the last call was sent that read the log to its end.
    followed: Mutex<Option<ClockReading>>,
    suspicion: Mutex<Suspicion>,
    /// Whether `suspicion` may say that this server must not answer. While it is false, a request
    /// takes no lock.
    is_in_doubt: AtomicBool,
}

/// Whether the store may have gone back in time.
#[derive(Debug, Default)]
struct Suspicion {
    /// How often a sign of it was noticed.
    count: u64,
    /// The count up to which the store was repaired.
    settled: u64,
    /// The signs that are not reported yet.
    noticed: Vec<Regression>,
    /// Whether a possible loss of revocations was reported since the last repair.
    is_reported: bool,
    /// Until when this server answers no request: it has forgotten revocations that it should
    /// repeat.
    until: Option<UnixTime>,
}

impl RememberingStore {
    pub(crate) fn new(
        store: Arc<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        fresh_for: Duration,
    ) -> Self {
        let memory = Memory {
            clock,
            known: KnownRevocations::new(),
            newest: AtomicU64::new(0),
            fresh_for,
            followed: Mutex::default(),
            suspicion: Mutex::default(),
            is_in_doubt: AtomicBool::new(false),
        };
        Self { store, memory }
    }

    /// What this server remembers.
    pub(crate) const fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.store.check_values().await
    }

    /// What the store says of itself.
    #[cfg(feature = "metrics")]
    pub(crate) async fn status(
        &self,
        before: UnixTime,
    ) -> Result<cloakroom_core::store::StoreStatus, StoreError> {
        self.store.status(before).await
    }

    pub(crate) fn wakeups(&self) -> LogNotifications {
        self.store.wakeups()
    }

    /// Creates a grant. The record comes in a box, so that the futures around this call stay small.
    pub(crate) async fn create(
        &self,
        grant: Box<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        // The store may have lost the rule.
        if self.memory.known.read().is_some_and(|known| known.grant(&grant).is_some()) {
            return Ok(match self.store.find(grant.id, None).await? {
                Lookup::Found(found) if !grant.is_stored_as(&found.grant) => CreateOutcome::Exists,
                _ => CreateOutcome::Barred,
            });
        }
        self.store.create(*grant, tokens).await
    }

    pub(crate) async fn find(
        &self,
        grant: GrantId,
        token: Option<TokenDigest>,
    ) -> Result<Lookup, StoreError> {
        let mut lookup = self.store.find(grant, token).await?;
        let Some(known) = self.memory.known.read() else { return Ok(lookup) };
        match &mut lookup {
            Lookup::Found(found) => {
                if let Some(at) = known.grant(&found.grant) {
                    Arc::make_mut(&mut found.grant).revoked_at.get_or_insert(at);
                }
                if let Some(token) = &mut found.token
                    && let Some(at) = known.token(grant, token.digest)
                {
                    Arc::make_mut(token).revoked_at.get_or_insert(at);
                }
            }
            // A JWT may be active without a stored grant.
            Lookup::Absent if known.is_grant_revoked(grant) => lookup = Lookup::Tombstone,
            Lookup::Absent | Lookup::Tombstone => {}
        }
        Ok(lookup)
    }

    /// Takes a step of the chain of this grant, as it was found.
    pub(crate) async fn advance(
        &self,
        grant: &GrantRecord,
        step: Advance,
    ) -> Result<AdvanceOutcome, StoreError> {
        // It may have been revoked since it was found, and the store may have lost the revocation.
        if self.memory.known.read().is_some_and(|known| known.grant(grant).is_some()) {
            return Ok(AdvanceOutcome::Dead);
        }
        self.store.advance(step).await
    }

    /// Revokes, and remembers the revocation before it returns.
    pub(crate) async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        // Not greater than the bound that the store allots, which exceeds every earlier bound and
        // `at`. The log entry holds the exact bound.
        let bound = self.memory.newest().next_bound(revocation.at);
        let bound = revocation.target.has_bound().then_some(bound);
        let revoked = self.store.revoke(revocation.clone()).await?;
        if let Some(bound) = bound {
            self.memory.raise(bound);
        }
        self.memory.known.remember_own(&revocation, bound, self.memory.clock.now());
        Ok(revoked)
    }

    /// The rules of the store and the remembered ones. An error if the newest bound went back.
    pub(crate) async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        let asked = self.memory.known.read().map(|_| keys.clone());
        let seen = self.memory.newest();
        let mut rules = self.store.rules(keys).await?;
        let found = rules.newest_bound;
        // `seen` was read before the call, and the bound never decreases.
        if found < seen {
            self.memory.suspect_regression(Some(Regression::Bound { seen, found }));
            return Err(StoreError::unavailable("reading rules", "the store went back in time"));
        }
        self.memory.raise(found);
        if let Some(known) = self.memory.known.read() {
            for rule in asked.iter().flatten().filter_map(|key| known.rule(key)) {
                match rules.rules.iter_mut().find(|own| own.key == rule.key) {
                    Some(own) => own.merge(&rule),
                    None => rules.rules.push(rule),
                }
            }
        }
        // Keep the store's bound, although this server may have seen a newer one since: an epoch is
        // from the time of the call.
        Ok(rules)
    }

    /// The epoch of a grant whose creation begins now, as the store says.
    pub(crate) async fn epoch(&self) -> Result<Epoch, StoreError> {
        Ok(self.rules(Vec::new()).await?.newest_bound.following())
    }

    pub(crate) async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let mut listing = self.store.list(of, page, now).await?;
        if let Some(known) = self.memory.known.read() {
            listing.grants.retain(|grant| known.grant(grant).is_none());
        }
        Ok(listing)
    }

    pub(crate) async fn revocations(
        &self,
        after: Cursor,
        limit: u32,
    ) -> Result<RevocationBatch, StoreError> {
        self.store.revocations(after, limit).await
    }

    /// Raises the newest bound of the store to at least `bound`, by revoking a subject and a client
    /// that do not exist. A heartbeat of a later time would also raise it, and would make a reader
    /// that gets it late seem to be up to date.
    pub(crate) async fn raise_bound(
        &self,
        bound: Epoch,
        until: UnixTime,
        nobody: &str,
    ) -> Result<(), StoreError> {
        let invalid = |error| StoreError::unavailable("naming nobody", error);
        let subject = Subject::user(nobody).map_err(invalid)?;
        let client = ClientId::new(nobody).map_err(invalid)?;
        let target = Target::SubjectAtClient(subject, client);
        let at = UnixTime::from_millis(bound.get());
        // A store with a slow sweep finds nothing to do in housekeeping.
        self.store.revoke(Revocation::new(target, at, until)).await.map(drop)
    }

    pub(crate) async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.store.heartbeat(now, until).await
    }

    pub(crate) async fn maintain(
        &self,
        task: Housekeeping,
    ) -> Result<MaintenanceReport, StoreError> {
        self.store.maintain(task).await
    }
}

impl Memory {
    /// The epoch of a grant whose creation begins now, from memory; `None` if the log is not
    /// followed. It saves a call at each login. It may be too low if another server has just
    /// revoked the subject or client. The grant is then barred, and made again with
    /// [`RememberingStore::epoch`].
    pub(crate) fn epoch_from_log(&self) -> Option<Epoch> {
        let sent = (*lock(&self.followed))?;
        let age = ClockReading::now(&*self.clock).since(sent);
        (age <= self.fresh_for).then(|| self.newest().following())
    }

    /// The newest bound that this server has seen.
    pub(crate) fn newest(&self) -> Epoch {
        Epoch::new(self.newest.load(Ordering::Acquire))
    }

    /// Notes a bound that was seen.
    pub(crate) fn raise(&self, bound: Epoch) {
        self.newest.fetch_max(bound.get(), Ordering::AcqRel);
    }

    /// Notes that a call which was sent at this time read the log to its end.
    pub(crate) fn followed(&self, sent: ClockReading) {
        *lock(&self.followed) = Some(sent);
    }

    /// Notes that the store may have gone back in time, and the sign to report, if there is one.
    pub(crate) fn suspect_regression(&self, noticed: Option<Regression>) {
        *lock(&self.followed) = None;
        let mut suspicion = lock(&self.suspicion);
        suspicion.count += 1;
        self.is_in_doubt.store(true, Ordering::Release);
        suspicion.is_reported |=
            noticed.as_ref().is_some_and(|why| !matches!(why, Regression::Key { .. }));
        // Every call may notice the same sign, and perhaps nothing reports it: bound the memory.
        if suspicion.noticed.len() < MAX_NOTICED {
            suspicion.noticed.extend(noticed);
        }
    }

    /// Notes that the store may have gone back in time; the caller reports the sign.
    pub(crate) fn suspect_regression_reported(&self) {
        self.suspect_regression(None);
        lock(&self.suspicion).is_reported = true;
    }

    /// The number of the newest suspicion; `None` if the store was repaired since.
    pub(crate) fn open_suspicion(&self) -> Option<u64> {
        let suspicion = lock(&self.suspicion);
        (suspicion.count != suspicion.settled).then_some(suspicion.count)
    }

    /// Whether a possible loss of revocations was reported.
    pub(crate) fn is_reported(&self) -> bool {
        lock(&self.suspicion).is_reported
    }

    /// Notes that the store was repaired. Until `until`, this server answers no request.
    pub(crate) fn settle(&self, count: u64, until: Option<UnixTime>) {
        let mut suspicion = lock(&self.suspicion);
        suspicion.settled = count;
        // If no sign was noticed, nothing was lost.
        if suspicion.is_reported {
            suspicion.until = suspicion.until.max(until);
        }
        suspicion.is_reported = suspicion.count != count;
        let is_in_doubt = suspicion.count != count || suspicion.until.is_some();
        self.is_in_doubt.store(is_in_doubt, Ordering::Release);
    }

    /// Whether the store may have gone back in time, or this server may be suspended.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.load(Ordering::Acquire)
    }

    /// Whether the log may lack revocations that were acknowledged: the store is not repaired, or this
    /// server has forgotten revocations that it should have repeated.
    pub(crate) fn may_lack_revocations(&self, now: UnixTime) -> bool {
        let suspicion = lock(&self.suspicion);
        suspicion.count != suspicion.settled || suspicion.until.is_some_and(|until| now < until)
    }

    /// Takes the signs that are not reported yet.
    pub(crate) fn take_noticed(&self) -> Vec<Regression> {
        std::mem::take(&mut lock(&self.suspicion).noticed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use cloakroom_core::time::SystemClock;

    use super::*;

    #[test]
    fn a_server_that_has_forgotten_revocations_stays_in_doubt_after_the_repair() {
        let clock = Arc::new(SystemClock::new());
        let store = Arc::new(cloakroom_memory::MemoryStore::new());
        let store = RememberingStore::new(store, clock, Duration::ZERO);
        let memory = store.memory();
        assert!(!memory.is_in_doubt());
        memory.suspect_regression_reported();
        assert!(memory.is_in_doubt());
        let count = memory.open_suspicion().unwrap_or_default();
        memory.settle(count, Some(UnixTime::from_secs(10)));
        assert!(memory.is_in_doubt() && memory.may_lack_revocations(UnixTime::from_secs(9)));
    }
}
