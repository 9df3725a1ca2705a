//! What a replica knows: written by its follower, read on every request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use cloakroom_core::Kid;
use cloakroom_core::revocation::{LogEntry, LogEvent, Target};
use cloakroom_core::time::{Clock, UnixTime};

use super::compromised_keys::CompromisedKeys;
use super::rules::{Limits, RevocationStatus, Rules};
use super::staleness::{SharedStaleness, StalenessReading};
use super::token_facts::TokenFacts;
use cloakroom_core::time::ClockReading;

/// How many entries are taken over, or rules dropped, before readers get their turn again.
const BATCH: usize = 64;

/// How many rules are dropped at most with one page of the log: many more than it brings.
const MAX_DROPPED: usize = 256 * BATCH;

/// The next edition of anybody's rules. No two replicas of a process share one.
static EDITIONS: AtomicU64 = AtomicU64::new(1);

pub(crate) struct ReplicaState {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) published: SharedStaleness,
    /// How old what is known gets while nothing is wrong, in milliseconds.
    steady: AtomicU64,
    /// The edition of the rules; every rule that is added makes a new one.
    edition: AtomicU64,
    /// By itself, in memory: those who look something up write the lock's counter, and must not
    /// slow down those who read the fields above.
    rules: Box<RwLock<Rules>>,
    compromised: Mutex<CompromisedKeys>,
}

impl ReplicaState {
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self {
            clock,
            published: SharedStaleness::new(),
            steady: AtomicU64::new(0),
            edition: AtomicU64::new(next_edition()),
            rules: Box::new(RwLock::new(Rules::new(limits))),
            compromised: Mutex::default(),
        }
    }

    /// The staleness at a time by anybody's clock. The monotonic time of another clock counts from
    /// another point: it is taken from the one here, and is a little later than `now` at most.
    pub(crate) fn staleness(&self, now: ClockReading) -> Option<Duration> {
        let reading = self.published.get()?;
        Some(reading.staleness(ClockReading::at(now.wall(), self.clock.monotonic())))
    }

    /// What the rules say. Looked up only if the rules have changed since these very facts were
    /// last clear: no lock is taken, and nothing written that another thread reads.
    pub(crate) fn revocation_status(&self, facts: &TokenFacts) -> RevocationStatus {
        // Before the rules: what is put down as clear by an edition was looked up in that one, or
        // in a newer one.
        let edition = self.edition.load(Ordering::Acquire);
        if facts.cleared.is(edition) {
            return RevocationStatus::NotRevoked;
        }
        let status = self.read().revocation_status(facts);
        if status == RevocationStatus::NotRevoked {
            facts.cleared.set(edition);
        }
        status
    }

    /// Whether the log has named this key as compromised, even if that rule has ended since.
    pub(crate) fn has_named_key(&self, kid: &Kid) -> bool {
        self.compromised().named(kid)
    }

    fn compromised(&self) -> MutexGuard<'_, CompromisedKeys> {
        self.compromised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the entries say.
    pub(crate) fn apply(&self, entries: &[LogEntry]) {
        for entry in entries {
            if let LogEvent::Revoked { target: Target::Key(kid), .. } = &entry.event {
                self.compromised().note(kid);
            }
        }
        for batch in entries.chunks(BATCH) {
            let mut rules = self.write();
            if batch.iter().filter(|entry| rules.apply(entry)).count() > 0 {
                // Under the lock: an edition is out no earlier than its rules.
                self.edition.store(next_edition(), Ordering::Release);
            }
        }
    }

    /// Drops what has ended by `now`.
    pub(crate) fn sweep(&self, now: UnixTime) {
        for _ in 0..MAX_DROPPED / BATCH {
            if !self.write().sweep(now, BATCH) {
                return;
            }
        }
    }

    /// How old what is known gets while nothing is wrong.
    pub(crate) fn steady(&self) -> Duration {
        Duration::from_millis(self.steady.load(Ordering::Relaxed))
    }

    /// A reading lives until the next heartbeat was asked for (h), written, and asked for (h).
    pub(crate) fn set_steady(&self, heartbeat: Duration, clock_skew: Duration) {
        let steady = heartbeat.saturating_mul(2).saturating_add(clock_skew);
        let millis = u64::try_from(steady.as_millis()).unwrap_or(u64::MAX);
        self.steady.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn publish(&self, reading: Option<StalenessReading>) {
        self.published.set(reading);
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Rules> {
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next_edition() -> u64 {
    EDITIONS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
