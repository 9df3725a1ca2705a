//! A loaded copy of the ring of keys. It is immutable and replaced as a whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::Kid;
use cloakroom_core::keys::KeyRecord;
use cloakroom_core::keys::schedule::{self, KeyState, KeyTimes, MAIN_RING};
use cloakroom_core::time::{ClockReading, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::key::algorithm::Algorithm;
use crate::key::jwk::Jwk;
use crate::key::jwk_set::JwkSet;
use crate::key::key_set::KeySet;
use crate::key::signing::{KeyError, Signer, SigningKey};
use crate::manager::error::KeyManagerError;
use crate::manager::sealing::Sealing;

/// A JWK Set, and the values for its HTTP response (RFC 7517 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedJwks {
    /// The document, `{"keys":[…]}`.
    pub json: String,
    /// Its strong entity tag, with quotes (RFC 9110 §8.8.3).
    pub etag: String,
    /// How long it may be cached, for `max-age`.
    pub max_age: Duration,
}

/// The ring as a node knows it. The default is empty.
#[derive(Clone, Default)]
pub(crate) struct Ring {
    pub(crate) records: Vec<KeyRecord>,
    pub(crate) keys: KeySet,
    /// `None` while no key is published.
    pub(crate) jwks: Option<Arc<PublishedJwks>>,
    pub(crate) sent: ClockReading,
    signers: HashMap<Kid, Prepared>,
}

/// A prepared private key.
#[derive(Clone)]
struct Prepared {
    key: Arc<SigningKey>,
    used: Arc<LastUse>,
}

/// When this process last signed with a key, to the second; 0 if it never did.
#[derive(Debug, Default)]
pub(crate) struct LastUse(AtomicU64);

impl LastUse {
    fn note(&self, now: UnixTime) {
        // Written once a second, so that the threads that sign do not wait for each other's caches.
        let now = now.as_secs();
        if self.0.load(Ordering::Relaxed) < now {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<UnixTime> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at| *at > 0).map(UnixTime::from_secs)
    }
}

impl Ring {
    /// Prepares loaded records. The sealer must unseal every published key, and it must be the key that the
    /// record names. So an attacker who can write to the store, but cannot seal, can neither publish another
    /// key nor swap two records. Keys that `before` has prepared are reused.
    pub(crate) async fn prepare(
        records: Vec<KeyRecord>,
        sent: ClockReading,
        now: UnixTime,
        before: &Self,
        sealing: &Sealing,
        max_age: Duration,
    ) -> Result<Self, KeyManagerError> {
        let mut signers = HashMap::new();
        for record in records.iter().filter(|record| record.is_published(now)) {
            let prepared = match before.prepared(record) {
                Some(prepared) => prepared,
                None => {
                    let known = before.signers.get(&record.kid);
                    let used = known.map(|known| Arc::clone(&known.used)).unwrap_or_default();
                    Prepared { key: Arc::new(unseal(record, sealing).await?), used }
                }
            };
            signers.insert(record.kid.clone(), prepared);
        }
        Self::of(records, signers, sent, now, max_age)
    }

