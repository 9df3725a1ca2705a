//! Values that show whether a store belongs to an issuer and its secrets.

use std::fmt;

use async_trait::async_trait;

use crate::store::error::StoreError;

/// Small named values that a store keeps beside its records. With them, a program that has another
/// issuer or a mistyped secret fails before it writes anything else.
///
/// The engine derives check values from its issuer and its secrets, without revealing them, and compares
/// them whenever an issuer is built. [`TokenStore`](crate::store::TokenStore) and
/// [`KeyStore`](crate::keys::KeyStore) both require this trait. A database that holds both needs one set
/// of values. Put [`#[async_trait]`](crate::async_trait) on your `impl`.
///
/// - Names must be compared byte by byte.
/// - Values must survive everything that the records survive, such as a restart and housekeeping.
/// - A store must hold some hundreds of values, with names of up to [`CheckValue::MAX_NAME_BYTES`]
///   and values of up to [`CheckValue::MAX_VALUE_BYTES`].
#[async_trait]
pub trait CheckValues: fmt::Debug + Send + Sync + 'static {
    /// Every value, ordered by name. It must be read from the primary.
    ///
    /// # Errors
    ///
    /// If the store fails. That must never look like "no values".
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError>;

    /// Changes the value of a name from `expected` to `value`, in one atomic step. `None` stands for no
    /// value. Returns whether the name now has `value`. If the name has neither `expected` nor `value`,
    /// nothing must be written.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError>;
}

/// Conveniences over any [`CheckValues`].
#[async_trait]
pub trait CheckValuesExt: CheckValues {
    /// Writes a value if the name has none. Returns `None` if the name now has `value`, and the
    /// other value if it has another. If two nodes start at the same time with different values,
    /// one gets the other's value.
    ///
    /// # Errors
    ///
    /// If the store fails, or if the value keeps changing.
    async fn claim(&self, name: &str, value: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for _ in 0..MAX_RACES {
            if self.set_check_value(name, None, Some(value)).await? {
                return Ok(None);
            }
            let found = self.check_values().await?.into_iter().find(|found| found.name == name);
            match found {
                Some(found) if found.value == value => return Ok(None),
                Some(found) => return Ok(Some(found.value)),
                // It was removed in the meantime.
                None => {}
            }
        }
        Err(StoreError::unavailable("writing a check value", "it keeps changing"))
    }
}

impl<S: CheckValues + ?Sized> CheckValuesExt for S {}

/// More races in a row than a node loses in practice.
const MAX_RACES: usize = 16;

/// A check value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub struct CheckValue {
    /// Its name: printable ASCII.
    pub name: String,
    /// The value, which is not a secret.
    pub value: Vec<u8>,
}

impl CheckValue {
    /// The largest size of a name, in bytes.
    pub const MAX_NAME_BYTES: usize = 128;

    /// The name of the value that holds the URL of the issuer.
    pub const ISSUER: &str = "issuer";

    /// The prefix of names of tenants' values ([`TenantStore`](crate::store::TenantStore)).
    pub const TENANTS: &str = "tenant/";

    /// The largest size of a value, in bytes.
    pub const MAX_VALUE_BYTES: usize = 1024;
}

#[cfg(test)]
mod tests;
