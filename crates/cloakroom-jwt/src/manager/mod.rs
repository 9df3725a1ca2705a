//! The ring of signing keys, shared by every node of an issuer.

pub(crate) mod builder;
pub(crate) mod error;
pub(crate) mod node;
pub(crate) mod remembered;
pub(crate) mod ring;
pub(crate) mod sealing;
pub(crate) mod sent;

use std::fmt;
use std::sync::Arc;

use cloakroom_core::Kid;
use cloakroom_core::keys::{KeyPolicy, KeyStore, schedule};
use cloakroom_core::time::UnixTime;

use crate::key::key_set::KeySet;
use crate::key::signing::Signer;
use crate::manager::builder::KeyManagerBuilder;
use crate::manager::error::{Compromised, KeyEvent, KeyManagerError};
use crate::manager::node::{KeyRingNode, MAX_STEPS};
use crate::manager::ring::PublishedJwks;
use crate::manager::sent::Write;
use crate::seal::KeySealer;

/// Keeps the signing keys of an issuer: makes, publishes, rotates and retires them on the schedule
/// of [`cloakroom_core::keys::schedule`], together with any number of other nodes over one
/// [`KeyStore`]. Cheap to clone.
///
/// Requests are served from a copy of the ring that is loaded anew when it is older than
/// [`reload`](KeyPolicy::reload); a planned rotation takes effect in it by the clock alone.
/// [`maintain`](KeyManager::maintain) must run now and then, best every `reload`, so that keys are
/// made in time and no request has to wait for the store.
///
/// **While the store is down**, nodes go on signing, and verifying, for
/// [`max_blind`](KeyPolicy::max_blind) with what they last loaded; the JWK Set is an error once its
/// copy is older than `reload`, so that no verifier takes it for news. A node that is cut off thus
/// may go on using a key that was [declared compromised](KeyManager::compromise) for as long as
/// `max_blind`. A ring that the sealer does not open is never taken over, and counts as an outage.
///
/// **If the store goes back in time**, each node goes by what it knows: a key that it knows as
/// compromised never signs and is never published again, a key that has ended stays so, and no
/// generation is made twice. [`maintain`](KeyManager::maintain) writes back what the store has
/// forgotten, and reports [`KeyEvent::Regressed`].
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
    /// A manager of the keys in `store`, whose private halves `sealer` seals.
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

    /// The key to sign with now, from a ring that was loaded at most `max_blind` ago.
    ///
    /// Without I/O while the ring is younger than `reload`; afterwards one caller at a time loads
    /// it, and the others sign with what there is.
    ///
    /// # Errors
    ///
    /// If the ring is older than `max_blind` and cannot be loaded.
    pub async fn signer(&self) -> Result<Arc<dyn Signer>, KeyManagerError> {
        let ring = self.inner.recent(self.inner.policy.max_blind).await?;
        ring.signer(self.inner.clock.now())
    }

    /// The JWK Set to serve, from a ring that was loaded at most `reload` ago.
    ///
    /// # Errors
    ///
    /// If the ring is older than `reload` and cannot be loaded: answer 503, so that verifiers keep
    /// the set they have. An outage never looks like an empty set.
    pub async fn jwks(&self) -> Result<Arc<PublishedJwks>, KeyManagerError> {
        let ring = self.inner.recent(self.inner.policy.reload).await?;
        ring.jwks.clone().ok_or(KeyManagerError::NoKey)
    }

    /// The published keys, for checking the issuer's own JWTs; without I/O.
    ///
    /// # Errors
    ///
    /// If the ring was loaded longer than `max_blind` ago; see [`refresh`](KeyManager::refresh).
    pub fn keys(&self) -> Result<KeySet, KeyManagerError> {
        let ring = self.inner.ring();
        self.inner.within(&ring, self.inner.policy.max_blind, None)?;
        Ok(ring.keys.clone())
    }

    /// Loads the ring anew if it is older than `reload`; no error as long as [`keys`] serve.
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

    /// Loads the ring and does what its schedule asks for: publishes keys ahead, gives them their
    /// times, deletes what is spent. Safe on any number of nodes at once. Returns what this node
    /// did since the last call, including what [`rotate`](KeyManager::rotate) and
    /// [`compromise`](KeyManager::compromise) brought with them.
    ///
    /// # Errors
    ///
    /// If the store or the sealer fails. What was done by then stays done, and is reported by the
    /// next call that succeeds.
    pub async fn maintain(&self) -> Result<Vec<KeyEvent>, KeyManagerError> {
        let mut flight = self.inner.flight.lock().await;
        self.inner.settle(&mut flight).await?;
        Ok(self.take_events())
    }

    /// What this node did to the ring since the last call of this method or of
    /// [`maintain`](KeyManager::maintain): for who wants to be told even where `maintain` failed half-way.
    #[must_use = "they are told once"]
    pub fn take_events(&self) -> Vec<KeyEvent> {
        std::mem::take(&mut *self.inner.events())
    }

    /// Ends the signing key now, so that its successor signs: on this node at once, on the others
    /// from their next load. The old key stays in the JWK Set until what it signed has expired.
    ///
    /// # Errors
    ///
    /// [`SuccessorNotKnown`](KeyManagerError::SuccessorNotKnown) while a verifier might not know
    /// the successor yet; if the store or the sealer fails.
    pub async fn rotate(&self) -> Result<KeyEvent, KeyManagerError> {
        let inner = &*self.inner;
        let mut flight = inner.flight.lock().await;
        let mut ordered: Option<Kid> = None;
        for _ in 0..MAX_STEPS {
            // A ring at rest has a successor, whatever other nodes are at.
            inner.settle(&mut flight).await?;
            let ring = inner.ring();
            let now = inner.clock.now();
            let signer = ring.signer(now)?.kid().clone();
            // Another node was faster: what was ordered is done.
            if let Some(from) = ordered.take_if(|from| *from != signer) {
                return Ok(KeyEvent::Rotated { from, to: signer });
            }
            let (generation, signing) = schedule::rotate(&ring.records, now, &inner.policy)
                .map_err(|ready_at| match ready_at {
                    Some(ready_at) => KeyManagerError::SuccessorNotKnown { ready_at },
                    None => KeyManagerError::NoKey,
                })?;
            let until = signing.until;
            if !inner.schedule(&mut flight, &ring, generation, signing).await? {
                ordered = Some(signer);
                continue;
            }
            let to = inner.ring().signer(until)?.kid().clone();
            inner.settle_after(&mut flight).await;
            tracing::info!(from = %signer, %to, "the signing key was rotated");
            return Ok(KeyEvent::Rotated { from: signer, to });
        }
        Err(KeyManagerError::Contended)
    }

    /// Declares a key compromised, for ever: it leaves the JWK Set at once and never signs again,
    /// and the published successor signs. Other nodes follow with their next load, and one that is
    /// cut off from the store after `max_blind`.
    ///
    /// What it signed counts until verifiers know. Write a rule on the `kid` that lives until
    /// [`Compromised::rule_until`]. Repeating the call is harmless and returns the same.
    ///
    /// # Errors
    ///
    /// If the ring holds no such key, or the store fails. Once the key is marked the call
    /// succeeds, even if the successor of its successor could not be published just now.
    pub async fn compromise(&self, kid: &Kid) -> Result<Compromised, KeyManagerError> {
        let inner = &*self.inner;
        let mut flight = inner.flight.lock().await;
        for _ in 0..MAX_STEPS {
            // The records alone: a key that cannot be unsealed must not stand in the way.
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

    /// Takes note that a key was declared compromised, as the revocation log says, without waiting
    /// for the next load of the ring. From now on this node neither signs with it nor publishes it,
    /// whatever the store says, and [`maintain`](KeyManager::maintain) marks its record.
    ///
    /// # Errors
    ///
    /// If the JWK Set cannot be written without it.
    pub fn note_compromised(&self, kid: &Kid, at: UnixTime) -> Result<(), KeyManagerError> {
        self.inner.note_compromised(kid, at)
    }

    /// How the keys live.
    #[must_use]
    pub fn policy(&self) -> &KeyPolicy {
        &self.inner.policy
    }

    /// Whether the ring is recent enough to say that a key which it lacks does not exist.
    pub(crate) fn is_fresh(&self) -> bool {
        self.inner.age(&self.inner.ring()) <= self.inner.policy.reload
    }
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("algorithm", &self.inner.algorithm)
            .field("keys", &self.inner.ring())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod outage_tests;

#[cfg(test)]
mod race_tests;

#[cfg(test)]
mod ends_tests;
