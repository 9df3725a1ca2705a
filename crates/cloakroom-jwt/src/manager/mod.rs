//! The ring of signing keys, shared by every node of an issuer.

pub(crate) mod builder;
pub(crate) mod check_ring;
pub(crate) mod error;
mod import;
pub(crate) mod node;
pub(crate) mod remembered_keys;
pub(crate) mod reseal;
pub(crate) mod ring;
pub(crate) mod sealing;
pub(crate) mod status;
pub(crate) mod unanswered_writes;

use std::fmt;
use std::sync::Arc;

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::MAIN_RING;
use cloakroom_core::keys::{KeyPolicy, KeyRecord, KeyStore, schedule};
use cloakroom_core::time::UnixTime;

use crate::key::algorithm::Algorithm;
use crate::key::key_set::KeySet;
use crate::key::signing::Signer;
use crate::manager::builder::KeyManagerBuilder;
use crate::manager::error::{Compromised, KeyEvent, KeyManagerError};
use crate::manager::node::{KeyRingNode, MAX_STEPS};
use crate::manager::ring::PublishedJwks;
use crate::manager::unanswered_writes::Write;
use crate::seal::KeySealer;

/// Manages the signing keys of an issuer: it makes, publishes, rotates and retires them on the schedule
/// of [`cloakroom_core::keys::schedule`]. Any number of nodes can share one [`KeyStore`]. A clone is cheap.
///
/// Requests are served from a copy of the ring, which is reloaded when it is older than
/// [`reload`](KeyPolicy::reload). A scheduled rotation takes effect without a reload. Run
/// [`maintain`](KeyManager::maintain) regularly, preferably once every `reload`, so that keys are
/// made in time and no request has to wait for the store.
///
/// **While the store is down**, nodes continue to sign and verify for
/// [`max_blind`](KeyPolicy::max_blind) with the ring that they loaded last. A JWK Set that is older
/// than `reload` is not served, so that no verifier caches it as a new one. A node without a
/// connection may use a key that was [declared compromised](KeyManager::compromise) for up to
/// `max_blind`. A ring that the sealer cannot unseal is never used, and counts as an outage.
///
/// **If the store goes back in time**, each node relies on what it knows: a key that it knows to be
/// compromised never signs and is never published again, a key that has ended stays ended, and no
/// generation is used twice. [`maintain`](KeyManager::maintain) writes back what the store has
/// lost, and reports [`KeyEvent::Regressed`].
///
/// ```
/// use std::sync::Arc;
/// use cloakroom_jwt::{AesGcmSealer, KeyManager};
/// use cloakroom_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = Arc::new(MemoryStore::new());
/// let sealer = Arc::new(AesGcmSealer::random()?);
/// let keys = KeyManager::builder(store, sealer).build().await?;
///
/// let signer = keys.signer().await?;
/// let jwks = keys.jwks().await?;
/// assert!(jwks.json.contains(signer.kid().as_str()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KeyManager {
    inner: Arc<KeyRingNode>,
}

impl KeyManager {
    /// Settings for a manager of the keys in `store`. `sealer` seals the private keys.
    pub fn builder(store: Arc<dyn KeyStore>, sealer: Arc<dyn KeySealer>) -> KeyManagerBuilder {
        KeyManagerBuilder::new(store, sealer)
    }

    /// Loads the ring, which proves that the sealer opens it, and makes the first keys if there
    /// are none.
    pub(crate) async fn start(builder: KeyManagerBuilder) -> Result<Self, KeyManagerError> {
        let manager = Self { inner: Arc::new(KeyRingNode::new(builder)) };
        let mut flight = manager.inner.flight.lock().await;
        manager.inner.start(&mut flight).await?;
        drop(flight);
        Ok(manager)
    }

