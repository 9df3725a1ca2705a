//! Keys: their algorithms, private keys, JWKs, and sets of verification keys.

pub(crate) mod algorithm;
pub mod danger;
pub(crate) mod encoded_header;
pub(crate) mod import;
pub(crate) mod jwk;
pub(crate) mod jwk_set;
pub(crate) mod key_set;
mod material;
pub(crate) mod signing;

#[cfg(test)]
#[cfg(feature = "ml-dsa")]
mod ml_dsa_tests;
