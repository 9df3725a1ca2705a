//! The copy of the shared ring on one node, and its changes to the ring.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::{self, KeyState, KeyStep, MAIN_RING, Signing};
use cloakroom_core::keys::{KeyInserted, KeyPolicy, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::time::{Clock, ClockReading, UnixTime};
use tokio::sync::MutexGuard;

use crate::key::algorithm::Algorithm;
use crate::manager::builder::KeyManagerBuilder;
use crate::manager::error::{KeyEvent, KeyManagerError};
use crate::manager::remembered_keys::{Remembered, Repair};
use crate::manager::ring::{self, Ring};
use crate::manager::sealing::Sealing;
use crate::manager::unanswered_writes::{Sent, Write};

/// A node: its settings, the ring that it loaded last, and its operations on the shared ring.
pub(crate) struct KeyRingNode {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) sealing: Sealing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: KeyPolicy,
    /// The algorithm of the main ring, and those of the further rings.
    pub(crate) algorithms: Vec<Algorithm>,
    ring: RwLock<Arc<Ring>>,
    /// What this node knows, even if the store loses it. It is never locked while the ring is locked.
    remembered: Mutex<Remembered>,
    /// Held during calls to the store, so that loads complete in the order in which they were sent.
    pub(crate) flight: tokio::sync::Mutex<Flight>,
    /// Changes that are not reported yet.
    events: Mutex<Vec<KeyEvent>>,
}

/// The result of the last attempt to load the ring.
#[derive(Default)]
pub(crate) struct Flight {
    failed: Option<(ClockReading, Arc<KeyManagerError>)>,
    /// What the store has lost, by the last load.
    repairs: Vec<Repair>,
    /// Writes that may have been done.
    sent: Sent,
}

/// The shortest time between two attempts of requests to load the ring after one failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long the time of the last use of a key stands in its record before a node that has used it since writes
/// a newer one.
const USE_NOTED: Duration = Duration::from_secs(3_600);

/// More steps than a ring needs, and more races in a row than a node loses in practice.
pub(crate) const MAX_STEPS: usize = 64;