    /// The current signing key, from a ring that was loaded at most `max_blind` ago.
    ///
    /// This takes no I/O while the ring is younger than `reload`. After that, one caller at a time
    /// reloads it, and the others sign with the ring as it is.
    ///
    /// # Errors
    ///
    /// If the ring is older than `max_blind` and cannot be loaded.
    pub async fn signer(&self) -> Result<Arc<dyn Signer>, KeyManagerError> {
        let ring = self.inner.recent(self.inner.policy.max_blind).await?;
        ring.use_signer(MAIN_RING, self.inner.clock.now()).ok_or(KeyManagerError::NoKey)
    }

    /// The current signing key of the ring of this algorithm. Until that ring has begun to sign, and if
    /// there is no such ring, this is the key of the main ring: verifiers know it.
    ///
    /// This takes as much I/O as [`signer`](KeyManager::signer).
    ///
    /// # Errors
    ///
    /// If the rings are older than `max_blind` and cannot be loaded.
    pub async fn signer_for(
        &self,
        algorithm: Algorithm,
    ) -> Result<Arc<dyn Signer>, KeyManagerError> {
        let ring = self.inner.recent(self.inner.policy.max_blind).await?;
        let now = self.inner.clock.now();
        ring.use_signer(algorithm.as_str(), now)
            .or_else(|| ring.use_signer(MAIN_RING, now))
            .ok_or(KeyManagerError::NoKey)
    }

    /// The JWK Set to serve, from a ring that was loaded at most `reload` ago.
    ///
    /// # Errors
    ///
    /// If the ring is older than `reload` and cannot be loaded. Answer 503 then, so that verifiers keep
    /// the set that they have. An outage never looks like an empty set.
    pub async fn jwks(&self) -> Result<Arc<PublishedJwks>, KeyManagerError> {
        let ring = self.inner.recent(self.inner.policy.reload).await?;
        ring.jwks.clone().ok_or(KeyManagerError::NoKey)
    }

    /// The published keys, for checking the issuer's own JWTs. This takes no I/O.
    ///
    /// # Errors
    ///
    /// If the ring was loaded more than `max_blind` ago; see [`refresh`](KeyManager::refresh).
    pub fn keys(&self) -> Result<KeySet, KeyManagerError> {
        let ring = self.inner.ring();
        self.inner.within(&ring, self.inner.policy.max_blind, None)?;
        Ok(ring.keys.clone())
    }

