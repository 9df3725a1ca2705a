//! A loaded copy of the ring of keys. It is immutable and replaced as a whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::Kid;
use cloakroom_core::keys::KeyRecord;
use cloakroom_core::keys::schedule::{self, KeyState, KeyTimes};
use cloakroom_core::time::{ClockReading, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::key::algorithm::Algorithm;
use crate::key::jwk::Jwk;
use crate::key::jwk_set::JwkSet;
use crate::key::key_set::KeySet;
use crate::key::signing::{Signer, SigningKey};
use crate::manager::error::KeyManagerError;
use crate::manager::sealing::Sealing;

/// A JWK Set with what its HTTP response needs (RFC 7517 §5).
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
    signers: HashMap<Kid, Arc<SigningKey>>,
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
            let key = match before.prepared(record) {
                Some(key) => key,
                None => Arc::new(unseal(record, sealing).await?),
            };
            signers.insert(record.kid.clone(), key);
        }
        Self::of(records, signers, sent, now, max_age)
    }

    fn of(
        records: Vec<KeyRecord>,
        signers: HashMap<Kid, Arc<SigningKey>>,
        sent: ClockReading,
        now: UnixTime,
        max_age: Duration,
    ) -> Result<Self, KeyManagerError> {
        let jwks: Vec<Jwk> = records
            .iter()
            .filter(|record| record.is_published(now))
            .filter_map(|record| signers.get(&record.kid))
            .map(|key| key.public_jwk().clone())
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

    /// The key that signs at `now`.
    pub(crate) fn signer(&self, now: UnixTime) -> Result<Arc<dyn Signer>, KeyManagerError> {
        let key = schedule::signer(&self.records, now)
            .and_then(|record| self.signers.get(&record.kid))
            .ok_or(KeyManagerError::NoKey)?;
        Ok(Arc::<SigningKey>::clone(key))
    }

    /// The algorithms of the keys that sign at `now` or later, the oldest key's first.
    pub(crate) fn algorithms(&self, now: UnixTime) -> Vec<Algorithm> {
        let mut living: Vec<&KeyRecord> = self
            .records
            .iter()
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

    fn prepared(&self, record: &KeyRecord) -> Option<Arc<SigningKey>> {
        let own = self.records.iter().find(|own| own.kid == record.kid)?;
        let same = own.generation == record.generation
            && own.algorithm == record.algorithm
            && own.sealed == record.sealed;
        same.then(|| self.signers.get(&record.kid).map(Arc::clone))?
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
/// Generating an RSA key takes some 50 ms, and any other key far less than 1 ms.
pub(crate) async fn generate(
    generation: u64,
    algorithm: Algorithm,
    sealing: &Sealing,
) -> Result<KeyRecord, KeyManagerError> {
    record_of(generation, &SigningKey::generate(algorithm)?, sealing).await
}

/// A key as a record of this generation, with a sealed private half. The caller sets the time of its
/// publication, right before the insert.
pub(crate) async fn record_of(
    generation: u64,
    key: &SigningKey,
    sealing: &Sealing,
) -> Result<KeyRecord, KeyManagerError> {
    let (kid, algorithm) = (key.kid().clone(), key.algorithm());
    let private = key.to_pkcs8_der()?;
    let sealed = sealing.seal(generation, algorithm, &kid, &private).await?;
    let public = serde_json::to_value(key.public_jwk()).map_err(KeyManagerError::Render)?;
    let times = KeyTimes::published(UnixTime::default());
    let record = KeyRecord::new(generation, kid, algorithm.to_string(), public, sealed, times);
    // What does not open again must never get into the ring.
    unseal(&record, sealing).await?;
    Ok(record)
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
        return Err(damaged("the private key in it is another's"));
    }
    Ok(key)
}
