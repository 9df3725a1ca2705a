//! What a store remembers of the issuer and the secrets that it belongs to.

use std::fmt;

use async_trait::async_trait;

use crate::store::error::StoreError;

/// A few small named values that a store keeps beside its records, so that a program with another
/// issuer, or with a mistyped secret, is told so before it does harm.
///
/// The engine writes check values of its issuer and its secrets, which reveal nothing of them, and
/// compares them whenever an issuer is built. [`TokenStore`](crate::store::TokenStore) and
/// [`KeyStore`](crate::keys::KeyStore) both ask for it. Where one database holds both, one set of values
/// serves both.
///
/// - A name must be compared byte by byte.
/// - Values must survive whatever the records survive: a restart, housekeeping.
/// - A store must hold names of up to [`CheckValue::MAX_NAME_BYTES`], values of up to
///   [`CheckValue::MAX_VALUE_BYTES`], and some hundred values.
#[async_trait]
pub trait CheckValues: fmt::Debug + Send + Sync + 'static {
    /// Every value, ordered by name; from the primary.
    ///
    /// # Errors
    ///
    /// If the store fails. That must never look like "no values".
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError>;

    /// Changes what stands under a name from `expected` to `value`, in one atomic step. `None` is
    /// "nothing stands there". Whether it was done: if something else than `expected` stands there,
    /// nothing must be written. Where `value` stands there already it is done.
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
    /// Writes a value unless one stands there, and returns one that differs: `None` if `value` now
    /// stands there. Of nodes that start at once, with different values, one is told so.
    ///
    /// # Errors
    ///
    /// If the store fails, or the value changes all the time.
    async fn claim(&self, name: &str, value: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for _ in 0..MAX_RACES {
            if self.set_check_value(name, None, Some(value)).await? {
                return Ok(None);
            }
            let found = self.check_values().await?.into_iter().find(|found| found.name == name);
            match found {
                Some(found) if found.value == value => return Ok(None),
                Some(found) => return Ok(Some(found.value)),
                // It was taken away meanwhile.
                None => {}
            }
        }
        Err(StoreError::unavailable("writing a check value", "it changes all the time"))
    }
}

impl<S: CheckValues + ?Sized> CheckValuesExt for S {}

/// More than nodes ever lose in a row.
const MAX_RACES: usize = 16;

/// A value under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckValue {
    /// Its name: printable ASCII.
    pub name: String,
    /// The value; no secret.
    pub value: Vec<u8>,
}

impl CheckValue {
    /// The most bytes that a name has.
    pub const MAX_NAME_BYTES: usize = 128;

    /// The name of the value that says whose the store is: the issuer's URL.
    pub const ISSUER: &str = "issuer";

    /// How the names of tenants' values begin ([`TenantStore`](crate::store::TenantStore)).
    pub const TENANTS: &str = "tenant/";

    /// The most bytes that a value has.
    pub const MAX_VALUE_BYTES: usize = 1024;
}
