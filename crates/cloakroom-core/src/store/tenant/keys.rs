//! The ring of signing keys of one tenant, in a store that several tenants share.
//!
//! The store has one sequence of generations for the keys of all tenants. Each tenant also counts
//! its own generations, and a record has both numbers. A key is inserted directly above the newest
//! record, so that exactly one of any number of nodes and tenants succeeds and the others retry.
//! This requires that the newest record exists. Therefore the newest key of a tenant is emptied
//! instead of deleted, until there is a newer one.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use crate::store::check_values::CheckValues;
use crate::store::error::StoreError;
use crate::store::tenant::TenantStore;

/// The field of a record that names its tenant.
const FIELD: &str = "cloakroom_tenant";

/// More races in a row than a node loses in practice.
const MAX_RACES: usize = 256;

/// A record of this tenant.
struct Own {
    /// As the tenant knows it.
    record: KeyRecord,
    /// Its generation in the store.
    place: u64,
    /// Whether its key was deleted, and the record only keeps the place.
    is_emptied: bool,
}

impl<S: KeyStore + ?Sized> TenantStore<S> {
    fn key_out(&self, mut record: KeyRecord) -> Option<Own> {
        let tenant = record.unknown.remove(FIELD)?;
        if tenant.get("name")?.as_str()? != self.name {
            return None;
        }
        let place = std::mem::replace(&mut record.generation, tenant.get("generation")?.as_u64()?);
        let is_emptied = tenant.get("emptied").is_some();
        Some(Own { record, place, is_emptied })
    }

    fn key_in(&self, mut record: KeyRecord, place: u64, is_emptied: bool) -> KeyRecord {
        let mut tenant = json!({"name": self.name, "generation": record.generation});
        if is_emptied {
            tenant["emptied"] = Value::Bool(true);
            record.sealed.clear();
            record.public_jwk = Value::Null;
            record.unknown.clear();
        }
        record.unknown.insert(FIELD.to_owned(), tenant);
        KeyRecord { generation: place, ..record }
    }

    /// This tenant's records, in order.
    async fn own(&self) -> Result<Vec<Own>, StoreError> {
        let mut own: Vec<Own> = self
            .store
            .load()
            .await?
            .into_iter()
            .filter_map(|record| self.key_out(record))
            .collect();
        own.sort_by_key(|own| own.record.generation);
        Ok(own)
    }

    /// The key of this generation, if its stored version is `expected`, and whether it is the newest.
    async fn standing(
        &self,
        generation: u64,
        expected: u64,
    ) -> Result<Option<(Own, bool)>, StoreError> {
        let mut own = self.own().await?;
        let newest = own.last().map(|own| own.record.generation);
        let found = own.iter().position(|own| {
            own.record.generation == generation && own.record.version == expected && !own.is_emptied
        });
        Ok(found.map(|at| (own.swap_remove(at), newest == Some(generation))))
    }
}

#[async_trait]
impl<S: KeyStore + CheckValues + ?Sized> KeyStore for TenantStore<S> {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let own = self.own().await?;
        Ok(own.into_iter().filter(|own| !own.is_emptied).map(|own| own.record).collect())
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        // How far above the newest visible record to look, if newer ones were deleted by hand.
        let mut unseen = (0_u64, 1_u64);
        for _ in 0..MAX_RACES {
            let all = self.store.load().await?;
            let newest = all.iter().map(|record| record.generation).max().unwrap_or(0);
            let own: Vec<Own> = all.into_iter().filter_map(|record| self.key_out(record)).collect();
            let highest = own.iter().map(|own| own.record.generation).max().unwrap_or(0);
            if record.generation <= highest {
                return Ok(KeyInserted::Taken);
            }
            let place = newest.saturating_add(1);
            let key = self.key_in(record.clone(), place, false);
            if self.store.insert(key).await? == KeyInserted::Inserted {
                for old in own.iter().filter(|own| own.is_emptied) {
                    // It is no longer needed. If this fails, the next insert repeats it.
                    drop(self.store.delete(old.place, old.record.version).await);
                }
                return Ok(KeyInserted::Inserted);
            }
            unseen =
                if unseen.0 == newest { (newest, unseen.1.saturating_mul(2)) } else { (newest, 1) };
            if unseen.1 > 1 {
                // Nobody inserted what takes this place: show where the newest place is.
                let mut shown = record.clone();
                shown.generation = highest;
                let place = newest.saturating_add(unseen.1);
                let shown = self.key_in(shown, place, true);
                // The next look tells whether it succeeded.
                let _ = self.store.insert(shown).await?;
            }
        }
        let why = "other nodes keep inserting keys";
        Err(StoreError::unavailable("inserting a tenant's signing key", why))
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        match self.standing(record.generation, expected).await? {
            Some((own, _)) => {
                self.store.update(self.key_in(record, own.place, false), expected).await
            }
            None => Ok(KeyUpdated::Stale),
        }
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        match self.standing(generation, expected).await? {
            Some((mut own, true)) => {
                // Another version, within what a signed column of 64 bits holds.
                own.record.version = if expected == 0 { 1 } else { expected - 1 };
                let emptied = self.key_in(own.record, own.place, true);
                self.store.update(emptied, expected).await
            }
            Some((own, false)) => self.store.delete(own.place, expected).await,
            None => Ok(KeyUpdated::Stale),
        }
    }
}
