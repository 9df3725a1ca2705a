//! The store contract for signing keys, and the schedule of their rotation.

pub mod schedule;

pub use schedule::{KeyPolicy, PolicyError};

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::Kid;
use crate::keys::schedule::KeyTimes;
use crate::record::UnknownFields;
use crate::secret::byte_vec;
use crate::store::CheckValues;
use crate::store::StoreError;
use crate::time::UnixTime;

/// A store for the records of signing keys. An issuer has a handful of keys, in one main *ring* and one ring for each
/// additional algorithm. A *generation* is the number of a key among the keys of all rings; a store does not tell the
/// rings apart.
///
/// Private keys are sealed before the store receives them. Every write must be one atomic,
/// conditional step, so that any number of nodes may rotate keys at the same time. If a driver
/// sends a write twice, the answer may be that of the second one, which was refused. So a caller
/// whose write was refused loads the records again. A failure must never look like an empty ring.
/// Put [`#[async_trait]`](crate::async_trait) on your `impl`.
#[async_trait]
pub trait KeyStore: CheckValues + fmt::Debug + Send + Sync + 'static {
    /// Every record, ordered by generation. It must be read from the primary.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// Inserts a record if its generation is above the highest that was *ever* inserted: a
    /// generation is never reused, even after a delete.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError>;

    /// Replaces the record of the same generation if its stored version is still `expected`. The
    /// version of the new record must differ from it. So a node that missed a rotation cannot
    /// restore old times.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if the record keeps its version; another error if the store fails.
    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError>;

    /// Deletes the record of this generation if its stored version is still `expected`.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError>;
}

/// What [`KeyStore::insert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the generation may be taken"]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum KeyInserted {
    /// The record was inserted.
    Inserted,
    /// This generation or a higher one was used before. Nothing was written.
    Taken,
}

/// What [`KeyStore::update`] or [`KeyStore::delete`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the record may have changed meanwhile"]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum KeyUpdated {
    /// The record was updated or deleted.
    Updated,
    /// The stored version is not `expected`, or there is no record. Nothing was changed.
    Stale,
}

/// The record of a signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyRecord {
    /// Its number among all keys, from 1.
    pub generation: u64,
    /// The number of times that this record was written, from 1.
    pub version: u64,
    /// Its RFC 7638 thumbprint.
    pub kid: Kid,
    /// The JWS algorithm that it signs with (RFC 7518 §3.1), such as `ES256`.
    pub algorithm: String,
    /// The name of its ring: empty for the main ring, otherwise the algorithm of the ring.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ring: String,
    /// The public key, as in the JWK Set (RFC 7517).
    pub public_jwk: Value,
    /// The private key, sealed.
    #[serde(with = "byte_vec")]
    pub sealed: Vec<u8>,
    /// When it is published, and when it signs.
    pub times: KeyTimes,
    /// When it was declared compromised. This cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<UnixTime>,
    /// When a node last signed with it, as far as nodes have noted it. They do so seldom, so this may be an
    /// hour or so too early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixTime>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl KeyRecord {
    /// The first version of a record.
    #[must_use]
    pub fn new(
        generation: u64,
        kid: Kid,
        algorithm: impl Into<String>,
        public_jwk: Value,
        sealed: Vec<u8>,
        times: KeyTimes,
    ) -> Self {
        Self {
            generation,
            version: 1,
            kid,
            algorithm: algorithm.into(),
            ring: String::new(),
            public_jwk,
            sealed,
            times,
            compromised_at: None,
            last_used: None,
            unknown: UnknownFields::default(),
        }
    }
}
