//! A small, plain key store that keeps the contract, unless it is told what to do wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cloakroom_core::{
    CheckValue, CheckValues, KeyInserted, KeyRecord, KeyStore, KeyUpdated, StoreError,
};

use super::check_values::Values;
use super::fault::Fault;
use super::plain::pause;

#[derive(Debug)]
pub(crate) struct PlainKeys {
    fault: Option<Fault>,
    ring: Mutex<Ring>,
    values: Values,
}

#[derive(Debug, Default)]
struct Ring {
    records: BTreeMap<u64, KeyRecord>,
    /// The highest generation that was ever inserted.
    highest: u64,
}

impl PlainKeys {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self { fault, ring: Mutex::default(), values: Values::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_free(&self, ring: &Ring, generation: u64) -> bool {
        let newest = ring.records.keys().next_back().copied().unwrap_or(0);
        match self.fault {
            Some(Fault::KeysUpsert) => true,
            Some(Fault::KeysFillHoles) => !ring.records.contains_key(&generation),
            Some(Fault::KeysReuseGenerations) => generation > newest,
            _ => generation > ring.highest,
        }
    }
}

impl Ring {
    fn stands(&self, generation: u64, version: u64) -> bool {
        let stored = self.records.get(&generation);
        stored.is_some_and(|stored| stored.version == version)
    }

    fn put(&mut self, record: KeyRecord) {
        self.highest = self.highest.max(record.generation);
        self.records.insert(record.generation, record);
    }
}

#[async_trait]
impl CheckValues for PlainKeys {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        pause().await;
        Ok(self.values.all())
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        pause().await;
        Ok(self.values.set(name, expected, value))
    }
}

#[async_trait]
impl KeyStore for PlainKeys {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        pause().await;
        let mut records: Vec<KeyRecord> = self.lock().records.values().cloned().collect();
        pause().await;
        if self.has(Fault::KeysLoadBackwards) {
            records.reverse();
        }
        if self.has(Fault::KeysDropUnknown) {
            records.iter_mut().for_each(|record| record.unknown.clear());
        }
        Ok(records)
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        pause().await;
        if self.has(Fault::KeysInsertRaces) {
            let free = self.is_free(&self.lock(), record.generation);
            pause().await;
            if !free {
                return Ok(KeyInserted::Taken);
            }
            self.lock().put(record);
            return Ok(KeyInserted::Inserted);
        }
        if self.has(Fault::KeysCountLater) {
            let generation = record.generation;
            {
                let mut ring = self.lock();
                if !self.is_free(&ring, generation) {
                    return Ok(KeyInserted::Taken);
                }
                ring.records.insert(generation, record);
            }
            pause().await;
            let mut ring = self.lock();
            ring.highest = ring.highest.max(generation);
            return Ok(KeyInserted::Inserted);
        }
        let inserted = {
            let mut ring = self.lock();
            if self.is_free(&ring, record.generation) {
                ring.put(record);
                KeyInserted::Inserted
            } else {
                KeyInserted::Taken
            }
        };
        pause().await;
        Ok(inserted)
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        pause().await;
        let mut stands = self.lock().stands(record.generation, expected);
        if self.has(Fault::KeysUpdateRaces) {
            pause().await;
        }
        let updated = {
            let mut ring = self.lock();
            let there = ring.records.contains_key(&record.generation);
            match self.fault {
                Some(Fault::KeysUpdateRaces) => {}
                Some(Fault::KeysUpdateUnchecked) => stands = there,
                Some(Fault::KeysUpdateInserts) => {
                    stands = !there || ring.stands(record.generation, expected);
                }
                _ => stands = ring.stands(record.generation, expected),
            }
            if stands {
                ring.put(record);
                KeyUpdated::Updated
            } else {
                KeyUpdated::Stale
            }
        };
        pause().await;
        Ok(updated)
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        pause().await;
        let stood = self.lock().stands(generation, expected);
        if self.has(Fault::KeysDeleteRaces) {
            pause().await;
        }
        let deleted = {
            let mut ring = self.lock();
            let there = ring.records.contains_key(&generation);
            let stands = match self.fault {
                Some(Fault::KeysDeleteUnchecked) => there,
                Some(Fault::KeysDeleteRaces) => stood,
                _ => ring.stands(generation, expected),
            };
            if stands {
                ring.records.remove(&generation);
                KeyUpdated::Updated
            } else {
                KeyUpdated::Stale
            }
        };
        pause().await;
        Ok(deleted)
    }
}
