//! Where the ring of signing keys is kept.

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

/// Keeps the records of signing keys; the sibling of [`TokenStore`](crate::store::TokenStore), for the
/// handful of keys that an issuer has.
///
/// Private keys are sealed before they get here. Every write must be one atomic, conditional step,
/// so that any number of nodes may rotate at once. A failure must never look like an empty ring.
#[async_trait]
pub trait KeyStore: CheckValues + fmt::Debug + Send + Sync + 'static {
    /// Every record, ordered by generation; from the primary.
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
    /// new record's version must be another; a node that slept through a rotation cannot write old
    /// times back.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if the record keeps its version; else if the store fails.
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
pub enum KeyInserted {
    /// The record is there.
    Inserted,
    /// The generation, or a higher one, was used before; nothing was written.
    Taken,
}

/// What [`KeyStore::update`] or [`KeyStore::delete`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the record may have changed meanwhile"]
pub enum KeyUpdated {
    /// It was done.
    Updated,
    /// Another version stands there, or none; nothing was done.
    Stale,
}

/// One signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its place in the ring, from 1.
    pub generation: u64,
    /// Counts the writes of this record, from 1.
    pub version: u64,
    /// Its RFC 7638 thumbprint.
    pub kid: Kid,
    /// The one JWS algorithm it signs with (RFC 7518 §3.1), such as `ES256`.
    pub algorithm: String,
    /// The public key, as it stands in the JWK Set (RFC 7517).
    pub public_jwk: Value,
    /// The private key, sealed.
    #[serde(with = "byte_vec")]
    pub sealed: Vec<u8>,
    /// Its life.
    pub times: KeyTimes,
    /// When it was declared compromised; irreversible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<UnixTime>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}
