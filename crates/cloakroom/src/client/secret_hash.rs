//! What is kept of a client's secret.

use std::fmt;

use cloakroom_core::InvalidValue;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// SHA-256 of a client secret: all that is kept of it. Secrets are random, so a password hash would
/// only cost: one per introspection brings a server down.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret of at least 22 bytes (128 random bits in base64url).
    ///
    /// # Errors
    ///
    /// If the secret is shorter.
    pub fn of(secret: &str) -> Result<Self, InvalidValue> {
        if secret.len() < 22 {
            return Err(InvalidValue {
                what: "client secret",
                why: "it is shorter than 22 bytes; use 128 random bits or more",
            });
        }
        Ok(Self::presented(secret))
    }

    /// A hash that was made elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether both are of one secret, in constant time.
    pub(crate) fn matches(&self, presented: &Self) -> Choice {
        self.0.ct_eq(&presented.0)
    }

    pub(crate) fn presented(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}