    /// The algorithms of the keys of the main ring that sign now or will sign next, each once, the oldest
    /// key's first. They are those of the ring as it was loaded last. This takes no I/O.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        self.inner.ring().algorithms(self.inner.clock.now())
    }

    /// Reloads the ring if it is older than `reload`. A failure is not an error while [`keys`] works.
    ///
    /// [`keys`]: KeyManager::keys
    ///
    /// # Errors
    ///
    /// If the ring is older than `max_blind` and cannot be loaded.
    pub async fn refresh(&self) -> Result<(), KeyManagerError> {
        self.inner.recent(self.inner.policy.max_blind).await?;
        Ok(())
    }

    /// Loads the ring and follows its schedule: it publishes keys ahead of time, sets their signing times,
    /// and deletes records that are no longer needed. It also notes when this node last signed with its keys
    /// ([`KeyStatus::last_used`](crate::KeyStatus::last_used)). It is safe on any number of nodes at once. Returns
    /// the changes that this node made since the last call, including those of
    /// [`rotate`](KeyManager::rotate) and [`compromise`](KeyManager::compromise).
    ///
    /// # Errors
    ///
    /// If the store or the sealer fails. Changes that were made before the failure remain, and the
    /// next call that succeeds reports them.
    pub async fn maintain(&self) -> Result<Vec<KeyEvent>, KeyManagerError> {
        let mut flight = self.inner.flight.lock().await;
        self.inner.settle(&mut flight).await?;
        self.inner.note_uses(&flight).await;
        Ok(self.take_events())
    }

    /// The changes that this node made since the last call of this method or of
    /// [`maintain`](KeyManager::maintain). Use it to report changes even if `maintain` failed half-way.
    #[must_use = "they are told once"]
    pub fn take_events(&self) -> Vec<KeyEvent> {
        std::mem::take(&mut *self.inner.events())
    }

    /// Ends the signing key of the main ring now, so that its successor signs. This node uses the successor
    /// at once, and the others from their next load. The old key stays in the JWK Set until the tokens that
    /// it signed have expired.
    ///
    /// # Errors
    ///
    /// [`SuccessorNotKnown`](KeyManagerError::SuccessorNotKnown) while some verifiers may not have
    /// the next key; another error if the store or the sealer fails.
    pub async fn rotate(&self) -> Result<KeyEvent, KeyManagerError> {
        self.rotate_ring(MAIN_RING).await
    }

    /// Like [`rotate`](KeyManager::rotate), for the ring of this algorithm.
    ///
    /// # Errors
    ///
    /// [`NoKey`](KeyManagerError::NoKey) if there is no such ring, or it has not begun to sign; otherwise
    /// those of [`rotate`](KeyManager::rotate).
    pub async fn rotate_of(&self, algorithm: Algorithm) -> Result<KeyEvent, KeyManagerError> {
        self.rotate_ring(self.inner.ring_of(algorithm)).await
    }

    async fn rotate_ring(&self, name: &str) -> Result<KeyEvent, KeyManagerError> {
        let inner = &*self.inner;
        let mut flight = inner.flight.lock().await;
        let mut ordered: Option<Kid> = None;
        for _ in 0..MAX_STEPS {
            // A ring in order has a successor, whatever other nodes are doing.
            inner.settle(&mut flight).await?;
            let ring = inner.ring();
            let now = inner.clock.now();
            let signer = ring.signer(name, now).ok_or(KeyManagerError::NoKey)?.clone();
            // Another node was faster, and has already rotated the key.
            if let Some(from) = ordered.take_if(|from| *from != signer) {
                return Ok(KeyEvent::Rotated { from, to: signer });
            }
            let (generation, signing) = schedule::rotate(&ring.records, name, now, &inner.policy)
                .map_err(|ready_at| match ready_at {
                Some(ready_at) => KeyManagerError::SuccessorNotKnown { ready_at },
                None => KeyManagerError::NoKey,
            })?;
            let until = signing.until;
            if !inner.schedule(&mut flight, &ring, generation, signing).await? {
                ordered = Some(signer);
                continue;
            }
            let to = inner.ring().signer(name, until).ok_or(KeyManagerError::NoKey)?.clone();
            inner.settle_after(&mut flight).await;
            tracing::info!(from = %signer, %to, "the signing key was rotated");
            return Ok(KeyEvent::Rotated { from: signer, to });
        }
        Err(KeyManagerError::Contended)
    }

    /// Ends a key now: it no longer signs, or never will. It stays in the JWK Set until the tokens that it signed have
    /// expired. For the signing key this is [`rotate`](KeyManager::rotate). You can repeat the call.
    ///
    /// Use [`compromise`](KeyManager::compromise) instead if somebody else may have the key.
    ///
    /// # Errors
    ///
    /// If the ring has no such key. Otherwise those of [`rotate`](KeyManager::rotate).
    pub async fn retire(&self, kid: &Kid) -> Result<KeyEvent, KeyManagerError> {
        let inner = &*self.inner;
        let mut flight = inner.flight.lock().await;
        for _ in 0..MAX_STEPS {
            inner.settle(&mut flight).await?;
            let ring = inner.ring();
            let now = inner.clock.now();
            let KeyRecord { generation, ring: name, .. } = ring
                .records
                .iter()
                .find(|record| record.kid == *kid)
                .ok_or_else(|| KeyManagerError::UnknownKid(kid.clone()))?;
            let signs = ring.signer(name, now) == Some(kid);
            let retired = KeyEvent::Retired { kid: kid.clone() };
            let signing = schedule::retire(&ring.records, *generation, now, &inner.policy)
                .map_err(|ready_at| match ready_at {
                    Some(ready_at) => KeyManagerError::SuccessorNotKnown { ready_at },
                    None => KeyManagerError::NoKey,
                })?;
            let Some(signing) = signing else { return Ok(retired) };
            let until = signing.until;
            if !inner.schedule(&mut flight, &ring, *generation, signing).await? {
                continue;
            }
            let event = if signs {
                let to = inner.ring().signer(name, until).ok_or(KeyManagerError::NoKey)?.clone();
                KeyEvent::Rotated { from: kid.clone(), to }
            } else {
                retired
            };
            inner.settle_after(&mut flight).await;
            tracing::info!(?event, "a key was ended on request");
            return Ok(event);
        }
        Err(KeyManagerError::Contended)
    }

    /// Declares a key compromised. This cannot be undone: the key is removed from the JWK Set at once and
    /// never signs again, and the published successor signs. Other nodes follow with their next load. A node
    /// that cannot reach the store stops using the key after `max_blind`.
    ///
    /// Verifiers accept the tokens that it signed until they learn of this. Write a rule about the
    /// `kid` that ends at [`Compromised::rule_until`]. You can repeat the call; it returns the same
    /// value.
    ///
    /// # Errors
    ///
    /// If the ring has no such key, or the store fails. The call succeeds if the key was marked,
    /// even if no further key could be published yet.
    pub async fn compromise(&self, kid: &Kid) -> Result<Compromised, KeyManagerError> {
        let inner = &*self.inner;
        let mut flight = inner.flight.lock().await;
        for _ in 0..MAX_STEPS {
            // Only the records are needed: a key that cannot be unsealed must not stop this.
            let records = inner.store.load().await?;
            let now = inner.clock.now();
            let mut record = records
                .into_iter()
                .find(|record| record.kid == *kid)
                .ok_or_else(|| KeyManagerError::UnknownKid(kid.clone()))?;
            let marked_before = record.compromised_at.is_some();
            let at = *record.compromised_at.get_or_insert(now);
            if !marked_before {
                let expected = record.version;
                record.version += 1;
                let write = Write::Update { record: record.clone(), expected };
                let event = KeyEvent::Compromised { kid: kid.clone() };
                if !inner.write(&mut flight, write, event).await? {
                    continue;
                }
            }
            inner.take_over(&record)?;
            inner.settle_after(&mut flight).await;
            return Ok(Compromised {
                kid: kid.clone(),
                rule_until: inner.trusted_until(&record, at),
            });
        }
        Err(KeyManagerError::Contended)
    }

    /// Records that the revocation log declares a key compromised, without waiting for the next
    /// load of the ring. From now on this node neither signs with it nor publishes it, whatever the
    /// store says, and [`maintain`](KeyManager::maintain) marks its record.
    ///
    /// # Errors
    ///
    /// If the JWK Set cannot be written without the key.
    pub fn note_compromised(&self, kid: &Kid, at: UnixTime) -> Result<(), KeyManagerError> {
        self.inner.note_compromised(kid, at)
    }

    /// The schedule of the keys.
    #[must_use]
    pub fn policy(&self) -> &KeyPolicy {
        &self.inner.policy
    }

    /// The algorithm of new keys of the main ring.
    pub(crate) fn main_algorithm(&self) -> Algorithm {
        self.inner.algorithms.first().copied().unwrap_or_default()
    }

    /// Whether the ring is recent enough to conclude that a key does not exist if the ring lacks it.
    pub(crate) fn is_fresh(&self) -> bool {
        self.inner.age(&self.inner.ring()) <= self.inner.policy.reload
    }
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("algorithms", &self.inner.algorithms)
            .field("keys", &self.inner.ring())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
