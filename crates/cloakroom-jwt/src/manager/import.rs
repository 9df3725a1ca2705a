//! Importing a key that another program made.

use cloakroom_core::keys::schedule::MAIN_RING;

use crate::key::signing::SigningKey;
use crate::manager::KeyManager;
use crate::manager::error::{KeyEvent, KeyManagerError};
use crate::manager::node::MAX_STEPS;
use crate::manager::ring;
use crate::manager::unanswered_writes::Write;

impl KeyManager {
    /// Publishes an existing key, such as one of a server that this one replaces. It is in the JWK Set
    /// at once, and signs after the keys that are in the ring already, once every verifier knows it. From then on it
    /// follows the schedule like any other key: call [`rotate`](Self::rotate) to let it sign earlier. A key for an
    /// algorithm that has a ring of its own joins that ring, and any other key joins the main ring.
    ///
    /// The key is sealed before it is stored, and gets its thumbprint as `kid`.
    ///
    /// # Errors
    ///
    /// [`KeyManagerError::KnownKid`] if the ring has the key, or this node knows it as compromised;
    /// another error if the store or the sealer fails. If the store fails, the key may have been
    /// imported.
    pub async fn import(&self, key: &SigningKey) -> Result<KeyEvent, KeyManagerError> {
        let inner = &*self.inner;
        let mut flight = inner.flight.lock().await;
        let kid = key.kid();
        let event = KeyEvent::Published { kid: kid.clone() };
        let joined = inner.rings().find(|(_, algorithm)| *algorithm == key.algorithm());
        let name = joined.map_or(MAIN_RING, |(name, _)| name);
        let mut taken = 0;
        for _ in 0..MAX_STEPS {
            inner.settle(&mut flight).await?;
            let ring = inner.ring();
            match ring.records.iter().any(|record| record.kid == *kid) {
                // The driver sent the insert twice, and the second was refused.
                true if taken > 0 => return Ok(event),
                true => return Err(KeyManagerError::KnownKid(kid.clone())),
                false => {}
            }
            if inner.remembered().compromised_at(kid).is_some() {
                return Err(KeyManagerError::KnownKid(kid.clone()));
            }
            let generation = inner.next_generation(taken);
            // Read after the load that found this generation free: see `reseal`.
            inner.sealing.may_seal(&*inner.store).await?;
            let mut record = ring::record_of(generation, name, key, &inner.sealing).await?;
            record.times.published = inner.clock.now();
            taken = generation;
            if inner.write(&mut flight, Write::Insert(record), event.clone()).await? {
                inner.settle_after(&mut flight).await;
                return Ok(event);
            }
        }
        Err(KeyManagerError::Contended)
    }
}
