//! What an operator sees of the keys.

use cloakroom_core::Kid;
use cloakroom_core::keys::KeyRecord;
use cloakroom_core::keys::schedule::{self, KeyState};
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::manager::KeyManager;
use crate::manager::error::KeyManagerError;

/// A signing key, as an operator sees it. In JSON, times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyStatus {
    /// The key.
    pub kid: Kid,
    /// Its number among all keys.
    pub generation: u64,
    /// The JWS algorithm that it signs with, such as `ES256`.
    pub algorithm: String,
    /// Its ring: empty for the main ring, otherwise the algorithm of the ring.
    pub ring: String,
    /// Its state by its own times. A compromised key is gone.
    pub state: KeyState,
    /// Whether it is the key that signs now in its ring.
    pub signs_now: bool,
    /// When it was added to the JWK Set.
    pub published: UnixTime,
    /// When it starts to sign; `None` while that is not set.
    pub signs_from: Option<UnixTime>,
    /// When it stops signing.
    pub signs_until: Option<UnixTime>,
    /// When it leaves the JWK Set.
    pub published_until: Option<UnixTime>,
    /// When it was declared compromised.
    pub compromised_at: Option<UnixTime>,
    /// The name of the key-encryption key that sealed its private half, if the sealer names its keys.
    pub sealed_under: Option<String>,
    /// When it last signed: with this process to the second, and with others as they have noted it. A node
    /// notes its use with [`maintain`](KeyManager::maintain), at most once an hour for each key while it
    /// signs, and once more when it has ended. `None` if nobody has noted any use.
    pub last_used: Option<UnixTime>,
}

impl KeyManager {
    /// The keys that the store holds now, ordered by generation, with those that have ended and are not
    /// deleted yet. This takes one read of the store, and unseals nothing.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn states(&self) -> Result<Vec<KeyStatus>, KeyManagerError> {
        let inner = &*self.inner;
        let mut records = inner.store.load().await?;
        // What this node knows of compromised keys counts, whatever the store says.
        inner.mark_compromised(&mut records);
        Ok(self.statuses(&records))
    }

    /// The keys as this node loaded them last, like [`states`](Self::states). This takes no I/O.
    #[must_use]
    pub fn loaded_states(&self) -> Vec<KeyStatus> {
        self.statuses(&self.inner.ring().records)
    }

    fn statuses(&self, records: &[KeyRecord]) -> Vec<KeyStatus> {
        let inner = &*self.inner;
        let (now, ring) = (inner.clock.now(), inner.ring());
        let status = |record: &KeyRecord| {
            let signing = record.times.signing.as_ref();
            KeyStatus {
                kid: record.kid.clone(),
                generation: record.generation,
                algorithm: record.algorithm.clone(),
                ring: record.ring.clone(),
                state: record.state(now),
                signs_now: schedule::signer(records, &record.ring, now)
                    .is_some_and(|signer| signer.generation == record.generation),
                published: record.times.published,
                signs_from: signing.map(|signing| signing.from),
                signs_until: signing.map(|signing| signing.until),
                published_until: signing.map(|signing| signing.published_until),
                compromised_at: record.compromised_at,
                sealed_under: inner.sealing.sealer.key_of(&record.sealed),
                last_used: ring.last_used(&record.kid).max(record.last_used),
            }
        };
        records.iter().map(status).collect()
    }
}