    fn of(
        records: Vec<KeyRecord>,
        signers: HashMap<Kid, Prepared>,
        sent: ClockReading,
        now: UnixTime,
        max_age: Duration,
    ) -> Result<Self, KeyManagerError> {
        let jwks: Vec<Jwk> = records
            .iter()
            .filter(|record| record.is_published(now))
            .filter_map(|record| signers.get(&record.kid))
            .map(|prepared| prepared.key.public_jwk().clone())
            .collect();
        let empty = jwks.is_empty();
        let set = JwkSet::new(jwks);
        let keys = KeySet::prepare(&set);
        let jwks = if empty {
            None
        } else {
            let json = serde_json::to_string(&set).map_err(KeyManagerError::Render)?;
            let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&json)));
            Some(Arc::new(PublishedJwks { json, etag, max_age }))
        };
        Ok(Self { records, keys, jwks, sent, signers })
    }

    /// This copy with one record replaced by a newer one. Its age stays the same.
    pub(crate) fn with_record(
        &self,
        record: &KeyRecord,
        now: UnixTime,
        max_age: Duration,
    ) -> Result<Self, KeyManagerError> {
        let mut records = self.records.clone();
        if let Some(own) = records.iter_mut().find(|own| own.kid == record.kid) {
            own.clone_from(record);
        }
        let mut signers = self.signers.clone();
        signers.retain(|kid, _| {
            let own = records.iter().find(|own| own.kid == *kid);
            own.is_some_and(|own| own.is_published(now))
        });
        Self::of(records, signers, self.sent, now, max_age)
    }

    /// The name of the key that signs at `now` in this ring.
    pub(crate) fn signer(&self, ring: &str, now: UnixTime) -> Option<&Kid> {
        schedule::signer(&self.records, ring, now).map(|record| &record.kid)
    }

    /// The key that signs at `now` in this ring, to be used.
    pub(crate) fn use_signer(&self, ring: &str, now: UnixTime) -> Option<Arc<dyn Signer>> {
        let prepared = self.signers.get(self.signer(ring, now)?)?;
        prepared.used.note(now);
        Some(Arc::<SigningKey>::clone(&prepared.key))
    }

    /// When this process last signed with the key.
    pub(crate) fn last_used(&self, kid: &Kid) -> Option<UnixTime> {
        self.signers.get(kid)?.used.get()
    }

    /// The algorithms of the keys of the main ring that sign at `now` or later, the oldest key's first.
    pub(crate) fn algorithms(&self, now: UnixTime) -> Vec<Algorithm> {
        let mut living: Vec<&KeyRecord> = self
            .records
            .iter()
            .filter(|key| key.ring == MAIN_RING)
            .filter(|key| matches!(key.state(now), KeyState::Published | KeyState::Signing))
            .collect();
        living.sort_by_key(|key| key.generation);
        let mut all = Vec::new();
        // What this version does not know cannot sign here.
        for algorithm in living.into_iter().filter_map(|key| key.algorithm.parse().ok()) {
            if !all.contains(&algorithm) {
                all.push(algorithm);
            }
        }
        all
    }

    fn prepared(&self, record: &KeyRecord) -> Option<Prepared> {
        let own = self.records.iter().find(|own| own.kid == record.kid)?;
        let same = own.generation == record.generation
            && own.algorithm == record.algorithm
            && own.ring == record.ring
            && own.sealed == record.sealed;
        same.then(|| self.signers.get(&record.kid).cloned())?
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.records.iter().map(|record| &record.kid)).finish()
    }
}

/// A new key as a record of this generation, with a sealed private half. The caller sets the time of its
/// publication, right before the insert.
///
/// An RSA key takes some 50 ms, so it is generated on a thread that serves no requests. Any other key takes
/// far less than 1 ms.
pub(crate) async fn generate(
    generation: u64,
    ring: &str,
    algorithm: Algorithm,
    sealing: &Sealing,
) -> Result<KeyRecord, KeyManagerError> {
    let key = if algorithm.is_slow_to_generate() {
        off_thread(move || SigningKey::generate(algorithm)).await?
    } else {
        SigningKey::generate(algorithm)?
    };
    record_of(generation, ring, &key, sealing).await
}

/// A key as a record of this generation, with a sealed private half. The caller sets the time of its
/// publication, right before the insert.
pub(crate) async fn record_of(
    generation: u64,
    ring: &str,
    key: &SigningKey,
    sealing: &Sealing,
) -> Result<KeyRecord, KeyManagerError> {
    let (kid, algorithm) = (key.kid().clone(), key.algorithm());
    let private = key.to_pkcs8_der()?;
    let sealed = sealing.seal(generation, algorithm, &kid, &private).await?;
    let public = serde_json::to_value(key.public_jwk()).map_err(KeyManagerError::Render)?;
    let times = KeyTimes::published(UnixTime::default());
    let mut record = KeyRecord::new(generation, kid, algorithm.to_string(), public, sealed, times);
    ring.clone_into(&mut record.ring);
    // What does not open again must never get into the ring.
    unseal(&record, sealing).await?;
    Ok(record)
}

/// Runs what takes long on a thread for such work.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    match Handle::try_current() {
        Ok(runtime) => {
            let done = runtime.spawn_blocking(work).await;
            done.unwrap_or_else(|failed| Err(KeyError::Generate(failed.into())))
        }
        // Another runtime than tokio.
        Err(_) => work(),
    }
}

/// Unseals the private key of a record, and checks that it is the key that the record names. The published key
/// is derived from it, and never read from the record.
pub(crate) async fn unseal(
    record: &KeyRecord,
    sealing: &Sealing,
) -> Result<SigningKey, KeyManagerError> {
    let damaged = |why| KeyManagerError::Damaged { kid: record.kid.clone(), why };
    let algorithm: Algorithm = record
        .algorithm
        .parse()
        .map_err(|_| damaged("its algorithm is unknown to this version"))?;
    let private = sealing.unseal(record.generation, algorithm, &record.kid, &record.sealed).await?;
    let key = SigningKey::from_pkcs8_der(algorithm, &private)?;
    if *key.kid() != record.kid {
        return Err(damaged("its private key does not match its `kid`"));
    }
    Ok(key)
}
