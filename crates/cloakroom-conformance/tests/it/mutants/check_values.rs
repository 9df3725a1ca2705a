//! Check values of the small stores.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cloakroom_core::CheckValue;

/// The values, by name.
#[derive(Debug, Default)]
pub(crate) struct Values(Mutex<BTreeMap<String, Vec<u8>>>);

impl Values {
    pub(crate) fn all(&self) -> Vec<CheckValue> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = |(name, value): (&String, &Vec<u8>)| CheckValue {
            name: name.clone(),
            value: value.clone(),
        };
        values.iter().map(value).collect()
    }

    pub(crate) fn set(&self, name: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = values.get(name).map(Vec::as_slice);
        if stored == value {
            return true;
        }
        if stored != expected {
            return false;
        }
        match value {
            Some(value) => values.insert(name.to_owned(), value.to_vec()),
            None => values.remove(name),
        };
        true
    }
}
