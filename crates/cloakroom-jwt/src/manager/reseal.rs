//! Sealing the ring again after the key-encryption key was changed.
//!
//! 1. The older key-encryption keys are marked as replaced. A node reads the marks before it seals a new
//!    key, and after the load that found the generation of that key free.
//! 2. A key is published under the current key-encryption key. So a key that a node has sealed before it
//!    could see the marks is in the ring by now, or its generation is taken and it never will be.
//! 3. What the older keys have sealed is sealed again, each record by a compare-and-set.

use cloakroom_core::keys::KeyRecord;
use cloakroom_core::keys::schedule::MAIN_RING;
use cloakroom_core::time::UnixTime;
use serde::Serialize;
use tokio::sync::MutexGuard;

use crate::key::algorithm::Algorithm;
use crate::manager::KeyManager;
use crate::manager::error::{KeyEvent, KeyManagerError};
use crate::manager::node::{Flight, KeyRingNode, MAX_STEPS};
use crate::manager::ring;
use crate::manager::unanswered_writes::Write;

/// What [`KeyManager::reseal`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Resealed {
    /// The name of the key-encryption key that seals now.
    pub current: String,
    /// How many private keys this call sealed again.
    pub resealed: usize,
    /// How many are still sealed under an older key, because other nodes kept writing their records. Repeat the call.
    pub remaining: usize,
    /// The names of older key-encryption keys that no signing key needs any more. You may remove them
    /// from the sealer of every node.
    pub removable: Vec<String>,
}

impl KeyManager {
    /// Seals again every private key that is sealed under an older key-encryption key than the current one. Call it
    /// when every node has the new key as its current one. You can repeat it, and call it on any number of nodes.
    ///
    /// From the first call on, a node whose current key is an older one makes no new signing keys. It
    /// continues to sign, but [`maintain`](KeyManager::maintain) and
    /// [`build`](crate::KeyManagerBuilder::build) fail there with
    /// [`ReplacedSealingKey`](KeyManagerError::ReplacedSealingKey). The first call also publishes one
    /// signing key, which signs after those that are published.
    ///
    /// # Errors
    ///
    /// If the sealer does not name its keys or lacks one that is needed, if a newer key-encryption key has
    /// replaced the current one, or if the store fails. What was sealed again before the failure stays so.
    pub async fn reseal(&self) -> Result<Resealed, KeyManagerError> {
        let inner = &*self.inner;
        let sealer = &inner.sealing.sealer;
        let current = sealer.current_key().ok_or(KeyManagerError::UnnamedSealingKeys)?;
        let mut flight = inner.flight.lock().await;
        inner.sealing.may_seal(&*inner.store).await?;
        let unfenced = inner.sealing.mark_replaced(&*inner.store, &current).await?;
        if !unfenced.is_empty() {
            inner.publish_once(&mut flight, self.main_algorithm()).await?;
            inner.sealing.fence(&*inner.store, &unfenced).await?;
        }

        let replaced = sealer.replaced_keys();
        let is_old = |record: &KeyRecord, now: UnixTime| {
            let key = sealer.key_of(&record.sealed);
            inner.needs_its_private_half(record, now)
                && key.is_some_and(|key| replaced.contains(&key))
        };
        let mut resealed = 0;
        let mut records = inner.store.load().await?;
        for _ in 0..MAX_STEPS {
            let now = inner.clock.now();
            let (mut progress, mut failed) = (false, None);
            for record in records.iter().filter(|record| is_old(record, now)) {
                match inner.reseal(&mut flight, record).await {
                    Ok(true) => {
                        progress = true;
                        resealed += 1;
                    }
                    // Another node wrote it: look again.
                    Ok(false) => progress = true,
                    // The others can be sealed again all the same.
                    Err(
                        error @ (KeyManagerError::Seal { .. } | KeyManagerError::Damaged { .. }),
                    ) => {
                        failed.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            records = inner.store.load().await?;
            match failed {
                Some(error) if !progress => return Err(error),
                None if !progress => break,
                _ => {}
            }
        }
        inner.settle_after(&mut flight).await;
        let now = inner.clock.now();
        let remaining = records.iter().filter(|record| is_old(record, now)).count();
        let is_needed = |key: &String| {
            let own = |record: &&KeyRecord| sealer.key_of(&record.sealed).as_ref() == Some(key);
            records.iter().filter(own).any(|record| inner.needs_its_private_half(record, now))
        };
        let removable = replaced.iter().filter(|key| !is_needed(key)).cloned().collect();
        tracing::info!(%current, resealed, remaining, ?removable, "the ring of keys was sealed again");
        Ok(Resealed { current, resealed, remaining, removable })
    }
}

impl KeyRingNode {
    /// Whether a node may unseal the private half of the key now or later. That of a compromised or
    /// unpublished key is never unsealed.
    fn needs_its_private_half(&self, record: &KeyRecord, now: UnixTime) -> bool {
        record.is_published(now - self.policy.clock_skew)
    }

    /// Publishes a key of the main ring above every generation that was ever used.
    async fn publish_once(
        &self,
        flight: &mut MutexGuard<'_, Flight>,
        algorithm: Algorithm,
    ) -> Result<(), KeyManagerError> {
        let mut taken = 0;
        for _ in 0..MAX_STEPS {
            self.load(flight).await?;
            let generation = self.next_generation(taken);
            if self.publish(flight, generation, MAIN_RING, algorithm).await? {
                return Ok(());
            }
            taken = generation;
        }
        Err(KeyManagerError::Contended)
    }

    /// Seals one private key again. Returns whether it was written.
    async fn reseal(
        &self,
        flight: &mut MutexGuard<'_, Flight>,
        record: &KeyRecord,
    ) -> Result<bool, KeyManagerError> {
        let mut record = record.clone();
        let key = ring::unseal(&record, &self.sealing).await?;
        let private = key.to_pkcs8_der()?;
        let (generation, algorithm) = (record.generation, key.algorithm());
        record.sealed = self.sealing.seal(generation, algorithm, &record.kid, &private).await?;
        // What does not open again must never get into the ring.
        ring::unseal(&record, &self.sealing).await?;
        let expected = record.version;
        record.version += 1;
        let event = KeyEvent::Resealed { kid: record.kid.clone() };
        let write = Write::Update { record: record.clone(), expected };
        let is_done = self.write(flight, write, event).await?;
        if is_done {
            self.take_over(&record)?;
        }
        Ok(is_done)
    }
}
