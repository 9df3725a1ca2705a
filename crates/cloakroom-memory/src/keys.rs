//! The ring of signing keys.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::store::StoreError;

use crate::locks::lock;
use crate::store::MemoryStore;

/// The records by generation.
#[derive(Default)]
pub(crate) struct KeyRing {
    records: BTreeMap<u64, KeyRecord>,
    /// The highest generation that was ever inserted: deleting its record does not free it.
    highest: u64,
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        Ok(lock(self.keys()).records.values().cloned().collect())
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        let mut ring = lock(self.keys());
        if record.generation <= ring.highest {
            return Ok(KeyInserted::Taken);
        }
        ring.highest = record.generation;
        ring.records.insert(record.generation, record);
        Ok(KeyInserted::Inserted)
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        let mut ring = lock(self.keys());
        Ok(match ring.records.get_mut(&record.generation) {
            Some(stored) if stored.version == expected => {
                *stored = record;
                KeyUpdated::Updated
            }
            _ => KeyUpdated::Stale,
        })
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        let mut ring = lock(self.keys());
        Ok(match ring.records.get(&generation) {
            Some(stored) if stored.version == expected => {
                ring.records.remove(&generation);
                KeyUpdated::Updated
            }
            _ => KeyUpdated::Stale,
        })
    }
}