impl KeyRingNode {
    /// A node that has not loaded the ring yet.
    pub(crate) fn new(builder: KeyManagerBuilder) -> Self {
        Self {
            store: builder.store,
            sealing: Sealing {
                sealer: builder.sealer,
                issuer: builder.issuer,
                former: builder.former_issuers,
            },
            clock: builder.clock,
            policy: builder.policy,
            algorithms: builder.algorithms,
            ring: RwLock::default(),
            remembered: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// The rings that this node maintains, each with the algorithm of new keys.
    pub(crate) fn rings(&self) -> impl Iterator<Item = (&'static str, Algorithm)> {
        self.algorithms.iter().map(|algorithm| (self.ring_of(*algorithm), *algorithm))
    }

    /// The name of the ring of this algorithm.
    pub(crate) fn ring_of(&self, algorithm: Algorithm) -> &'static str {
        if self.algorithms.first() == Some(&algorithm) { MAIN_RING } else { algorithm.as_str() }
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the ring. The new ring uses no key that is known as compromised, even if that became known
    /// while it was loaded.
    fn install(
        &self,
        ring: impl FnOnce(&Ring) -> Result<Ring, KeyManagerError>,
    ) -> Result<Arc<Ring>, KeyManagerError> {
        let mut place = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let mut ring = ring(&place)?;
        for record in ring.records.clone() {
            let known = self.remembered().compromised_at(&record.kid);
            if let (None, Some(at)) = (record.compromised_at, known) {
                let mut marked = record;
                marked.compromised_at = Some(at);
                ring = ring.with_record(&marked, self.clock.now(), self.policy.jwks_max_age)?;
            }
        }
        let ring = Arc::new(ring);
        *place = Arc::clone(&ring);
        Ok(ring)
    }

    /// Marks the records of keys that this node knows as compromised.
    pub(crate) fn mark_compromised(&self, records: &mut [KeyRecord]) {
        for record in records.iter_mut().filter(|record| record.compromised_at.is_none()) {
            record.compromised_at = self.remembered().compromised_at(&record.kid);
        }
    }

    /// Notes that a key is compromised, even if its record does not show it yet.
    pub(crate) fn note_compromised(&self, kid: &Kid, at: UnixTime) -> Result<(), KeyManagerError> {
        let is_known = self.remembered().compromised_at(kid).is_some();
        self.remembered().compromise(kid, at);
        if !is_known {
            self.install(|ring| Ok(ring.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn events(&self) -> std::sync::MutexGuard<'_, Vec<KeyEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self, event: KeyEvent) {
        tracing::info!(?event, "the ring of keys changed");
        self.events().push(event);
    }

    fn since(&self, reading: ClockReading) -> Duration {
        ClockReading::now(&*self.clock).since(reading)
    }

    pub(crate) fn age(&self, ring: &Ring) -> Duration {
        self.since(ring.sent)
    }

    pub(crate) fn within(
        &self,
        ring: &Ring,
        limit: Duration,
        source: Option<Arc<KeyManagerError>>,
    ) -> Result<(), KeyManagerError> {
        let age = self.age(ring);
        if age <= limit {
            return Ok(());
        }
        Err(KeyManagerError::Outdated { age, limit, source })
    }

    /// A ring that was loaded at most `limit` ago. It tries to reload a ring that is older than `reload`.
    pub(crate) async fn recent(&self, limit: Duration) -> Result<Arc<Ring>, KeyManagerError> {
        let ring = self.ring();
        let age = self.age(&ring);
        if age <= self.policy.reload {
            return Ok(ring);
        }
        let mut flight = match self.flight.try_lock() {
            Ok(flight) => flight,
            // Somebody is at it already, and the ring will do.
            Err(_) if age <= limit => return Ok(ring),
            Err(_) => self.flight.lock().await,
        };
        let ring = self.ring();
        if self.age(&ring) <= self.policy.reload {
            return Ok(ring);
        }
        let pause = RETRY.min(self.policy.reload);
        let paused = |(at, _): &(ClockReading, _)| self.since(*at) < pause;
        if !flight.failed.as_ref().is_some_and(paused)
            && let Err(error) = self.load(&mut flight).await
        {
            tracing::warn!(%error, "the ring of keys could not be loaded");
            flight.failed = Some((ClockReading::now(&*self.clock), Arc::new(error)));
        }
        let ring = self.ring();
        let source = flight.failed.as_ref().map(|(_, error)| Arc::clone(error));
        self.within(&ring, limit, source)?;
        Ok(ring)
    }

    /// Loads and replaces the ring. Its age counts from before the load was sent.
    pub(crate) async fn load(
        &self,
        flight: &mut MutexGuard<'_, Flight>,
    ) -> Result<Arc<Ring>, KeyManagerError> {
        let sent = ClockReading::now(&*self.clock);
        let records = self.store.load().await?;
        flight.sent.settle(&records).into_iter().for_each(|event| self.report(event));
        let now = self.clock.now();
        let loaded = self.remembered().reconcile(records, now, &self.policy);
        for kid in loaded.regressed {
            self.report(KeyEvent::Regressed { kid });
        }
        flight.repairs = loaded.repairs;
        let ring = Ring::prepare(
            loaded.records,
            sent,
            now,
            &self.ring(),
            &self.sealing,
            self.policy.jwks_max_age,
        )
        .await?;
        flight.failed = None;
        ring.records.iter().for_each(|record| self.remembered().raise(record.generation));
        self.install(|_| Ok(ring))
    }

    /// Writes back what the store has lost. Returns whether there was anything.
    async fn repair(&self, flight: &mut Flight, ring: &Ring) -> Result<bool, KeyManagerError> {
        let repairs = std::mem::take(&mut flight.repairs);
        for repair in &repairs {
            let Some(mut record) = find(ring, repair.generation) else { continue };
            let expected = record.version;
            record.version = repair.version;
            // Whether it is written or another node was faster, the next load shows it.
            let _ = self.store.update(record, expected).await?;
        }
        Ok(!repairs.is_empty())
    }

    /// Sends a write, and reports it when it is known to be done: by its answer, or by the next load if the
    /// answer is lost or a refusal, or nobody waits for it. Returns whether the answer says that it is done.
    pub(crate) async fn write(
        &self,
        flight: &mut Flight,
        write: Write,
        event: KeyEvent,
    ) -> Result<bool, KeyManagerError> {
        let generation = write.generation();
        flight.sent.push(write.clone(), event.clone());
        let is_done = match write {
            Write::Insert(record) => self.store.insert(record).await? == KeyInserted::Inserted,
            Write::Update { record, expected } => {
                self.store.update(record, expected).await? == KeyUpdated::Updated
            }
            Write::Delete { generation, expected } => {
                self.store.delete(generation, expected).await? == KeyUpdated::Updated
            }
        };
        if is_done {
            flight.sent.forget(generation);
            self.report(event);
        }
        // A driver may have sent the write twice, and refused is then only the second. The next load
        // shows it.
        Ok(is_done)
    }

    /// Uses a record that was just written, before the next load.
    pub(crate) fn take_over(&self, record: &KeyRecord) -> Result<(), KeyManagerError> {
        self.remembered().note(record);
        let now = self.clock.now();
        self.install(|ring| ring.with_record(record, now, self.policy.jwks_max_age))?;
        Ok(())
    }

    /// Loads the ring, which proves that the sealer can unseal it, stores the check values of the sealer, and
    /// puts the ring in order.
    pub(crate) async fn start(
        &self,
        flight: &mut MutexGuard<'_, Flight>,
    ) -> Result<(), KeyManagerError> {
        // First what names the key that differs; nothing is written before the ring has opened.
        self.sealing.compare(&*self.store).await?;
        let ring = self.load(flight).await?;
        if ring.jwks.is_none() {
            self.sealing.lacks_none(&*self.store).await?;
        }
        self.sealing.claim(&*self.store).await?;
        self.settle(flight).await
    }

    /// Takes the steps of the schedule until none is left.
    pub(crate) async fn settle(
        &self,
        flight: &mut MutexGuard<'_, Flight>,
    ) -> Result<(), KeyManagerError> {
        let mut taken = 0;
        for _ in 0..MAX_STEPS {
            let ring = self.load(flight).await?;
            if self.repair(flight, &ring).await? {
                continue;
            }
            // Read after the load returned: what it shows was published by then.
            let now = self.clock.now();
            let steps = self.rings().filter_map(|(name, algorithm)| {
                let step = schedule::next_step(&ring.records, name, now, &self.policy);
                Some((step?, name, algorithm))
            });
            // What publishes a key comes first: rings that start together may all sign at once.
            let step = steps.min_by_key(|(step, ..)| !matches!(step, KeyStep::Publish { .. }));
            let Some((step, name, algorithm)) = step else { return Ok(()) };
            match step {
                KeyStep::Publish { generation } => {
                    let generation = generation.max(self.next_generation(taken));
                    if !self.publish(flight, generation, name, algorithm).await? {
                        taken = generation;
                    }
                }
                KeyStep::Schedule { generation, signing } => {
                    self.schedule(flight, &ring, generation, signing).await?;
                }
                KeyStep::Delete { generation } => {
                    self.delete(flight, &ring, generation).await?;
                }
            }
        }
        Err(KeyManagerError::Contended)
    }

    /// Writes when this node last signed with its keys, for operators who ask another process. For each key,
    /// one node does so in [`USE_NOTED`], and each node once more when the key has ended. What fails is tried
    /// again by the next maintenance.
    pub(crate) async fn note_uses(&self, _: &MutexGuard<'_, Flight>) {
        let (ring, now) = (self.ring(), self.clock.now());
        for record in &ring.records {
            let Some(used) = ring.last_used(&record.kid) else { continue };
            let has_ended = matches!(record.state(now), KeyState::Retired | KeyState::Gone);
            let is_due = record
                .last_used
                .is_none_or(|noted| used >= noted + USE_NOTED || has_ended && used > noted);
            if !is_due {
                continue;
            }
            let expected = record.version;
            let mut noted = record.clone();
            noted.version += 1;
            noted.last_used = Some(used);
            let written = match self.store.update(noted.clone(), expected).await {
                Ok(KeyUpdated::Updated) => self.take_over(&noted),
                // Another node wrote the record meanwhile.
                Ok(KeyUpdated::Stale) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = written {
                tracing::debug!(%error, kid = %record.kid, "the last use of a key was not noted");
            }
        }
    }

    /// The generation of the next key. `taken` is the one that was tried last, or 0.
    pub(crate) fn next_generation(&self, taken: u64) -> u64 {
        // A store that went back in time must not make a generation a second time.
        let generation = self.remembered().highest().saturating_add(1);
        // Taken, and yet not there: its record was deleted by hand. Look above it.
        if generation <= taken { taken.saturating_mul(2) } else { generation }
    }

    /// Like [`settle`](KeyRingNode::settle), after a change of the caller that must not be reported as failed.
    pub(crate) async fn settle_after(&self, flight: &mut MutexGuard<'_, Flight>) {
        if let Err(error) = self.settle(flight).await {
            tracing::warn!(%error, "the ring of keys was changed, but its maintenance failed");
        }
    }

    /// Inserts a new key, unless another node was faster and used the generation.
    pub(crate) async fn publish(
        &self,
        flight: &mut Flight,
        generation: u64,
        ring: &str,
        algorithm: Algorithm,
    ) -> Result<bool, KeyManagerError> {
        // Read after the load that found this generation free: see `reseal`.
        self.sealing.may_seal(&*self.store).await?;
        let mut record = ring::generate(generation, ring, algorithm, &self.sealing).await?;
        let kid = record.kid.clone();
        record.times.published = self.clock.now();
        self.write(flight, Write::Insert(record), KeyEvent::Published { kid }).await
    }

    /// Writes signing times, unless another node wrote the record in the meantime.
    pub(crate) async fn schedule(
        &self,
        flight: &mut Flight,
        ring: &Ring,
        generation: u64,
        mut signing: Signing,
    ) -> Result<bool, KeyManagerError> {
        let Some(mut record) = find(ring, generation) else {
            return Ok(false);
        };
        let now = self.clock.now();
        // An insert that took longer than the schedule allows for: the key was published when it
        // was first seen, not when the insert was sent.
        if record.times.signing.is_none() && now > record.times.published + self.policy.reload {
            record.times.published = now;
        }
        let expected = record.version;
        record.version += 1;
        let (from, until) = (signing.from, signing.until);
        // What a newer version wrote beside the times stays.
        if let Some(before) = record.times.signing.take() {
            signing.unknown = before.unknown;
        }
        record.times.signing = Some(signing);
        let write = Write::Update { record: record.clone(), expected };
        let event = KeyEvent::Scheduled { kid: record.kid.clone(), from, until };
        let is_done = self.write(flight, write, event).await?;
        if is_done {
            self.take_over(&record)?;
        }
        Ok(is_done)
    }

    async fn delete(
        &self,
        flight: &mut Flight,
        ring: &Ring,
        generation: u64,
    ) -> Result<(), KeyManagerError> {
        let Some(record) = find(ring, generation) else {
            return Ok(());
        };
        let write = Write::Delete { generation, expected: record.version };
        self.write(flight, write, KeyEvent::Deleted { kid: record.kid }).await?;
        Ok(())
    }

    /// When the last verifier stops trusting a key that was declared compromised at `at`.
    pub(crate) fn trusted_until(&self, record: &KeyRecord, at: UnixTime) -> UnixTime {
        let end = match &record.times.signing {
            Some(signing) => signing.published_until.max(at),
            None => at + self.policy.retention,
        };
        end + self.policy.jwks_max_age + self.policy.clock_skew
    }
}

fn find(ring: &Ring, generation: u64) -> Option<KeyRecord> {
    ring.records.iter().find(|record| record.generation == generation).cloned()
}
