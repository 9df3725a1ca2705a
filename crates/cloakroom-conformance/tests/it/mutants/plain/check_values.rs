//! Check values of the small stores.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloakroom_core::store::CheckValue;

use super::pause;
use crate::mutants::fault::Fault;

/// The values, by name.
#[derive(Debug, Default)]
pub(crate) struct Values(Mutex<BTreeMap<String, Vec<u8>>>);

impl Values {
    /// As they are found after a restart.
    pub(crate) fn reborn(&self, fault: Option<Fault>) -> Self {
        match fault {
            Some(Fault::ValuesAreForgotten) => Self::default(),
            _ => Self(Mutex::new(self.lock().clone())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self, fault: Option<Fault>) -> Vec<CheckValue> {
        let value = |(name, value): (&String, &Vec<u8>)| CheckValue {
            name: name.clone(),
            value: value.clone(),
        };
        let mut values: Vec<_> = self.lock().iter().map(value).collect();
        match fault {
            Some(Fault::ValuesAreUnordered) => values.reverse(),
            Some(Fault::ValuesAreCapped) => values.truncate(256),
            _ => {}
        }
        values
    }

    pub(crate) async fn set(
        &self,
        fault: Option<Fault>,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> bool {
        let name = match fault {
            Some(Fault::ValueNamesAreFolded) => name.to_lowercase(),
            Some(Fault::ValueNamesLoseBlanks) => name.trim_end().to_owned(),
            Some(Fault::ValueNamesAreCut) => name.chars().take(64).collect(),
            _ => name.to_owned(),
        };
        let is_there = |values: &BTreeMap<String, Vec<u8>>| {
            let stored = values.get(&name).map(Vec::as_slice);
            (stored == value, stored == expected)
        };
        let seen = is_there(&self.lock());
        pause().await;
        let mut values = self.lock();
        let (is_done, is_expected) = match fault {
            Some(Fault::ValuesRace) => seen,
            _ => is_there(&values),
        };
        if is_done && fault != Some(Fault::ValueRepeatIsRefused) {
            return true;
        }
        match fault {
            Some(Fault::ValuesAreNotCompared) => {}
            Some(Fault::ValuesComparePresence)
                if values.contains_key(&name) == expected.is_some() => {}
            Some(Fault::ValuesWriteOnRefusal) if !is_expected => {
                values.insert(name, value.unwrap_or_default().to_vec());
                return false;
            }
            _ if !is_expected => return false,
            _ => {}
        }
        match value {
            None if fault == Some(Fault::ValuesStay) => {}
            Some([]) if fault == Some(Fault::EmptyValuesAreNone) => drop(values.remove(&name)),
            Some(value) => {
                let most = if fault == Some(Fault::ValuesAreCut) { 255 } else { value.len() };
                values.insert(name, value[..most.min(value.len())].to_vec());
            }
            None => drop(values.remove(&name)),
        }
        true
    }

    /// What housekeeping makes of them.
    pub(crate) fn housekept(&self, fault: Option<Fault>) {
        if fault == Some(Fault::ValuesGoWithHousekeeping) {
            self.lock().clear();
        }
    }
}
