//! A small, plain key store that keeps the contract, unless it is told what to do wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};

use super::check_values::Values;
use super::database::{Driver, Local};
use super::{Manners, Plain, pause, set_value};
use crate::mutants::fault::Fault;

#[derive(Debug)]
pub(crate) struct PlainKeys {
    fault: Option<Fault>,
    ring: Arc<Mutex<Ring>>,
    values: Arc<Values>,
    driver: Arc<Driver>,
    local: Mutex<Local>,
}

#[derive(Debug, Clone, Default)]
struct Ring {
    records: BTreeMap<u64, KeyRecord>,
    /// The highest generation that was ever inserted.
    highest: u64,
}

impl PlainKeys {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self::beside(&Plain::new(fault, Manners::default()))
    }

    /// The keys in the database of this store.
    pub(crate) fn beside(plain: &Plain) -> Self {
        Self {
            fault: plain.fault,
            ring: Arc::default(),
            values: Arc::clone(&plain.values),
            driver: plain.driver(),
            local: Mutex::new(Local::new()),
        }
    }

    /// Another instance over the same data.
    pub(crate) fn another(&self) -> Self {
        Self {
            fault: self.fault,
            ring: Arc::clone(&self.ring),
            values: Arc::clone(&self.values),
            driver: Arc::clone(&self.driver),
            local: Mutex::new(Local::new()),
        }
    }

    /// What is found after a restart.
    pub(crate) fn reborn(&self, plain: &Plain) -> Self {
        let mut ring = self.lock().clone();
        match self.fault {
            Some(Fault::GenerationIsForgotten) => {
                ring.highest = ring.records.keys().next_back().copied().unwrap_or(0);
            }
            Some(Fault::KeysAreForgotten) => {
                ring.records.pop_last();
            }
            _ => {}
        }
        Self { ring: Arc::new(Mutex::new(ring)), ..Self::beside(plain) }
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn or_lie<T>(
        &self,
        fault: Fault,
        answer: Result<T, StoreError>,
        lie: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        match answer {
            Err(StoreError::Unavailable { .. }) if self.has(fault) => Ok(lie()),
            answer => answer,
        }
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
            Some(Fault::GenerationIsCountedByTheInstance) => {
                generation > newest && generation > self.local().highest
            }
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
        let values = self.driver.run(|| self.values.all(self.fault));
        self.or_lie(Fault::ValuesFailAsNone, values, Vec::new)
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        pause().await;
        set_value(&self.values, &self.driver, self.fault, name, expected, value).await
    }
}

#[async_trait]
impl KeyStore for PlainKeys {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        pause().await;
        let known = self.local().ring.clone();
        if let Some(known) = known.filter(|_| self.has(Fault::RingIsCached)) {
            return Ok(known);
        }
        let records = self.driver.run(|| self.lock().records.values().cloned().collect());
        let mut records: Vec<KeyRecord> =
            self.or_lie(Fault::RingFailsAsEmpty, records, Vec::new)?;
        self.local().ring = Some(records.clone());
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
                self.driver.run(|| ring.records.insert(generation, record))?;
            }
            pause().await;
            return self.driver.run(|| {
                let mut ring = self.lock();
                ring.highest = ring.highest.max(generation);
                KeyInserted::Inserted
            });
        }
        self.local().forget();
        let inserted = self.driver.run(|| {
            let mut ring = self.lock();
            if self.is_free(&ring, record.generation) {
                self.local().highest = record.generation;
                ring.put(record);
                KeyInserted::Inserted
            } else {
                KeyInserted::Taken
            }
        });
        pause().await;
        self.or_lie(Fault::InsertFailsAsTaken, inserted, || KeyInserted::Taken)
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        pause().await;
        let mut stands = self.lock().stands(record.generation, expected);
        let cached = self.local().ring.clone().and_then(|ring| {
            let own = ring.into_iter().find(|own| own.generation == record.generation);
            own.map(|own| own.version == expected)
        });
        if self.has(Fault::KeysUpdateRaces) {
            pause().await;
        }
        self.local().forget();
        let updated = self.driver.run(|| {
            let mut ring = self.lock();
            let there = ring.records.contains_key(&record.generation);
            match self.fault {
                Some(Fault::KeysUpdateRaces) => {}
                Some(Fault::KeyVersionsAreCached) => {
                    let own = ring.stands(record.generation, expected);
                    stands = there && cached.unwrap_or(own);
                }
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
        });
        pause().await;
        self.or_lie(Fault::UpdateFailsAsStale, updated, || KeyUpdated::Stale)
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        pause().await;
        let stood = self.lock().stands(generation, expected);
        if self.has(Fault::KeysDeleteRaces) {
            pause().await;
        }
        self.local().forget();
        let deleted = self.driver.run(|| {
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
        });
        pause().await;
        self.or_lie(Fault::DeleteFailsAsStale, deleted, || KeyUpdated::Stale)
    }
}
