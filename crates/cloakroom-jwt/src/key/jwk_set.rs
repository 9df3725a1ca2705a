//! JWK Sets (RFC 7517 §5).

use cloakroom_core::strict_json::{self, Object};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::key::jwk::{Jwk, JwkError};

/// The public keys that an issuer publishes.
///
/// As RFC 7517 §5 recommends, keys that are not understood, of unsupported kinds or out of range
/// are ignored. A key with a private member is also ignored. Each ignored key causes a warning in
/// the trace.
///
/// ```
/// use cloakroom_jwt::{Algorithm, JwkSet, KeySet, SigningKey};
///
/// let key = SigningKey::generate(Algorithm::Es256)?;
/// let published = serde_json::to_vec(&JwkSet::new(vec![key.public_jwk().clone()]))?;
///
/// let keys = KeySet::prepare(&JwkSet::from_json(&published)?);
/// assert!(keys.contains(key.kid()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

impl JwkSet {
    /// The largest size of a JWK Set, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// The largest number of keys in a JWK Set, including ignored ones.
    pub const MAX_KEYS: usize = 100;

    /// A set of these keys.
    #[must_use]
    pub const fn new(keys: Vec<Jwk>) -> Self {
        Self { keys }
    }

    /// Parses a published set.
    ///
    /// # Errors
    ///
    /// If it is not a JWK Set, contains a duplicate member at any depth, or has more than 256 KiB or
    /// more than 100 keys.
    pub fn from_json(json: &[u8]) -> Result<Self, JwkError> {
        if json.len() > Self::MAX_BYTES {
            return Err(JwkError::TooLarge { size: json.len(), limit: Self::MAX_BYTES });
        }
        // RFC 7517 §4, §5: of a member that occurs twice, another parser may take the other value.
        strict_json::from_slice::<Wire>(json)?.try_into()
    }

    /// The keys, in the order of the document.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Jwk> {
        self.keys.iter()
    }
}

#[derive(Deserialize)]
struct Wire {
    keys: Vec<Value>,
}

impl TryFrom<Wire> for JwkSet {
    type Error = JwkError;

    fn try_from(wire: Wire) -> Result<Self, JwkError> {
        if wire.keys.len() > Self::MAX_KEYS {
            return Err(JwkError::TooManyKeys { count: wire.keys.len(), limit: Self::MAX_KEYS });
        }
        let keys = wire
            .keys
            .into_iter()
            .filter_map(|value| {
                // Not the whole value: it may hold a secret.
                let kid = value.get("kid").and_then(Value::as_str).map(str::to_owned);
                serde_json::from_value(value)
                    .inspect_err(|error| tracing::warn!(?kid, %error, "a JWK is ignored"))
                    .ok()
            })
            .collect();
        Ok(Self { keys })
    }
}

impl<'de> Deserialize<'de> for JwkSet {
    /// Like [`from_json`](JwkSet::from_json), but the caller limits the size.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(wire) = Object::<Wire>::deserialize(deserializer)?;
        wire.try_into().map_err(serde::de::Error::custom)
    }
}
