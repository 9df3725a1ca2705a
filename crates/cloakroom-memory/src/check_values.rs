//! The check values of the store.

use async_trait::async_trait;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};

use crate::locks::lock;
use crate::store::MemoryStore;

#[async_trait]
impl CheckValues for MemoryStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        let values = lock(self.values());
        Ok(values
            .iter()
            .map(|(name, value)| CheckValue { name: name.clone(), value: value.clone() })
            .collect())
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let mut values = lock(self.values());
        let stored = values.get(name).map(Vec::as_slice);
        if stored == value {
            return Ok(true);
        }
        if stored != expected {
            return Ok(false);
        }
        match value {
            Some(value) => values.insert(name.to_owned(), value.to_vec()),
            None => values.remove(name),
        };
        Ok(true)
    }
}
